import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
from fastapi.testclient import TestClient

from api import maintenance
from api.app import create_app
from api.settings import ApiSettings
from indexer.lock import only_writer
from indexer.settings import Settings
from retriever.search import ParcelSearcher
from tests.api.serving import served_by_a_process
from tests.retriever.planted import Seen, at_cosine, plant, settings_in

PARCELS = 5


def landscape(turn: int) -> list[Seen]:
    """A parcel that asks, and others whose order of likeness is another in every turn."""
    others = [
        Seen(f"p{n}", at_cosine(0.9 - 0.1 * ((n + turn) % PARCELS), axis=1 + n))
        for n in range(PARCELS)
    ]
    return [Seen("asked", at_cosine(1)), *others]


def expected(turn: int) -> list[str]:
    return [f"p{n}" for n in sorted(range(PARCELS), key=lambda n: (n + turn) % PARCELS)]


def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


@pytest.fixture
def index(tmp_path: Path) -> Settings:
    """The first turn, published; whatever is changed of all its parcels is due at once."""
    settings = settings_in(tmp_path)
    plant(settings, landscape(1))
    return settings


def service(index: Settings, every_s: float) -> TestClient:
    settings = ApiSettings(
        data_dir=index.data_dir, database_url=index.database_url, compact_every_s=every_s
    )
    return TestClient(create_app(settings))


def generation_of(client: TestClient) -> int:
    found = client.get("/generations").json()["generations"]
    return int(found[0]["generation"])


def test_what_was_committed_is_compacted_in_the_background_and_answers_stay_right(
    index: Settings,
) -> None:
    with (
        served_by_a_process(index, workers=2, PARCELLE_COMPACT_EVERY_S="0.1") as address,
        httpx2.Client(base_url=address, timeout=30) as client,
    ):

        def ask() -> tuple[int, list[str]]:
            response = client.get("/collections/demo/items/asked/similar")
            assert response.status_code == 200, response.text
            found = response.json()
            return found["generation"], [one["id"] for one in found["features"]]

        assert ask() == (1, expected(1))
        plant(index, landscape(2), publish=False)
        answers = [ask()]
        deadline = time.monotonic() + 60
        while answers[-1][0] == 1:
            assert time.monotonic() < deadline, "no compaction was published"
            # The compaction has less of a right to the processor than answers.
            time.sleep(0.02)
            answers.append(ask())
        assert {tuple(ids) for _, ids in answers} == {tuple(expected(2))}
        listed = client.get("/generations").json()["generations"]
    assert [(one["generation"], one["current"]) for one in listed] == [(2, True), (1, False)]
    assert listed[0]["since_publication"] == {"rows": 0, "removed": 0, "due": False}


