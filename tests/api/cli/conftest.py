"""Running the command line as a user does, within the test's process."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from api.cli import main
from indexer.settings import Settings


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever the command printed
        """Its result."""
        return json.loads(self.stdout)


Parcelle = Callable[..., Ran]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, untrained weights, and nothing else in the environment."""
    for name in [name for name in os.environ if name.startswith("PARCELLE_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "home"
    monkeypatch.setenv("PARCELLE_DATA_DIR", str(folder))
    monkeypatch.setenv("PARCELLE_CROMA_WEIGHTS", "untrained")
    return folder


@pytest.fixture
def parcelle(home: Path, capsys: pytest.CaptureFixture[str]) -> Parcelle:
    """Run ``parcelle`` with arguments, in the empty data folder."""

    def run(*arguments: str | Path) -> Ran:
        with pytest.raises(SystemExit) as exited:
            main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        code = exited.value.code
        return Ran(code if isinstance(code, int) else 0, output.out, output.err)

    return run


@pytest.fixture
def in_demo(parcelle: Parcelle, demo_index: Settings, monkeypatch: pytest.MonkeyPatch) -> Parcelle:
    """Run ``parcelle`` in the small indexed landscape; only to read."""
    monkeypatch.setenv("PARCELLE_DATA_DIR", str(demo_index.data_dir))
    return parcelle
