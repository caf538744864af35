import json
import shutil
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
    with only_writer(index, doing="reindex"):
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


# Earlier generations -------------------------------------------------------------------------


@pytest.fixture
def twice(parcelle: Parcelle, index: Settings) -> Settings:
    """The index, compacted: generation 2 holds what was added; one more parcel came since."""
    assert parcelle("generations", "compact").exit_code == 0
    plant(index, [Seen("later", at_cosine(0.2))], publish=False)
    return index


def similar(parcelle: Parcelle) -> list[tuple[str, float]]:
    ran = parcelle("similar", "p0", "--format", "json")
    assert ran.exit_code == 0, ran.stderr
    return [(one["id"], one["score"]) for one in ran.json["matches"]]


@pytest.mark.usefixtures("twice")
def test_rollback_undoes_the_latest_publication_and_no_answer_changes(parcelle: Parcelle) -> None:
    before = similar(parcelle)
    assert {name for name, _ in before} == {"p1", "p2", "p3", "p4", "new", "later"}
    ran = parcelle("generations", "rollback", "--json")
    assert ran.exit_code == 0, ran.stderr
    assert (ran.json["generation"], ran.json["former"], ran.json["moved"]) == (1, [2], [])
    # p1 was written anew, new and later came.
    assert ran.json["since_publication"] == {"rows": 3, "removed": 1, "due": False}
    after = similar(parcelle)
    assert [name for name, _ in after] == [name for name, _ in before]
    assert [score for _, score in after] == pytest.approx([score for _, score in before], abs=1e-3)
    assert parcelle("generations", "verify").exit_code == 0
    told = parcelle("generations", "rollback", 2)
    assert told.stdout == "Generation 2 answers with 6 vectors, 1 added and 0 removed since.\n"


@pytest.mark.usefixtures("twice")
def test_rollback_says_which_generation_it_cannot_go_back_to(parcelle: Parcelle) -> None:
    for number, code, said in ((7, 1, "[generation-not-found]"), (2, 2, "answers already")):
        ran = parcelle("generations", "rollback", number)
        assert ran.exit_code == code
        assert said in ran.stderr
    parcelle("generations", "rollback")
    ran = parcelle("generations", "rollback")
    assert ran.exit_code == 1
    assert "No generation before 1 is kept" in ran.stderr


def test_rollback_refuses_a_damaged_generation(parcelle: Parcelle, twice: Settings) -> None:
    (twice.generations_dir / "1" / "vectors.npy").write_bytes(b"")
    ran = parcelle("generations", "rollback")
    assert ran.exit_code == 1
    assert "1/vectors.npy" in ran.stderr
    assert parcelle("generations", "list", "--json").json["generations"][0]["current"]


def test_prune_forgets_what_was_before(parcelle: Parcelle, twice: Settings) -> None:
    tried = parcelle("generations", "prune", "--keep", "1", "--dry-run", "--json")
    assert [one["generation"] for one in tried.json["pruned"]] == [1]
    assert tried.json["dry_run"]
    assert (twice.generations_dir / "1").is_dir()
    assert "Generation 1 is gone" in parcelle("generations", "prune", "--keep", "1").stdout
    assert not (twice.generations_dir / "1").exists()
    assert parcelle("generations", "prune").stdout == "Nothing is to be pruned.\n"
    assert parcelle("generations", "prune", "--keep", "0").exit_code == 2


def test_prune_that_only_looks_clears_nothing_away_and_waits_for_nobody(
    parcelle: Parcelle, twice: Settings
) -> None:
    (twice.generations_dir / ".building-3").mkdir()
    with opened_catalog(twice) as engine, only_writer(twice, engine, doing="reindex"):
        ran = parcelle("generations", "prune", "--keep", "1", "--dry-run")
        told = parcelle("check").stdout
    assert ran.exit_code == 0, ran.stderr
    assert "Generation 1 would be gone" in ran.stdout
    assert {path.name for path in twice.generations_dir.iterdir()} == {"1", "2", ".building-3"}
    assert "writer: now parcelle reindex (process " in told


def test_check_tells_of_all_that_lies_about(parcelle: Parcelle, twice: Settings) -> None:
    for name in (".building-3", "notes"):
        (twice.generations_dir / name).mkdir()
    shutil.rmtree(twice.generations_dir / "1")
    told = parcelle("check").stdout
    assert "the files of generation 1 are gone; run parcelle generations rebuild. " in told
    assert "nobody knows notes; look at it and move it away. " in told
    assert ".building-3; the next writer clears them away" in told


def test_verify_reads_what_is_kept_too(parcelle: Parcelle, twice: Settings) -> None:
    ran = parcelle("generations", "verify", "--json")
    assert ran.exit_code == 0, ran.stderr
    newest, before = ran.json["generations"]
    assert (newest["generation"], newest["current"], newest["recall_now"]) == (2, True, 1)
    assert (before["generation"], before["current"], before["recall_now"]) == (1, False, None)
    # With what was committed since, both answer with the same.
    assert newest["ids"] == before["ids"] == {"stored": 7, "missing": 0, "strange": 0}
    (twice.generations_dir / "1" / "columns.json").write_text("{}")
    ran = parcelle("generations", "verify")
    assert ran.exit_code == 1
    assert "1/columns.json" in ran.stdout


def test_verify_tells_of_rows_that_the_log_does_not_know(
    parcelle: Parcelle, twice: Settings
) -> None:
    with opened_catalog(twice) as engine, engine.begin() as connection:
        # As if somebody had changed the database by hand: the index still holds a row of p2.
        connection.exec_driver_sql(
            "DELETE FROM embeddings WHERE observation_id IN (SELECT o.id FROM observations o "
            "JOIN parcels p ON p.id = o.parcel_id WHERE p.parcel_id = 'p2')"
        )
    for command in (("generations", "verify"), ("check",)):
        ran = parcelle(*command)
        assert ran.exit_code == 1
        assert "1 are found that should not be" in ran.stdout


def test_whoever_writes_clears_away_what_others_left(parcelle: Parcelle, twice: Settings) -> None:
    for name in (".building-3", "3"):
        (twice.generations_dir / name).mkdir()
    checks = {one["name"]: one for one in parcelle("check", "--json").json["checks"]}
    assert checks["leftovers"]["warning"]
    assert ".building-3, 3" in checks["leftovers"]["detail"]
    assert parcelle("generations", "prune").exit_code == 0
    assert {path.name for path in twice.generations_dir.iterdir()} == {"1", "2"}


def test_a_damaged_index_gives_way_to_the_one_before_until_it_is_built_anew(
    parcelle: Parcelle, twice: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = similar(parcelle)
    vectors = twice.generations_dir / "2" / "vectors.npy"
    content = bytearray(vectors.read_bytes())
    content[-1] ^= 1
    vectors.write_bytes(content)
    ran = parcelle("generations", "compact", "--if-due", "--read")
    assert ran.exit_code == 0, ran.stderr
    assert "[generation-corrupt]" in ran.stderr
    assert str(vectors) in ran.stderr
    assert "Generation 1 answers, with all that was committed since, until then." in ran.stderr
    assert ran.stdout == "Generation 3 answers with 7 vectors.\n"
    assert {path.name for path in twice.generations_dir.iterdir()} == {"1", "3"}
    assert similar(parcelle) == before
    assert parcelle("generations", "compact", "--if-due", "--read").stdout == "Nothing is due.\n"
