import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from api.app import create_app
from api.cli import app
from api.settings import ApiSettings
from indexer.settings import Settings

README = (Path(__file__).parents[1] / "README.md").read_text()


def commands() -> dict[str, Any]:
    """Every command by its words, ``generations list``."""

    # Typer carries a Click of its own, which it does not export.
    def walk(command: Any, words: tuple[str, ...]) -> dict[str, Any]:  # noqa: ANN401
        inner = getattr(command, "commands", None)
        if not inner:
            return {" ".join(words): command}
        found: dict[str, Any] = {}
        for name, sub in inner.items():
            found |= walk(sub, (*words, name))
        return found

    return walk(typer.main.get_command(app), ())


def row_of(command: str) -> str:
    rows = re.findall(rf"^\| `parcelle {command}\b.*$", README, flags=re.MULTILINE)
    assert len(rows) == 1, f"README has {len(rows)} rows for parcelle {command}"
    return str(rows[0])


@pytest.mark.parametrize("command", commands())
def test_readme_names_every_command_and_option(command: str) -> None:
    row = row_of(command)
    if command == "embed":
        # It says "the reading options of reindex".
        row += row_of("reindex")
    for parameter in commands()[command].params:
        names = [name for name in parameter.opts if name.startswith("-") and name != "--help"]
        for name in names:
            assert f"{name}" in row, f"README does not name parcelle {command} {name}"


def test_readme_names_no_command_that_does_not_exist() -> None:
    named = set(
        re.findall(
            r"parcelle ((?:db|generations|keys) \w+|cluster (?:name|list|forget)|[a-z]+)\b", README
        )
    )
    assert named <= set(commands()) | {"reindex", "cluster"}


def test_readme_names_every_setting_and_no_other() -> None:
    settings = {f"PARCELLE_{name.upper()}" for name in ApiSettings.model_fields}
    assert set(re.findall(r"PARCELLE_[A-Z_]+", README)) == settings


def test_the_containers_can_be_given_every_setting() -> None:
    compose = (Path(__file__).parents[1] / "docker-compose.yml").read_text()
    handed_on = set(re.findall(r"^ +(PARCELLE_[A-Z_]+):", compose, flags=re.MULTILINE))
    assert handed_on == {f"PARCELLE_{name.upper()}" for name in ApiSettings.model_fields}


def test_readme_names_every_route_and_no_other() -> None:
    named = set(re.findall(r"(?:GET|POST|PUT|DELETE) (/[^`\s]*)", README))
    application = create_app(ApiSettings(data_dir=Path("nowhere")))
    served = set(application.openapi()["paths"])
    assert named == served | {"/", "/api"}


def test_python_of_the_readme_runs_as_it_stands(
    demo_index: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PARCELLE_DATA_DIR", str(demo_index.data_dir))
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec("\n".join(blocks), names)
    names["searcher"].close()
    printed = capsys.readouterr().out
    assert re.search(r"^1 demo-\d{3} ", printed, flags=re.MULTILINE)
    assert "demo-012" in printed.split("5 demo-")[-1]
