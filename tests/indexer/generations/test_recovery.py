import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.catalog.database import connect, upgrade
from indexer.errors import NotFoundError, StorageError
from indexer.generations import history, store
from indexer.generations.recovery import Recovered, leftovers, recover
from indexer.settings import Settings
from tests.indexer.generations.published import Published


class Crash(BaseException):
    """Stands for the end of the process: nothing catches it."""


STEPS: list[tuple[object, str, int]] = [
    (store, "make_folder", 1),
    (store, "_fill", 1),
    (store, "_flushed", 1),
    (store, "_flushed", 3),
    (store, "write_durably", 1),
    (store, "_check_written", 1),
    (store, "_move", 1),
    (Path, "rename", 1),
    (store, "flush_folder", 2),
    (store, "publish_generation", 1),
    (store, "delete_parcels", 1),
    (store, "forget", 1),
    (history, "prune_changes", 1),
    (store, "remove_generations", 1),
    (shutil, "rmtree", 1),
]
"""Owner, name and call of the functions that a publication goes through, in their order."""

COMMITTED = {"remove_generations", "rmtree"}
"""Those of them that come when the transaction is over."""


def dying(patch: pytest.MonkeyPatch, owner: object, name: str, call: int, after: bool) -> None:
    """Have a function be the last thing that its process does, before it or after it."""
    real, calls = getattr(owner, name), 0

    def die(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls != call:
            return real(*arguments, **options)
        if after:
            real(*arguments, **options)
        raise Crash

    patch.setattr(owner, name, die)


@pytest.fixture
def twice(published: Published) -> Published:
    """Space 1, published with two parcels and with three; one was changed since."""
    space_id = published.space()
    for number in range(3):
        collection_id = published.save(space_id, f"p{number}", number)
        if number:
            published.publish(space_id, collection_id)
    published.save(space_id, "p0", 10)
    return published


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("owner", "name", "call"),
    STEPS,
    ids=lambda value: "" if isinstance(value, type | ModuleType) else str(value),
)
def test_a_death_at_any_step_leaves_the_old_or_the_new_state_and_recovery_leaves_nothing_else(
    twice: Published,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    call: int,
    after: bool,
) -> None:
    before = twice.found(1)
    with monkeypatch.context() as patch:
        dying(patch, owner, name, call, after)
        with pytest.raises(Crash):
            twice.publish(1)
    rows, current = twice.rows, twice.current
    # All of the transaction or nothing of it: two are kept on either side.
    assert (rows, current) in [([2, 1], {1: 2}), ([3, 2], {1: 3})]
    assert ((rows, current) == ([3, 2], {1: 3})) == (name in ("remove_generations", "rmtree")), (
        "committed is what is past the last step of the transaction, and nothing else"
    )
    assert twice.found(1) == before
    recover(twice.engine, twice.folder)
    assert twice.folders == {str(number) for number in rows}
    assert twice.found(1) == before
    again = twice.publish(1)
    assert twice.current == {1: again.generation}
    assert twice.found(1) == before
    assert twice.folders == {str(number) for number in twice.rows}
    assert leftovers(twice.engine, twice.folder) == Recovered()


