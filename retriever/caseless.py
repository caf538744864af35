"""Text compared without case, in SQL.

The database folds both sides. SQLite's ``lower`` knows ASCII only and leaves É as it is, so a word
with other letters is tried in each of the ways in which names and crops are written.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, or_
from sqlalchemy.orm import InstrumentedAttribute

Column = ColumnElement[Any] | InstrumentedAttribute[Any]


def is_any(column: Column, words: Sequence[str]) -> ColumnElement[bool]:
    """Whether a column holds one of the words."""
    spellings = {spelling for word in words for spelling in _spellings(word)}
    return func.lower(column).in_([func.lower(spelling) for spelling in sorted(spellings)])


def contains(column: Column, word: str) -> ColumnElement[bool]:
    """Whether a column's text holds a word, or a part of one."""
    return or_(*(column.icontains(each, autoescape=True) for each in sorted(_spellings(word))))


def _spellings(word: str) -> set[str]:
    if word.isascii():
        return {word}
    return {word, word.lower(), word.upper(), word.capitalize(), word.title()}
