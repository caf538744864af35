import shutil

import pytest
from sqlalchemy import update

from indexer.catalog.changes import last_change, prune_changes, tells_since
from indexer.catalog.reading import find_space, get_generation, get_space
from indexer.catalog.tables import Generation
from indexer.errors import InvalidInputError, NotFoundError, StorageError
from indexer.generations import history
from indexer.generations.history import prune, roll_back
from tests.indexer.catalog.filling import RECIPE
from tests.indexer.generations.published import Published


@pytest.fixture
def three_times(published: Published) -> Published:
    """Space 1, published with one parcel, with two, and with three."""
    space_id = published.space()
    for number in range(3):
        collection_id = published.save(space_id, f"p{number}", number)
        published.publish(space_id, collection_id)
    return published


# What is kept --------------------------------------------------------------------------------


def test_the_current_generation_and_the_one_before_are_kept_with_their_files(
    three_times: Published,
) -> None:
    assert three_times.rows == [3, 2]
    assert three_times.folders == {"3", "2"}
    assert three_times.current == {1: 3}


def test_the_log_tells_everything_since_the_oldest_that_is_kept(three_times: Published) -> None:
    with three_times.engine.connect() as connection:
        # One parcel was written for each generation.
        assert last_change(connection) == 3
        assert tells_since(connection, 2)
        assert not tells_since(connection, 1)


def test_each_space_keeps_its_own(three_times: Published) -> None:
    other = three_times.space()
    collection_id = three_times.save(other, "q0", 10, collection="other")
    for _ in range(3):
        three_times.publish(other, collection_id)
    assert three_times.rows == [6, 5, 3, 2]
    assert three_times.folders == {"6", "5", "3", "2"}


def test_the_space_before_is_kept_until_the_new_one_has_two(three_times: Published) -> None:
    new = three_times.space()
    collection_id = three_times.save(new, "p0", 10)
    three_times.publish(new, collection_id)
    # Generation 3 is of the former space; no collection is searched in it any more.
    assert three_times.rows == [4, 3]
    three_times.publish(new, collection_id)
    assert three_times.rows == [5, 4]
    assert three_times.folders == {"5", "4"}


def test_a_space_whose_generations_are_gone_has_none_and_is_not_begun_again(
    three_times: Published,
) -> None:
    new = three_times.space()
    collection_id = three_times.save(new, "p0", 10)
    for _ in range(2):
        three_times.publish(new, collection_id)
    with three_times.engine.connect() as connection:
        former = get_space(connection, 1)
        assert former.current_generation_id is None
        again = find_space(connection, RECIPE.digest, collection_id, new=True)
    assert again is None, "what was published once is not taken for a run that did not end"


def test_a_generation_that_was_rolled_back_from_goes_with_the_next_publication(
    three_times: Published,
) -> None:
    roll_back(three_times.engine, three_times.folder)
    assert three_times.rows == [3, 2]
    three_times.publish(1)
    assert three_times.rows == [4, 2]
    assert three_times.folders == {"4", "2"}


def test_a_number_is_given_once_whatever_is_pruned(three_times: Published) -> None:
    roll_back(three_times.engine, three_times.folder)
    prune(three_times.engine, three_times.folder, 1)
    assert three_times.rows == [3, 2], "the latest is there until a later one is"
    assert three_times.publish(1).generation == 4


# Pruning -------------------------------------------------------------------------------------


def test_prune_leaves_as_many_as_it_is_told(three_times: Published) -> None:
    assert prune(three_times.engine, three_times.folder) == []
    (gone,) = prune(three_times.engine, three_times.folder, 1)
    assert gone.generation == 2
    assert three_times.rows == [3]
    assert three_times.folders == {"3"}
    with three_times.engine.connect() as connection:
        assert not tells_since(connection, 2)


def test_a_dry_run_only_says_what_would_go(three_times: Published) -> None:
    (gone,) = prune(three_times.engine, three_times.folder, 1, dry_run=True)
    assert gone.generation == 2
    assert three_times.rows == [3, 2]
    assert three_times.folders == {"3", "2"}


def test_prune_has_nothing_to_do_in_an_empty_catalog(published: Published) -> None:
    assert prune(published.engine, published.folder, 1) == []


