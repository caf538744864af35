"""Names of collections."""

from pathlib import Path

from indexer.milvus.names import alias_of, collection_of, generation_in, installation, prefix


def test_an_installation_keeps_its_name_and_has_it_alone(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert installation(here) == installation(here)
    assert len(installation(here)) == 8
    assert installation(here) != installation(there)


def test_generations_and_spaces_have_names_of_their_own_below_that_of_the_installation(
    tmp_path: Path,
) -> None:
    own = installation(tmp_path)
    assert prefix(tmp_path) == f"parcelle_{own}_"
    assert collection_of(tmp_path, 12) == f"parcelle_{own}_g12"
    assert alias_of(tmp_path, 3) == f"parcelle_{own}_s3"


def test_a_generation_is_told_from_the_name_of_its_collection(tmp_path: Path) -> None:
    assert generation_in(collection_of(tmp_path, 12)) == 12
    assert generation_in(alias_of(tmp_path, 12)) is None
    assert generation_in("parcelle_mine_g12") is None
