"""Sizes of memory: as they are written, and the machine's."""

import os
import re

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([kmgt]?)(?:i?b)?\s*", re.IGNORECASE)


def bytes_of(text: str) -> int | None:
    """Bytes of a size such as ``8GiB``, ``512M`` or ``1000000``; units are powers of 1024.

    Returns:
        At least 1; None where it is no such size.
    """
    found = _SIZE.fullmatch(text)
    return None if found is None else int(float(found[1]) * _UNITS[found[2].lower()]) or None


def half_of_memory() -> int:
    """Half of the machine's memory, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
