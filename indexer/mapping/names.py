"""Names that people give to classes, and how they survive when a map is made anew.

Numbers of classes change with every clustering; what a class looks like changes little. So a name
goes to the new class whose center is close to that of the old one, and to none where that is not
clear: a wrong name on a map is worse than none.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexer.clusters.naming import check_name
from indexer.errors import InvalidInputError, NotFoundError

Float64Array = npt.NDArray[np.float64]

# A match is certain where every other pair of either class is at least twice as far apart.
_CERTAIN = 0.5


@dataclass(frozen=True)
class NamedCenter:
    """A name and the class that it was given to."""

    name: str
    number: int
    """Of the class in the map where the name was given."""
    center: tuple[float, ...]
    """Mean of the class's features."""


def parse_names(file: Path | None, given: Iterable[str] = ()) -> dict[int, str]:
    """Names of classes from the command line.

    Args:
        file: JSON, ``{"3": "winter wheat"}``.
        given: ``3=winter wheat``; these win over the file.

    Raises:
        InvalidInputError: ``invalid-option``, if it says no numbers; ``invalid-name``.
        NotFoundError: If there is no such file.
    """
    names: dict[int, str] = {}
    if file is not None:
        names |= {
            _number(key, str(file)): _checked(name, str(file)) for key, name in _read(file).items()
        }
    for text in given:
        number, equals, name = text.partition("=")
        if not equals:
            raise InvalidInputError(
                f"--name {text!r}: say NUMBER=NAME, such as 3='winter wheat'.",
                kind="invalid-option",
            )
        names[_number(number, "--name")] = _checked(name, "--name")
    return names


def match_centers(old: Sequence[Sequence[float]], new: Sequence[Sequence[float]]) -> dict[int, int]:
    """Which new center stands for which old one, where that is certain.

    Centers are matched one to one such that the distances between matched ones are least in sum. A
    match is certain where no other center of either side is closer than twice the distance between
    the two.

    Args:
        old: Shape ``(m, d)``.
        new: Shape ``(n, d)``.

    Returns:
        Positions in ``old`` to positions in ``new``.
    """
    from scipy.optimize import linear_sum_assignment

    if not old or not new:
        return {}
    before, after = np.asarray(old, dtype=np.float64), np.asarray(new, dtype=np.float64)
    apart: Float64Array = np.linalg.norm(before[:, None] - after[None], axis=2)
    rows, columns = linear_sum_assignment(apart)
    return {
        int(row): int(column)
        for row, column in zip(rows, columns, strict=True)
        if apart[row, column] <= _CERTAIN * _next_best(apart, row, column)
    }


def carry_names(
    kept: Sequence[NamedCenter],
    old_centers: Sequence[Sequence[float]],
    new_centers: Sequence[Sequence[float]],
) -> tuple[dict[int, str], list[NamedCenter]]:
    """Give names that were kept to new classes.

    Args:
        kept: Names of the map before, and those that it could not give itself.
        old_centers: Of all classes of the map before, whether named or not: a class that has no
            name still claims its successor.
        new_centers: Of the new classes, in the order of their numbers.

    Returns:
        Names by number, and the names that no class certainly is.
    """
    claimed = match_centers(old_centers, new_centers)
    names: dict[int, str] = {}
    unmatched: list[NamedCenter] = []
    for named in kept:
        position = _position(named.center, old_centers)
        if position is None:
            # Lost in a map before: it may come back to a class that nothing else claims.
            found = match_centers([named.center], new_centers).get(0)
            found = None if found in claimed.values() else found
        else:
            found = claimed.get(position)
        if found is None or found + 1 in names:
            unmatched.append(named)
        else:
            names[found + 1] = named.name
    return names, unmatched


def _next_best(apart: Float64Array, row: int, column: int) -> float:
    others = np.concatenate([np.delete(apart[row], column), np.delete(apart[:, column], row)])
    return float(others.min(initial=np.inf))


def _position(center: Sequence[float], centers: Sequence[Sequence[float]]) -> int | None:
    return next((at for at, other in enumerate(centers) if tuple(other) == tuple(center)), None)


def _read(file: Path) -> Mapping[str, object]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(f"{file}: no such file of names.", kind="file-not-found") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InvalidInputError(
            f'{file}: is no JSON ({error}); names look like {{"3": "winter wheat"}}.',
            kind="invalid-option",
        ) from error
    if not isinstance(content, dict):
        raise InvalidInputError(
            f'{file}: names must be a JSON object such as {{"3": "winter wheat"}}.',
            kind="invalid-option",
        )
    return content


def _number(text: str, where: str) -> int:
    word = text.strip()
    if not (word.isascii() and word.isdigit() and 1 <= int(word[:4]) and len(word) <= 4):
        raise InvalidInputError(
            f"{where}: {word[:40]!r} is no number of a class; classes count from 1.",
            kind="invalid-option",
        )
    return int(word)


def _checked(name: object, where: str) -> str:
    if not isinstance(name, str):
        raise InvalidInputError(
            f"{where}: {str(name)[:40]!r} is no name; give text in quotes.", kind="invalid-name"
        )
    return check_name(name)
