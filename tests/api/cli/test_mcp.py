import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from indexer.settings import Settings
from tests.api.cli.conftest import Parcelle
from tests.retriever.planted import Seen, at_cosine, plant, settings_in
from tests.schemas import copy_index, place_told_of

PARCELLE = str(Path(sys.executable).with_name("parcelle"))

# What was loaded is told on stderr: stdout is the protocol's.
TELL_WHAT_WAS_LOADED = """
import atexit, sys
loaded = {"torch", "torchgeo", "torchvision", "langchain_core", "geopandas"}
atexit.register(lambda: print("loaded:", *sorted(loaded & set(sys.modules)), file=sys.stderr))
from api.cli import main
main(["mcp"])
"""

HANDSHAKE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


class Session:
    """Speaks to a server line by line; every line of stdout must be a message."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._asked = 0

    def notify(self, method: str) -> None:
        self._write({"jsonrpc": "2.0", "method": method})

    def ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        self._asked += 1
        self._write({"jsonrpc": "2.0", "id": self._asked, "method": method, "params": params or {}})
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        assert answer["jsonrpc"] == "2.0"
        assert answer["id"] == self._asked
        return answer

    def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self.ask("tools/call", {"name": name, "arguments": arguments})
        return dict(result["result"])

    def end(self) -> tuple[str, str]:
        """Close stdin and wait; what the server wrote after its last answer."""
        return self.process.communicate(timeout=30)

    def _write(self, message: dict[str, Any]) -> None:
        self.write(json.dumps(message))

    def write(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()


@contextmanager
def started(folder: Path, command: Sequence[str] = (PARCELLE, "mcp")) -> Iterator[Session]:
    """A server that reads an index in a folder, after the handshake."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PARCELLE_")}
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | {"PARCELLE_DATA_DIR": str(folder)},
    )
    with process:
        try:
            session = Session(process)
            assert (
                session.ask("initialize", HANDSHAKE)["result"]["serverInfo"]["name"] == "parcelle"
            )
            session.notify("notifications/initialized")
            yield session
        finally:
            process.kill()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    chosen = settings_in(tmp_path_factory.mktemp("index"))
    plant(chosen, [Seen("a", at_cosine(1)), Seen("b", at_cosine(0.5))])
    return chosen


def test_stdout_carries_the_protocol_alone_until_stdin_ends(index: Settings) -> None:
    with started(index.data_dir) as session:
        assert len(session.ask("tools/list")["result"]["tools"]) == 4
        session.write("no message")
        answer = session.call("find_similar_parcels", {"parcel_id": "a"})
        assert answer["structuredContent"]["matches"][0]["id"] == "b"
        assert session.call("get_parcel_state", {"parcel_id": "z"})["isError"] is True
        assert session.ask("tools/call", {"name": "fly"})["error"]["code"] == -32602
        left, errors = session.end()
    assert left == ""
    assert "Traceback" not in errors
    assert session.process.returncode == 0


def test_answering_loads_neither_torch_nor_langchain(index: Settings) -> None:
    command = (sys.executable, "-c", TELL_WHAT_WAS_LOADED)
    with started(index.data_dir, command) as session:
        for name, arguments in (
            ("search_parcels", {}),
            ("get_parcel_state", {"parcel_id": "a"}),
            ("find_similar_parcels", {"parcel_id": "a"}),
            ("compare_parcels", {"parcel_ids": ["a", "b"]}),
        ):
            assert session.call(name, arguments)["isError"] is False
        assert session.ask("resources/read", {"uri": "parcel://demo/a"})["result"]
        _, errors = session.end()
    assert errors.splitlines()[-1] == "loaded:"
    assert session.process.returncode == 0


def test_a_server_without_a_database_says_what_to_do_and_answers_once_there_is_one(
    tmp_path: Path, index: Settings
) -> None:
    folder = tmp_path / "later"
    with started(folder) as session:
        assert len(session.ask("tools/list")["result"]["tools"]) == 4
        refused = session.call("search_parcels", {})
        assert refused["isError"] is True
        assert "There is no index yet; parcelle reindex makes one." in refused["content"][0]["text"]
        assert not folder.exists(), "asking must not make an empty database"

        copy_index(index.data_dir, folder)
        assert session.call("search_parcels", {})["structuredContent"]["matched"] == 2
        _, errors = session.end()
    assert place_told_of(folder) in errors, "the log tells where none was found"
    assert session.process.returncode == 0


def test_ctrl_c_ends_a_server_that_waits_for_its_client(tmp_path: Path) -> None:
    with started(tmp_path) as session:
        session.process.send_signal(signal.SIGINT)
        assert session.process.wait(30) == -signal.SIGINT


def test_help_gives_an_example(parcelle: Parcelle) -> None:
    ran = parcelle("mcp", "--help")
    assert ran.exit_code == 0
    assert "For example:" in ran.stdout
    assert "claude mcp add parcelle -- parcelle mcp" in ran.stdout
    assert "mcpServers" in ran.stdout
