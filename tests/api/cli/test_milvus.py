"""Commands with ``PARCELLE_VECTOR_BACKEND=milvus``, on a file of Milvus Lite."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from indexer.milvus.backend import MilvusBackend
from indexer.milvus.names import alias_of, collection_of, prefix
from indexer.settings import Settings
from tests.api.cli.conftest import Parcelle, Ran
from tests.api.serving import environment_of
from tests.indexer.farm import write_image
from tests.indexer.one_layer import one_layer_installed
from tests.retriever.planted import Seen, at_cosine, plant, settings_in

PARCELS = [Seen(f"p{number}", at_cosine(0.9 - 0.1 * number)) for number in range(5)]


@pytest.fixture
def milvus(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """An empty data folder, whose vectors are to lie in Milvus."""
    monkeypatch.setenv("PARCELLE_VECTOR_BACKEND", "milvus")
    settings = settings_in(home).model_copy(update={"vector_backend": "milvus"})
    yield settings
    MilvusBackend.of(settings).server.close()


def done(ran: Ran) -> Any:  # noqa: ANN401 - whatever the command printed
    """What a command printed that went well."""
    assert ran.exit_code == 0, ran.stderr
    return ran.json


def check_named(name: str, ran: Ran) -> dict[str, Any]:
    (found,) = [one for one in ran.json["checks"] if one["name"] == name]
    return dict(found)


# A whole life --------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three images."""
    for seed in range(3):
        write_image(tmp_path / "images" / f"p{seed}.tif", seed)
    return tmp_path / "images"


def test_every_command_that_writes_does_on_milvus_what_it_does_on_files(
    parcelle: Parcelle, milvus: Settings, images: Path
) -> None:
    server, folder = MilvusBackend.of(milvus).server, milvus.generations_dir
    alias = alias_of(folder, 1)

    def reindex() -> Any:  # noqa: ANN401 - its report
        options = ("--encoder", "one-layer", "--weights", "untrained", "--precision", "fp32")
        return done(parcelle("reindex", images, *options, "--collection", "demo", "--json"))

    def similar() -> list[tuple[str, float]]:
        found = done(parcelle("similar", "p0", "--format", "json"))
        return [(one["id"], round(one["score"], 5)) for one in found["matches"]]

    with one_layer_installed():
        assert reindex()["generation"] == 1
        assert {name for name, _ in similar()} == {"p1", "p2"}
        assert reindex()["embedded"] == 0
        write_image(images / "p3.tif", 3)
        assert reindex()["generation"] == 2
    answer = similar()
    assert {name for name, _ in answer} == {"p1", "p2", "p3"}
    assert server.count(alias) == 4

    rolled = done(parcelle("generations", "rollback", "--json"))
    assert (rolled["generation"], rolled["rows"]) == (1, 3)
    assert rolled["since_publication"]["rows"] == 1
    assert similar() == answer
    assert server.count(alias) == 3

    (compacted,) = done(parcelle("generations", "compact", "--json"))["published"]
    assert (compacted["generation"], compacted["rows"]) == (3, 4)
    assert similar() == answer
    assert server.count(alias) == 4

    done(parcelle("generations", "prune", "--keep", "1", "--json"))
    assert server.collections(prefix(folder)) == [collection_of(folder, 3)]
    (verified,) = done(parcelle("generations", "verify", "--json"))["generations"]
    assert (verified["generation"], verified["ok"], verified["recall_now"]) == (3, True, 1.0)

    (rebuilt,) = done(parcelle("generations", "rebuild", "--json"))["published"]
    assert rebuilt["generation"] == 4
    assert similar() == answer
    checked = parcelle("check", "--json")
    assert checked.json["ok"]
    found = check_named("milvus", checked)
    assert "milvus.db holds the vectors of 2 generations" in found["detail"]


# From files and back -------------------------------------------------------------------------


def test_the_setting_alone_moves_nothing_and_a_rebuild_does(
    parcelle: Parcelle, milvus: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(milvus.model_copy(update={"vector_backend": "faiss"}), PARCELS)
    for backend, other in (("milvus", "faiss"), ("faiss", "milvus")):
        monkeypatch.setenv("PARCELLE_VECTOR_BACKEND", backend)
        for command in (("similar", "p1"), ("generations", "compact")):
            refused = parcelle(*command)
            assert refused.exit_code == 1
            assert "[backend-differs]" in refused.stderr
            assert f"PARCELLE_VECTOR_BACKEND={other}" in refused.stderr
            assert "parcelle generations rebuild" in refused.stderr
        assert parcelle("generations", "verify").exit_code == 1
        assert not parcelle("check", "--json").json["ok"]
        done(parcelle("generations", "rebuild", "--json"))
        found = done(parcelle("similar", "p1", "--format", "json"))["matches"]
        assert {one["id"] for one in found} == {"p0", "p2", "p3", "p4"}
        assert parcelle("check", "--json").json["ok"]


def test_check_names_a_collection_that_is_gone_and_a_server_that_is_away(
    parcelle: Parcelle, milvus: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(milvus, PARCELS)
    name = collection_of(milvus.generations_dir, 1)
    MilvusBackend.of(milvus).server.drop(name)
    found = check_named("milvus", parcelle("check", "--json"))
    assert not found["ok"]
    assert name in found["detail"]
    done(parcelle("generations", "rebuild", "--json"))
    monkeypatch.setenv("PARCELLE_MILVUS_URI", "http://127.0.0.1:1")
    monkeypatch.setattr("indexer.milvus.server.SECONDS", 1.0)
    found = check_named("milvus", parcelle("check", "--json"))
    assert not found["ok"]
    assert "http://127.0.0.1:1" in found["detail"]


def test_where_vectors_lie_in_files_nobody_asks_for_milvus(parcelle: Parcelle, home: Path) -> None:
    plant(settings_in(home), PARCELS)
    ran = parcelle("check", "--json")
    assert "milvus" not in {one["name"] for one in ran.json["checks"]}
    assert not (home / "milvus.db").exists()


# Processes -----------------------------------------------------------------------------------


def test_processes_ask_one_file_one_after_the_other(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "data")
    plant(settings, PARCELS)
    environment = environment_of(settings) | {
        "PARCELLE_VECTOR_BACKEND": "milvus",
        "PARCELLE_CROMA_WEIGHTS": "untrained",
        "OMP_NUM_THREADS": "1",
    }

    def run(*arguments: str) -> Any:  # noqa: ANN401 - whatever the command printed
        command = [str(Path(sys.executable).with_name("parcelle")), *arguments]
        ran = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    assert run("generations", "rebuild", "--json")["published"][0]["rows"] == 5
    (latest, former) = run("generations", "verify", "--json")["generations"]
    assert (latest["ok"], latest["current"], former["ok"]) == (True, True, True)
    found = run("similar", "p1", "--format", "json")
    assert found["generation"] == 2
    assert {one["id"] for one in found["matches"]} == {"p0", "p2", "p3", "p4"}
