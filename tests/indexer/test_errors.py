import copy
import pickle

import pytest

from indexer import errors
from indexer.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    ParcelleError,
    StorageError,
    WeightsError,
)

ALL = sorted(
    (
        found
        for found in vars(errors).values()
        if isinstance(found, type) and issubclass(found, ParcelleError)
    ),
    key=lambda found: found.__name__,
)
LEAVES = [found for found in ALL if found is not ParcelleError]
KINDS = [(found, kind) for found in LEAVES for kind in sorted(found.KINDS)]


def test_the_tree_in_the_documentation_holds_every_class() -> None:
    assert errors.__doc__ is not None
    drawn = {
        line.split("── ")[1].split()[0] for line in errors.__doc__.splitlines() if "── " in line
    }
    assert drawn == {found.__name__ for found in LEAVES}


@pytest.mark.parametrize("error", LEAVES)
def test_every_class_has_kinds_of_lower_case_words(error: type[ParcelleError]) -> None:
    assert error.KINDS
    for kind in error.KINDS:
        assert all(word.isascii() and word.isalnum() and word.islower() for word in kind.split("-"))


@pytest.mark.parametrize(("error", "kind"), KINDS)
def test_strangers_are_told_no_file_and_no_address(error: type[ParcelleError], kind: str) -> None:
    raised = error("/srv/secret/index.faiss at db.example.org is damaged", kind=kind)
    confidential = error in (ConflictError, StorageError, WeightsError)
    assert ("secret" in raised.told) == (not confidential)
    assert raised.told
    assert set(error.TOLD) <= error.KINDS | {""}


def test_a_kind_stands_for_one_thing_to_do() -> None:
    kinds = [kind for _, kind in KINDS]
    shared = {kind for kind in kinds if kinds.count(kind) > 1}
    # An image and a parcels file: both are fetched again or cut, both get another name.
    assert shared == {"duplicate-id", "too-large", "unreadable"}


def test_the_base_has_no_kinds_and_so_cannot_be_raised() -> None:
    assert ParcelleError.KINDS == frozenset()
    with pytest.raises(TypeError, match="ParcelleError has no kind 'odd'"):
        ParcelleError("Something is odd.", kind="odd")


@pytest.mark.parametrize(("error", "kind"), KINDS)
def test_an_error_reads_as_its_message_and_carries_its_kind(
    error: type[ParcelleError], kind: str
) -> None:
    raised = error("field.tif: it has 'no' CRS; give one.", kind=kind)
    assert str(raised) == raised.message == "field.tif: it has 'no' CRS; give one."
    assert raised.kind == kind


@pytest.mark.parametrize(("error", "kind"), KINDS)
def test_an_error_survives_the_way_to_another_process(
    error: type[ParcelleError], kind: str
) -> None:
    raised = error("field.tif: it has no CRS; give one.", kind=kind)
    for received in (pickle.loads(pickle.dumps(raised)), copy.copy(raised)):
        assert type(received) is error
        assert (str(received), received.message, received.kind) == (
            raised.message,
            raised.message,
            kind,
        )


@pytest.mark.parametrize("error", LEAVES)
def test_a_kind_of_another_class_is_a_programming_error(error: type[ParcelleError]) -> None:
    with pytest.raises(TypeError, match=f"{error.__name__} has no kind 'made-up'"):
        error("No.", kind="made-up")


@pytest.mark.parametrize(
    ("error", "builtin"), [(NotFoundError, KeyError), (InvalidInputError, ValueError)]
)
def test_callers_that_know_only_python_catch_the_usual_class(
    error: type[ParcelleError], builtin: type[Exception]
) -> None:
    assert issubclass(error, builtin)


@pytest.mark.parametrize("error", LEAVES)
def test_one_handler_catches_every_error(error: type[ParcelleError]) -> None:
    with pytest.raises(ParcelleError):
        raise error("No.", kind=min(error.KINDS))
