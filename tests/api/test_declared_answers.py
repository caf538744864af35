"""Requests that schemathesis makes up from the OpenAPI document, to a real server."""

import os
import subprocess
import sys
from pathlib import Path

from api.app import create_app
from indexer.settings import Settings
from tests.api.test_app import api_settings, served

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "missing_required_header",
    "unsupported_method",
)


def test_no_request_fails_in_the_server_or_is_answered_as_not_declared(
    demo_index: Settings, tmp_path: Path
) -> None:
    """Every route, by its examples, at the bounds of each parameter, and at random."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "run"]
    options = {
        "--checks": ",".join(CHECKS),
        "--phases": "examples,coverage,fuzzing",
        "--max-examples": "50",
        "--warnings": "off",
    }
    with served(create_app(api_settings(demo_index))) as address:
        run = subprocess.run(
            [*command, f"{address}/api", "--no-color", "--continue-on-failure"]
            + [part for option in options.items() for part in option],
            # It leaves a folder of its own where it runs.
            cwd=tmp_path,
            env=os.environ | {"PYTHONUTF8": "1"},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2_000:]
    assert "Tested: " in run.stdout