@settings(max_examples=15)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("save"), st.integers(0, 5), st.integers(0, 39)),
            st.tuples(st.just("delete"), st.integers(1, 5), st.just(0)),
            st.tuples(st.just("publish"), st.just(0), st.just(0)),
            st.tuples(st.just("back"), st.just(0), st.just(0)),
            st.tuples(st.just("prune"), st.integers(1, 3), st.just(0)),
            st.tuples(st.just("die"), st.integers(0, len(STEPS) - 1), st.booleans()),
        ),
        max_size=12,
    )
)
def test_whatever_is_published_pruned_rolled_back_or_killed_answers_are_what_was_committed(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[str, int, int]]
) -> None:
    place = Settings(data_dir=tmp_path_factory.mktemp("acts"), database_url="")
    engine = connect(place)
    upgrade(engine)
    index = Published(engine, place.generations_dir)
    space_id = index.space()
    index.publish(space_id, index.save(space_id, "p0", 0))
    parcels = {"p0": 0}
    for act, number, more in acts:
        if act == "save":
            index.save(space_id, f"p{number}", more)
            parcels[f"p{number}"] = more
        elif act == "delete":
            index.delete(f"p{number}")
            parcels.pop(f"p{number}", None)
        elif act == "publish":
            index.publish(space_id)
        elif act == "prune":
            history.prune(engine, index.folder, number)
        elif act == "back":
            # Where an earlier one is kept.
            with suppress(NotFoundError):
                history.roll_back(engine, index.folder)
        elif act == "die":
            with pytest.MonkeyPatch.context() as patch:
                dying(patch, *STEPS[number], after=bool(more))
                try:
                    index.publish(space_id)
                except Crash:
                    pass
            recover(engine, index.folder)
        assert sorted(index.found(space_id).values()) == sorted(parcels.values())
        assert index.folders == {str(row) for row in index.rows}
        assert len(index.rows) <= 3
    engine.dispose()


def test_what_no_row_names_is_removed_and_told(
    twice: Published, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (".building-3", ".building-41", "3"):
        (twice.folder / name).mkdir()
        (twice.folder / name / "vectors.npy").write_bytes(b"half an index")
    with caplog.at_level(logging.INFO, "indexer.generations.recovery"):
        found = recover(twice.engine, twice.folder)
    assert found.discarded == (".building-3", ".building-41", "3")
    assert twice.folders == {"1", "2"}
    for name in found.discarded:
        assert str(twice.folder / name) in caplog.text
    assert recover(twice.engine, twice.folder) == Recovered()


def test_a_row_without_a_folder_is_told_and_stays(twice: Published) -> None:
    shutil.rmtree(twice.folder / "1")
    assert recover(twice.engine, twice.folder).missing == (1,)
    assert twice.rows == [2, 1]


def test_what_this_database_cannot_have_made_stays(twice: Published) -> None:
    # Of another database, which somebody pointed at the same folder, or of a person.
    names = ("4", "17", "notes", "01", "-1")
    for name in names:
        (twice.folder / name).mkdir()
    found = recover(twice.engine, twice.folder)
    assert found.strange == tuple(sorted(names))
    assert found.discarded == ()
    assert twice.folders == {"1", "2", *names}


def test_before_the_first_publication_there_is_nothing_to_recover(published: Published) -> None:
    assert recover(published.engine, published.folder) == Recovered()
    assert not published.folder.exists()


def test_what_cannot_be_removed_is_named(twice: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    (twice.folder / ".building-3").mkdir()

    def refuse(path: Path) -> None:
        raise PermissionError(1, os.strerror(1), str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(StorageError, match=r"\.building-3: cannot be cleared away") as caught:
        recover(twice.engine, twice.folder)
    assert caught.value.kind == "write-failed"


def test_a_lost_right_to_write_publishes_nothing_and_deletes_nothing(twice: Published) -> None:
    def lost(_: object) -> None:
        raise Crash

    with pytest.raises(Crash):
        store.build_generation(twice.engine, twice.folder, 1, None, guard=lost)
    assert (twice.rows, twice.current) == ([2, 1], {1: 2})
    # Whoever writes by now may have published under this number: only recovery removes it.
    assert twice.folders == {"1", "2", "3"}
    recover(twice.engine, twice.folder)
    assert twice.folders == {"1", "2"}


def test_files_are_removed_by_nobody_but_the_next_writer_if_they_cannot_be_now(
    twice: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(5, os.strerror(5))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        twice.publish(1)
    assert twice.folders == {"1", "2", "3"}
    assert recover(twice.engine, twice.folder).discarded == ("1",)
