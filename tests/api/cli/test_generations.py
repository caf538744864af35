import json
from pathlib import Path

import pytest

from indexer.catalog.changes import snapshot
from indexer.catalog.database import opened_catalog
from indexer.generations import compaction
from indexer.generations.compaction import RecallNow
from indexer.lock import only_writer
from indexer.settings import Settings
from tests.api.cli.conftest import Parcelle
from tests.retriever.planted import UNTRAINED, Seen, at_cosine, plant, settings_in

PARCELS = [Seen(f"p{number}", at_cosine(0.9 - 0.1 * number)) for number in range(5)]
NEW = [Seen("new", at_cosine(0.95)), Seen("p1", at_cosine(0.1))]


@pytest.fixture
def index(home: Path) -> Settings:
    """Five parcels, published; one was added and one changed since."""
    settings = settings_in(home)
    plant(settings, PARCELS)
    plant(settings, NEW, publish=False)
    return settings


@pytest.mark.usefixtures("index")
def test_the_list_tells_what_was_committed_since(parcelle: Parcelle) -> None:
    ran = parcelle("generations", "list", "--json")
    (entry,) = ran.json["generations"]
    assert entry["since_publication"] == {"rows": 2, "removed": 1, "due": False}
    assert entry["imbalance"] == 1
    assert "+2 -1" in parcelle("generations", "list").stdout


def test_the_list_marks_what_is_due_and_says_nothing_of_former_generations(
    parcelle: Parcelle, index: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    parcelle("generations", "compact")
    plant(index, PARCELS[1:4], publish=False)
    monkeypatch.setattr(compaction, "FEWEST_CHANGES", 1)
    first, second = parcelle("generations", "list").stdout.splitlines()[1:]
    # p1 is as it was again; p2 and p3 are unchanged in what is seen, but were written.
    assert "+3 -3 due" in first
    assert "+" not in second


def test_an_unreadable_generation_is_listed_as_such(parcelle: Parcelle, index: Settings) -> None:
    for path in (index.generations_dir / "1").iterdir():
        path.unlink()
    ran = parcelle("generations", "list")
    assert ran.exit_code == 0
    assert "unreadable" in ran.stdout


@pytest.mark.usefixtures("index")
def test_compact_publishes_what_was_committed_and_then_has_nothing_to_do(
    parcelle: Parcelle,
) -> None:
    ran = parcelle("generations", "compact", "--json")
    assert ran.exit_code == 0, ran.stderr
    (published,) = ran.json["published"]
    assert (published["generation"], published["rows"]) == (2, 6)
    assert "Building the index: reading vectors" in ran.stderr
    again = parcelle("generations", "compact")
    assert again.stdout == "Nothing was committed since.\n"
    listed = parcelle("generations", "list", "--json").json["generations"]
    assert listed[0]["since_publication"] == {"rows": 0, "removed": 0, "due": False}


@pytest.mark.usefixtures("index")
def test_compact_if_due_leaves_few_changes_where_they_are(
    parcelle: Parcelle, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = parcelle("generations", "compact", "--if-due")
    assert (ran.exit_code, ran.stdout) == (0, "Nothing is due.\n")
    monkeypatch.setattr(compaction, "FEWEST_CHANGES", 2)
    ran = parcelle("generations", "compact", "--if-due")
    assert ran.stdout == "Generation 2 answers with 6 vectors.\n"


@pytest.mark.usefixtures("index")
def test_compact_counts_a_fall_of_recall_as_due_where_it_is_to_verify(
    parcelle: Parcelle, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = parcelle("generations", "compact", "--if-due", "--verify")
    assert ran.stdout == "Nothing is due.\n"
    assert "recall@10 of 1.000" in ran.stderr
    monkeypatch.setattr(compaction, "recall_now", lambda *_, **__: RecallNow(0.98, 6))
    ran = parcelle("generations", "compact", "--if-due", "--verify")
    assert ran.stdout == "Generation 2 answers with 6 vectors.\n"


def test_compact_waits_for_nobody(parcelle: Parcelle, index: Settings) -> None:
    with only_writer(index.data_dir):
        ran = parcelle("generations", "compact")
    assert ran.exit_code == 1
    assert "[reindex-running]" in ran.stderr


def test_each_space_is_compacted_by_itself(parcelle: Parcelle, index: Settings) -> None:
    plant(index, [Seen("q1", at_cosine(0.5), collection="other")], weights=UNTRAINED)
    ran = parcelle("generations", "compact", "--json")
    # The other was published after all that was written.
    rows = {one["space"]["weights"]: one["rows"] for one in ran.json["published"]}
    assert rows == {"trained": 6}


@pytest.mark.usefixtures("index")
def test_verify_reads_everything_and_measures_recall(parcelle: Parcelle) -> None:
    ran = parcelle("generations", "verify", "--json")
    assert ran.exit_code == 0, ran.stderr
    assert ran.json["ok"]
    (found,) = ran.json["generations"]
    assert found["since_publication"] == {"rows": 2, "removed": 1, "due": False}
    # All of the four and two are asked for, and so few are all looked at.
    assert (found["recall_at_10"], found["recall_now"], found["recall_queries"]) == (1, 1, 6)
    told = parcelle("generations", "verify")
    assert "ok" in told.stdout
    assert "2 added and 1 removed since" in told.stdout


def test_verify_fails_on_a_damaged_file(parcelle: Parcelle, index: Settings) -> None:
    vectors = index.generations_dir / "1" / "vectors.npy"
    content = bytearray(vectors.read_bytes())
    content[-1] ^= 1
    vectors.write_bytes(content)
    ran = parcelle("generations", "verify", "--json")
    assert ran.exit_code == 1
    assert not ran.json["ok"]
    assert "is damaged" in ran.json["generations"][0]["detail"]
    # A service goes on as if nothing was published, and heals itself when it is asked to.
    assert parcelle("generations", "rebuild").exit_code == 0
    assert parcelle("generations", "verify").exit_code == 0


def test_verify_has_nothing_to_say_before_the_first_publication(
    parcelle: Parcelle, home: Path
) -> None:
    plant(settings_in(home), PARCELS, publish=False)
    ran = parcelle("generations", "verify")
    assert (ran.exit_code, ran.stdout) == (
        0,
        "No generation is published yet; run parcelle reindex.\n",
    )


@pytest.mark.usefixtures("index")
def test_rebuild_shows_its_steps(parcelle: Parcelle) -> None:
    ran = parcelle("generations", "rebuild")
    assert ran.stdout == "Generation 2 answers with 6 vectors.\n"
    assert "Building the index: reading vectors" in ran.stderr


@pytest.mark.usefixtures("index")
def test_check_is_content_with_a_catalog_that_moved_on(parcelle: Parcelle) -> None:
    checks = {one["name"]: one for one in parcelle("check", "--json").json["checks"]}
    assert checks["generation 1"]["ok"]
    assert "2 added and 1 removed since" in checks["generation 1"]["detail"]


def test_the_list_and_the_service_read_one_moment(index: Settings) -> None:
    with opened_catalog(index) as engine, snapshot(engine) as connection:
        before = compaction.published_now(connection, index.generations_dir)
        plant(index, [Seen("later", at_cosine(0.2))], publish=False)
        after = compaction.published_now(connection, index.generations_dir)
    assert json.dumps([one.to_dict() for one in before]) == json.dumps(
        [one.to_dict() for one in after]
    )
