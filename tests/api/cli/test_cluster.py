import io
import re
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from api.cli import cluster
from indexer.catalog.database import connect, downgrade
from indexer.embedding_space import UNTRAINED_NOTE
from tests.api.cli.conftest import Parcelle
from tests.indexer.clusters.growing import parcels
from tests.retriever.planted import UNTRAINED, plant, settings_in
from tests.schemas import copy_index

WHEAT_AND_GRASS = [
    *parcels("early", 6, 0, 1, crop_name="winter wheat"),
    *parcels("late", 4, 0, 2, crop_name="spring wheat"),
    *parcels("grass", 3, 7, crop_code="PPH"),
]
"""With k = 2 all wheat is one cluster, with 3 it is two."""


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of wheat and grass, only to be copied."""
    folder = tmp_path_factory.mktemp("planted")
    plant(settings_in(folder), WHEAT_AND_GRASS)
    return folder


@pytest.fixture
def index(home: Path, planted: Path) -> Path:
    """A copy of that index; its folder."""
    copy_index(planted, home)
    return home


@pytest.fixture
def split(parcelle: Parcelle, index: Path) -> Parcelle:
    """Two clusters with names, the first of which a third one would split."""
    assert parcelle("cluster", "--k", "2").exit_code == 0
    parcelle("cluster", "name", "1", "wheat")
    parcelle("cluster", "name", "2", "grassland")
    return parcelle


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def names(parcelle: Parcelle) -> dict[int, str | None]:
    listed = parcelle("cluster", "list", "--json").json
    return {one["cluster"]: one["name"] for one in listed["clusters"]}


def waiting(parcelle: Parcelle) -> list[str]:
    return [one["name"] for one in parcelle("cluster", "list", "--json").json["unassigned"]]


# Groups ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("index")
def test_cluster_shows_what_it_found_and_why(parcelle: Parcelle) -> None:
    ran = parcelle("cluster")
    assert ran.exit_code == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0].startswith(
        "Collection demo, generation 1: 13 parcels in 3 clusters. k = 3 has the highest mean "
        "silhouette, cosine distance, "
    )
    assert lines[1].split() == [
        *("cluster", "name", "parcels", "share", "declared", "crops", "examples")
    ]
    assert lines[2].split()[:7] == ["1", "-", "6", "46.2%", "winter", "wheat", "100%"]
    assert lines[4].split()[:6] == ["3", "-", "3", "23.1%", "PPH", "100%"]
    assert lines[5].startswith("Mean silhouette, cosine distance by k: 2: 0.")
    assert "13 parcels" not in ran.stderr


@pytest.mark.usefixtures("index")
def test_cluster_prints_one_json_object(parcelle: Parcelle) -> None:
    found = parcelle("cluster", "--k", "2", "--seed", "4", "--json").json
    assert (found["collection"], found["generation"], found["k"]) == ("demo", 1, 2)
    assert found["chosen"] == {
        "k": 2,
        "auto": False,
        "seed": 4,
        "reason": "k = 2 was asked for.",
    }
    assert [one["parcels"] for one in found["clusters"]] == [10, 3]
    assert (found["carried"], found["uncertain"], found["notes"]) == ([], [], [])


def test_untrained_weights_are_told_beside_the_clusters(parcelle: Parcelle, home: Path) -> None:
    plant(settings_in(home), WHEAT_AND_GRASS, weights=UNTRAINED)
    assert f"Note: {UNTRAINED_NOTE}" in parcelle("cluster", "--k", "2").stderr
    assert f"Note: {UNTRAINED_NOTE}" in parcelle("cluster", "list").stderr


@pytest.mark.usefixtures("index")
def test_fewer_clusters_than_asked_for_are_told(parcelle: Parcelle, home: Path) -> None:
    alike = parcels("same", 1, 3)[0]
    copies = [type(alike)(f"same-{n}", alike.vector, collection="alike") for n in range(5)]
    plant(settings_in(home), copies)
    ran = parcelle("cluster", "--collection", "alike", "--k", "3")
    assert ran.exit_code == 0
    assert "Note: only 1 of 3 clusters hold parcels" in ran.stderr


@pytest.mark.parametrize("k", ["1", "51", "-2", "two", "2.5", "", "²", "9" * 40])
@pytest.mark.usefixtures("index")
def test_k_that_is_no_number_of_clusters_is_wrong_usage(parcelle: Parcelle, k: str) -> None:
    ran = parcelle("cluster", "--k", k)
    assert ran.exit_code == 2
    assert "Error [invalid-k]: " in ran.stderr


def test_one_of_several_collections_is_asked_for(parcelle: Parcelle, index: Path) -> None:
    plant(settings_in(index), parcels("beet", 3, 5, collection="other"))
    for words in (["--k", "2"], ["name", "1", "beet"], ["list"], ["forget", "beet"]):
        ran = parcelle("cluster", *words)
        assert ran.exit_code == 2
        assert 'name one of "demo", "other" with --collection' in ran.stderr
    assert parcelle("cluster", "--collection", "other", "--k", "2").exit_code == 0
    assert parcelle("cluster", "name", "2", "beet", "--collection", "other").exit_code == 0


def test_without_an_index_cluster_says_what_to_do(parcelle: Parcelle, home: Path) -> None:
    ran = parcelle("cluster")
    assert ran.exit_code == 1
    assert "run parcelle reindex first" in ran.stderr
    assert not home.exists()


def test_an_older_database_is_to_be_upgraded(parcelle: Parcelle, index: Path) -> None:
    engine = connect(settings_in(index))
    downgrade(engine, "0002")
    engine.dispose()
    for words in ([], ["list"], ["name", "1", "wheat"], ["forget", "wheat"]):
        ran = parcelle("cluster", *words)
        assert ran.exit_code == 1
        assert "run: parcelle db upgrade" in ran.stderr
    assert parcelle("db", "upgrade").exit_code == 0
    assert parcelle("cluster", "--k", "2").exit_code == 0
    assert parcelle("check").exit_code == 0


@pytest.mark.usefixtures("index")
def test_options_of_the_grouping_do_not_vanish_before_a_command(parcelle: Parcelle) -> None:
    for words, option in ((["--collection", "demo"], "--collection"), (["--json"], "--json")):
        ran = parcelle("cluster", *words, "list")
        assert ran.exit_code == 2
        assert f"Write {option} after list" in ran.stderr


@pytest.mark.usefixtures("index")
def test_a_seed_beyond_what_the_search_counts_is_wrong_usage(parcelle: Parcelle) -> None:
    assert parcelle("cluster", "--k", "2", "--seed", str(2**31 - 2)).exit_code == 0
    assert parcelle("cluster", "--k", "2", "--seed", str(2**31 - 1)).exit_code == 2


# Names -----------------------------------------------------------------------------------------


def test_a_name_is_given_replaced_and_taken_away(parcelle: Parcelle, index: Path) -> None:
    parcelle("cluster", "--k", "2")
    given = parcelle("cluster", "name", "1", " wheat ")
    assert given.stdout == 'Cluster 1 of demo is "wheat" now.\n'
    replaced = parcelle("cluster", "name", "1", "winter wheat")
    assert replaced.stdout == 'Cluster 1 of demo is "winter wheat" now. It was "wheat".\n'
    assert parcelle("cluster", "list").stdout.splitlines()[2].split()[:3] == [
        "1",
        "winter",
        "wheat",
    ]
    taken = parcelle("cluster", "name", "1", "--remove")
    assert taken.stdout == 'Cluster 1 of demo has no name now. It was "winter wheat".\n'
    parcelle("cluster", "name", "2", "grass")
    assert parcelle("cluster", "name", "2", "").exit_code == 0
    assert names(parcelle) == {1: None, 2: None}


@pytest.mark.parametrize(
    ("words", "kind", "code"),
    [
        (["1", "x" * 101], "invalid-name", 2),
        (["1", "two\nlines"], "invalid-name", 2),
        (["1"], "invalid-option", 2),
        (["1", "wheat", "--remove"], "invalid-option", 2),
        (["7", "wheat"], "cluster-not-found", 1),
    ],
)
def test_what_cannot_be_named_says_why(
    split: Parcelle, words: list[str], kind: str, code: int
) -> None:
    ran = split("cluster", "name", *words)
    assert ran.exit_code == code
    assert f"Error [{kind}]: " in ran.stderr
    assert names(split) == {1: "wheat", 2: "grassland"}


def test_similar_tells_the_cluster_of_each_match_where_there_are_some(
    parcelle: Parcelle, index: Path
) -> None:
    before = parcelle("similar", "early-0", "-k", "12").stdout
    assert "cluster" not in before
    parcelle("cluster", "--k", "2")
    parcelle("cluster", "name", "1", "[b]wheat")
    lines = parcelle("similar", "early-0", "-k", "12").stdout.splitlines()
    assert lines[1].split()[:5] == ["rank", "score", "id", "crop", "cluster"]
    assert [line.split("wheat")[-2].strip() for line in lines[2:11]] == ["[b]"] * 9
    assert [line.split()[4:6] for line in lines[11:]] == [["number", "2"]] * 3


def test_names_that_are_carried_over_are_told(split: Parcelle) -> None:
    ran = split("cluster", "--k", "2", "--seed", "3")
    assert ran.exit_code == 0
    assert "Cluster 1 keeps the name of former cluster 1: wheat\n" in ran.stdout
    assert names(split) == {1: "wheat", 2: "grassland"}


def test_an_uncertain_name_is_told_with_the_command_that_assigns_it(split: Parcelle) -> None:
    ran = split("cluster", "--k", "3")
    assert ran.exit_code == 3
    assert names(split) == {1: None, 2: None, 3: "grassland"}
    assert waiting(split) == ["wheat"]
    told = re.search(r'Unassigned: "wheat", because (.*)\. Assign it: (.*); or', ran.stderr)
    assert told is not None
    assert told[1] == "it was split into clusters 1 and 2"
    assigned = split(*shlex.split(told[2])[1:])
    assert assigned.exit_code == 0, assigned.stderr
    assert names(split) == {1: "wheat", 2: None, 3: "grassland"}
    assert waiting(split) == []


@pytest.mark.parametrize("name", ["-k", "--remove", "o'clock; rm", '"quoted"', "blé d'hiver"])
def test_the_commands_that_are_told_work_whatever_the_name(split: Parcelle, name: str) -> None:
    split("cluster", "name", "1", "--", name)
    ran = split("cluster", "--k", "3")
    told = re.search(r"Assign it: (.*); or drop it: (.*)", ran.stderr)
    assert told is not None, ran.stderr
    assert split(*shlex.split(told[1])[1:]).exit_code == 0
    assert names(split)[1] == name
    split("cluster", "--k", "2")
    if name in waiting(split):
        assert split(*shlex.split(told[2])[1:]).exit_code == 0
    assert name not in waiting(split)


def test_json_names_what_was_carried_and_what_is_uncertain(split: Parcelle) -> None:
    ran = split("cluster", "--k", "3", "--json")
    assert ran.exit_code == 3
    assert ran.json["carried"] == [{"name": "grassland", "former": 2, "cluster": 3}]
    (asked,) = ran.json["uncertain"]
    assert (asked["name"], asked["parcels"]) == ("wheat", 10)
    assert [(one["cluster"], one["shared"]) for one in asked["candidates"]] == [(1, 0.6), (2, 0.4)]
    assert "parcelle cluster name" in ran.stderr


def test_at_a_terminal_an_uncertain_name_is_asked_for(
    split: Parcelle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("9\nno\n2\n"))
    ran = split("cluster", "--k", "3")
    assert ran.exit_code == 0
    assert 'Which cluster is "wheat" now? It is uncertain: it was split' in ran.stderr
    assert "  1: 60% of its parcels, cosine of the centers 0." in ran.stderr
    assert 'There is no cluster "9"; there are 1 to 3.' in ran.stderr
    assert names(split) == {1: None, 2: "wheat", 3: "grassland"}
    # The table after the answer shows it.
    assert re.search(r"^ +2 +wheat ", ran.stdout, flags=re.MULTILINE)


def test_at_a_terminal_an_answer_takes_no_name_from_a_cluster_unasked(
    split: Parcelle, monkeypatch: pytest.MonkeyPatch
) -> None:
    # "wheat" was split; the third cluster is "grassland" still.
    monkeypatch.setattr(sys, "stdin", Terminal("3\n1\n"))
    ran = split("cluster", "--k", "3")
    assert 'Cluster 3 is "grassland" already, a name that would be lost.' in ran.stderr
    assert names(split) == {1: "wheat", 2: None, 3: "grassland"}


def test_at_a_terminal_the_second_answer_to_a_merger_does_not_silence_the_first(
    parcelle: Parcelle, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parcelle("cluster", "--k", "3")
    parcelle("cluster", "name", "1", "winter")
    parcelle("cluster", "name", "2", "spring")
    monkeypatch.setattr(sys, "stdin", Terminal("1\n1\n\n"))
    ran = parcelle("cluster", "--k", "2")
    assert ran.exit_code == 3
    assert "cosine of the centers 0." in ran.stderr
    assert ', named "winter"\n' in ran.stderr
    assert names(parcelle)[1] == "winter"
    assert waiting(parcelle) == ["spring"]
    monkeypatch.setattr(sys, "stdin", Terminal("1\n1\n"))
    assert parcelle("cluster", "--k", "2").exit_code == 0
    assert names(parcelle)[1] == "spring"


@pytest.mark.parametrize("typed", ["\n", ""], ids=["enter", "end of input"])
def test_at_a_terminal_a_name_can_be_left_unassigned(
    split: Parcelle, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    ran = split("cluster", "--k", "3")
    assert ran.exit_code == 3
    assert waiting(split) == ["wheat"]
    assert "Assign it: parcelle cluster name" in ran.stderr


def test_an_interrupted_question_loses_no_name(
    split: Parcelle, monkeypatch: pytest.MonkeyPatch, index: Path
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(cluster, "_ask", interrupt)
    assert split("cluster", "--k", "3").exit_code != 0
    assert waiting(split) == ["wheat"]


def test_json_asks_nothing_even_at_a_terminal(
    split: Parcelle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("1\n"))
    ran = split("cluster", "--k", "3", "--json")
    assert ran.exit_code == 3
    assert waiting(split) == ["wheat"]


def test_a_name_that_waits_is_forgotten_on_request_only(split: Parcelle) -> None:
    split("cluster", "--k", "3")
    assert split("cluster", "forget", "wheat").stdout == '"wheat" is forgotten.\n'
    assert waiting(split) == []
    again = split("cluster", "forget", "wheat")
    assert again.exit_code == 1
    assert 'No name "wheat" waits for a cluster; there is none.' in again.stderr


def test_a_sound_index_stays_sound(split: Parcelle, index: Path) -> None:
    assert split("check").exit_code == 0
    with sqlite3.connect(index / "parcelle.db") as database:
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_listing_and_naming_load_no_torch_and_no_scikit_learn(index: Path) -> None:
    program = (
        "import sys\n"
        "from api.cli import main\n"
        "try: main(['cluster', 'list'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'sklearn', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    plant(settings_in(index), parcels("more", 1, 3))
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