def test_files_that_cannot_be_removed_do_not_undo_a_publication(
    three_times: Published, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        assert three_times.publish(1).generation == 4
    assert three_times.current == {1: 4}
    assert "cannot be removed" in caplog.text
    assert three_times.folders == {"4", "3", "2"}


# Rolling back --------------------------------------------------------------------------------


def test_an_earlier_index_answers_with_everything_that_was_committed_since(
    three_times: Published,
) -> None:
    three_times.save(1, "p1", 11)
    three_times.delete("p0")
    three_times.save(1, "new", 12)
    before = three_times.found(1)
    assert sorted(before.values()) == [2, 11, 12]
    rolled = roll_back(three_times.engine, three_times.folder)
    assert (rolled.manifest.generation, rolled.former, rolled.moved) == (2, (3,), ())
    assert three_times.current == {1: 2}
    assert three_times.found(1) == before
    # And with what is committed from now on.
    three_times.save(1, "later", 13)
    assert sorted(three_times.found(1).values()) == [2, 11, 12, 13]


def test_what_a_publication_superseded_is_not_found_again(three_times: Published) -> None:
    three_times.save(1, "p0", 20)
    # The publication deletes the former vector of p0, which generation 3 holds.
    three_times.publish(1)
    before = three_times.found(1)
    assert roll_back(three_times.engine, three_times.folder).manifest.generation == 3
    assert three_times.found(1) == before
    assert sorted(before.values()) == [1, 2, 20]


def test_back_and_forth_gives_the_same_answers(three_times: Published) -> None:
    before = three_times.found(1)
    roll_back(three_times.engine, three_times.folder)
    forth = roll_back(three_times.engine, three_times.folder, 3)
    assert forth.former == (2,)
    assert three_times.current == {1: 3}
    assert three_times.found(1) == before


def test_collections_go_back_to_the_space_that_they_were_searched_in(
    three_times: Published,
) -> None:
    before = three_times.found(1)
    new = three_times.space()
    collection_id = three_times.save(new, "p0", 10)
    three_times.publish(new, collection_id)
    assert three_times.current == {new: 4}
    rolled = roll_back(three_times.engine, three_times.folder)
    assert (rolled.manifest.generation, rolled.former, rolled.moved) == (3, (4,), ("demo",))
    assert three_times.current == {1: 3}
    # What was embedded in the other space alone is of the other space.
    assert three_times.found(1) == before
    assert roll_back(three_times.engine, three_times.folder, 4).moved == ("demo",)
    assert three_times.current == {new: 4}


def test_a_collection_that_came_later_stays(three_times: Published) -> None:
    other = three_times.save(1, "q0", 10, collection="other")
    three_times.publish(1, other)
    rolled = roll_back(three_times.engine, three_times.folder)
    assert (rolled.manifest.generation, rolled.moved) == (3, ())
    assert sorted(three_times.found(1).values()) == [0, 1, 2, 10]


def test_only_the_collections_of_what_is_undone_go_back(three_times: Published) -> None:
    other = three_times.save(1, "q0", 10, collection="other")
    three_times.publish(1, other)
    elsewhere = three_times.space()
    moved = three_times.save(elsewhere, "q0", 11, collection="other")
    three_times.publish(elsewhere, moved)
    assert three_times.current == {1: 4, elsewhere: 5}
    rolled = roll_back(three_times.engine, three_times.folder)
    assert (rolled.manifest.generation, rolled.moved) == (4, ("other",))
    assert three_times.current == {1: 4}


def test_without_an_earlier_one_nothing_changes(published: Published) -> None:
    with pytest.raises(NotFoundError, match="run parcelle reindex") as caught:
        roll_back(published.engine, published.folder)
    assert caught.value.kind == "generation-not-found"
    space_id = published.space()
    published.publish(space_id, published.save(space_id, "p0", 0))
    with pytest.raises(NotFoundError, match="No generation before 1 is kept") as caught:
        roll_back(published.engine, published.folder)
    assert caught.value.kind == "generation-not-found"
    assert published.current == {space_id: 1}


def test_a_generation_that_is_not_kept_is_named(three_times: Published) -> None:
    with pytest.raises(NotFoundError, match="Generation 1 does not exist") as caught:
        roll_back(three_times.engine, three_times.folder, 1)
    assert caught.value.kind == "generation-not-found"


def test_the_one_that_answers_is_nothing_to_go_back_to(three_times: Published) -> None:
    with pytest.raises(InvalidInputError, match="Generation 3 answers already"):
        roll_back(three_times.engine, three_times.folder, 3)


@pytest.mark.parametrize("name", ["vectors.npy", "columns.bin", "manifest.json"])
def test_a_damaged_generation_is_refused(three_times: Published, name: str) -> None:
    path = three_times.folder / "2" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match=f"2/{name}.*is damaged") as caught:
        roll_back(three_times.engine, three_times.folder)
    assert caught.value.kind == "generation-corrupt"
    assert three_times.current == {1: 3}


def test_a_generation_that_the_log_does_not_reach_back_to_is_refused(
    three_times: Published,
) -> None:
    with three_times.engine.begin() as connection:
        prune_changes(connection, 3)
    with pytest.raises(StorageError, match="no longer knows all") as caught:
        roll_back(three_times.engine, three_times.folder)
    assert caught.value.kind == "changes-forgotten"
    assert three_times.current == {1: 3}


def test_a_generation_of_an_earlier_version_is_not_kept(three_times: Published) -> None:
    with three_times.engine.begin() as connection:
        of_before = get_generation(connection, 3) | {"files": {}}
        connection.execute(update(Generation).where(Generation.id == 3).values(manifest=of_before))
    three_times.publish(1)
    # The one that answered cannot be opened; the one before it can.
    assert three_times.rows == [4, 2]


# Death at every step -------------------------------------------------------------------------


class Crash(BaseException):
    """Stands for the end of the process: nothing catches it."""


def die(*_: object, **__: object) -> None:
    raise Crash


@pytest.mark.parametrize(
    "step",
    ["check_generation", "switch_generation"],
    ids=["before the switch", "in its transaction"],
)
def test_a_rollback_that_dies_switched_nothing(
    three_times: Published, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = three_times.found(1)
    with monkeypatch.context() as patch:
        patch.setattr(history, step, die)
        with pytest.raises(Crash):
            roll_back(three_times.engine, three_times.folder)
    assert three_times.current == {1: 3}
    assert three_times.found(1) == before
    assert roll_back(three_times.engine, three_times.folder).manifest.generation == 2


def test_a_rollback_without_the_right_to_write_switches_nothing(three_times: Published) -> None:
    with pytest.raises(Crash):
        roll_back(three_times.engine, three_times.folder, guard=die)
    assert three_times.current == {1: 3}