def test_while_somebody_writes_it_waits_without_complaint(
    index: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    plant(index, landscape(2), publish=False)
    with caplog.at_level(logging.DEBUG, "api.maintenance"), service(index, 0.05) as client:
        with only_writer(index, doing="reindex"):
            until(lambda: "Somebody else writes" in caplog.text)
            assert generation_of(client) == 1
        until(lambda: generation_of(client) == 2)
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


def test_a_failed_compaction_is_logged_with_what_it_said(
    index: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    plant(index, landscape(2), publish=False)
    # Nothing can be built in a file.
    (index.data_dir / "generations").rename(index.data_dir / "moved")
    (index.data_dir / "generations").write_text("no folder")
    with service(index, 0.05):
        until(lambda: "Compaction ended with code 1" in caplog.text)
    assert "[write-failed]" in caplog.text


def test_the_end_of_the_service_ends_the_compaction(
    index: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "process"
    program = (
        "import os, pathlib, time; "
        f"pathlib.Path({str(note)!r}).write_text(str(os.getpid())); time.sleep(600)"
    )
    monkeypatch.setattr(maintenance, "_PROGRAM", program)
    plant(index, landscape(2), publish=False)
    with service(index, 0.05):
        until(lambda: note.exists() and note.read_text() != "")
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_without_an_index_it_looks_again_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_in(tmp_path / "later")
    with service(settings, 0.05) as client:
        time.sleep(0.2)
        settings.data_dir.mkdir()
        plant(settings, landscape(1))
        plant(settings, landscape(2), publish=False)
        until(lambda: generation_of(client) == 2)
    assert not any("looked after" in one.message for one in caplog.records if one.levelno > 20)


def test_zero_seconds_are_never(index: Settings) -> None:
    plant(index, landscape(2), publish=False)
    with service(index, 0) as client:
        time.sleep(0.3)
        assert generation_of(client) == 1
    assert not (index.data_dir / maintenance.KEEPER_FILE).exists()


@pytest.fixture
def keeper() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


def test_one_process_looks_after_an_index_and_the_next_when_it_is_gone(
    tmp_path: Path, keeper: ExitStack
) -> None:
    with ExitStack() as first:
        assert maintenance._is_alone(tmp_path, first)
        assert not maintenance._is_alone(tmp_path, keeper)
    assert maintenance._is_alone(tmp_path, keeper)


def test_halfway_to_the_bound_recall_is_measured_once(
    index: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ApiSettings(data_dir=index.data_dir, database_url="")
    with ParcelSearcher.open(settings) as searcher:
        looking = maintenance._Keeper(settings, lambda: searcher.engine)
        assert looking._wanted() is None
        plant(index, landscape(2)[:3], publish=False)
        assert looking._wanted() is None
        # Three rows of the index are gone, and three beside it.
        monkeypatch.setattr("indexer.generations.compaction.FEWEST_CHANGES", 10)
        assert looking._wanted() == ["--if-due", "--verify"]
        assert looking._wanted() is None
        monkeypatch.setattr("indexer.generations.compaction.FEWEST_CHANGES", 5)
        assert looking._wanted() == ["--if-due"]


# What was left, and what is damaged ----------------------------------------------------------


def leave_half_a_generation(index: Settings) -> Path:
    left = index.generations_dir / ".building-2"
    left.mkdir()
    (left / "vectors.npy").write_bytes(b"half of it")
    return left


def test_the_start_of_a_service_clears_away_what_a_killed_process_left(index: Settings) -> None:
    left = leave_half_a_generation(index)
    with service(index, 0) as client:
        assert not left.exists()
        assert generation_of(client) == 1


def test_while_somebody_writes_a_service_clears_nothing_away(index: Settings) -> None:
    left = leave_half_a_generation(index)
    with only_writer(index, doing="reindex"), service(index, 0) as client:
        assert left.exists()
        assert generation_of(client) == 1


def test_a_flipped_bit_that_opening_did_not_see_is_found_and_the_index_built_anew(
    index: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if all files were large: opening compares their sizes.
    monkeypatch.setattr("indexer.generations.store.CHECKED_BYTES", 0)
    monkeypatch.setattr("indexer.generations.damage.CHECKED_BYTES", 0)
    vectors = index.generations_dir / "1" / "vectors.npy"
    content = bytearray(vectors.read_bytes())
    content[-1] ^= 1
    vectors.write_bytes(content)
    with service(index, 0.05) as client:
        until(lambda: generation_of(client) == 2)
        until(lambda: "The index is damaged, and built anew" in caplog.text)
    assert str(vectors) in caplog.text
    assert {path.name for path in index.generations_dir.iterdir()} == {"2"}


def test_files_that_opening_only_compares_in_size_are_read_once(
    index: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ApiSettings(data_dir=index.data_dir, database_url="")
    with ParcelSearcher.open(settings) as searcher:
        looking = maintenance._Keeper(settings, lambda: searcher.engine)
        assert looking._wanted() is None
        monkeypatch.setattr("indexer.generations.damage.CHECKED_BYTES", 0)
        assert looking._wanted() == ["--if-due", "--read"]
        assert looking._wanted() is None
        # It could not be mended, as when somebody else was writing.
        looking._tell_damage("[generation-corrupt] vectors.npy is damaged", done=False)
        assert looking._wanted() == ["--if-due", "--read"]
