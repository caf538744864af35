"""What ``docker compose`` makes of docker-compose.yml, where its client is installed."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]

SECRETS = {"POSTGRES_PASSWORD": "one", "PARCELLE_API_KEYS": "two"}


def compose_config(secrets: dict[str, str], *profiles: str) -> subprocess.CompletedProcess[str]:
    """The configuration as the client understands it, every default filled in."""
    text = (ROOT / "docker-compose.yml").read_text()
    client = ["docker", "compose"]
    if shutil.which("docker") is None or _fails("docker", "compose", "version"):
        if shutil.which("docker-compose") is None:
            pytest.skip("docker-compose.yml: neither `docker compose` nor docker-compose is here")
        client = ["docker-compose"]
        # Its first major version, which Debian packages, takes the project's name elsewhere.
        lines = text.splitlines(keepends=True)
        text = "".join(line for line in lines if not line.startswith("name:"))
    chosen = [word for profile in profiles for word in ("--profile", profile)]
    outer = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [*client, *chosen, "--file", "-", "config"],
        cwd=ROOT,
        env=outer | secrets,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
    )


def _fails(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, timeout=60).returncode != 0


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    done = compose_config(SECRETS, "milvus")
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = yaml.safe_load(done.stdout)["services"]
    return found


def test_compose_starts_a_database_its_migration_and_the_service(
    services: dict[str, dict[str, Any]],
) -> None:
    assert {"db", "migrate", "api"} <= set(services)
    assert services["migrate"]["depends_on"]["db"]["condition"] == "service_healthy"
    waits = services["api"]["depends_on"]["migrate"]["condition"]
    assert waits == "service_completed_successfully"


def test_nothing_in_the_containers_runs_as_root_or_writes_outside_of_its_volumes(
    services: dict[str, dict[str, Any]],
) -> None:
    for name in ("db", "migrate", "api"):
        service = services[name]
        assert service["user"] not in ("", "0", "root"), name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_whatever_goes_on_running_is_looked_after(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        if service.get("restart") != "no":
            assert service["healthcheck"]["test"], name


def test_what_must_outlive_a_container_lies_in_volumes(
    services: dict[str, dict[str, Any]],
) -> None:
    assert any("/var/lib/postgresql/data" in str(one) for one in services["db"]["volumes"])
    assert any("/data" in str(one) for one in services["api"]["volumes"])


def test_only_this_machine_reaches_the_published_ports(
    services: dict[str, dict[str, Any]],
) -> None:
    published = [str(port) for one in services.values() for port in one.get("ports", ())]
    assert published
    assert all("127.0.0.1" in port for port in published)


@pytest.mark.parametrize("missing", SECRETS)
def test_compose_refuses_to_start_without_a_secret(missing: str) -> None:
    done = compose_config({name: value for name, value in SECRETS.items() if name != missing})
    assert done.returncode != 0
    assert missing in done.stderr
