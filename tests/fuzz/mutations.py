"""Ways to damage a file, each decided by a random number generator that is seeded."""

import random
import re
import struct
from collections.abc import Callable
from typing import Final

_NUMBER: Final = re.compile(rb"\d+(?:\.\d+)?")
_WORD: Final = re.compile(rb"[A-Za-z_:]{3,}")
# Where programs miscount: bounds of types, and texts that are numbers to some.
_NUMBERS: Final = (
    b"0",
    b"-1",
    b"1",
    b"255",
    b"256",
    b"65535",
    b"65536",
    b"2147483647",
    b"2147483648",
    b"4294967295",
    b"9223372036854775807",
    b"99999999999999999999",
    b"1e999",
    b"-1e308",
    b"1e-320",
    b"NaN",
    b"inf",
    b"null",
    b"0x10",
    b"1" * 400,
)
_TEXTS: Final = (
    b"",
    b"null",
    b"{}",
    b"[]",
    b'"',
    b"<",
    b"%s",
    b"\x00",
    b"\xff\xfe",
    b"../../../etc/passwd",
    b"/vsicurl/x",
    b"A" * 5000,
    b"[" * 2000,
    "‮\u0661".encode(),
)
_WORDS: Final = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000)
_HEAD_BYTES: Final = 600

Mutation = Callable[[bytearray, random.Random, bytes], None]


def mutate(content: bytes, seed: str, other: bytes) -> bytes:
    """Damage a file in one to four ways.

    Args:
        content: Of a valid file.
        seed: Decides everything.
        other: Of another valid file, to take pieces from.
    """
    chance = random.Random(seed)
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        chance.choice(_MUTATIONS)(changed, chance, other)
    return bytes(changed)


def _flip_bits(content: bytearray, chance: random.Random, _: bytes) -> None:
    for _unused in range(chance.choice((1, 1, 4, 32))):
        if content:
            content[_place(content, chance)] ^= 1 << chance.randrange(8)


def _set_bytes(content: bytearray, chance: random.Random, _: bytes) -> None:
    at = _place(content, chance)
    size = chance.choice((1, 2, 4, 8, 64))
    content[at : at + size] = bytes([chance.choice((0, 0xFF, 0x41))]) * size


def _set_word(content: bytearray, chance: random.Random, _: bytes) -> None:
    """Put a number where one of a header may stand."""
    at = _place(content, chance)
    order, size = chance.choice("<>"), chance.choice("BHIQ")
    number = chance.choice(_WORDS) & ((1 << 8 * struct.calcsize(size)) - 1)
    packed = struct.pack(f"{order}{size}", number)
    content[at : at + len(packed)] = packed


def _cut(content: bytearray, chance: random.Random, _: bytes) -> None:
    del content[chance.randrange(len(content) + 1) :]


def _cut_out(content: bytearray, chance: random.Random, _: bytes) -> None:
    at = _place(content, chance)
    del content[at : at + chance.choice((1, 2, 16, 256, 4096))]


def _append(content: bytearray, chance: random.Random, other: bytes) -> None:
    content += chance.choice((b"\x00" * 1000, other, bytes(content), chance.randbytes(300)))


def _duplicate(content: bytearray, chance: random.Random, _: bytes) -> None:
    at = _place(content, chance)
    piece = content[at : at + chance.choice((4, 12, 100, 2000))]
    content[at:at] = piece * chance.choice((1, 1, 2, 50))


def _swap(content: bytearray, chance: random.Random, _: bytes) -> None:
    size = chance.choice((2, 4, 12, 64))
    one, two = sorted((_place(content, chance), _place(content, chance)))
    if two - one >= size:
        content[one : one + size], content[two : two + size] = (
            content[two : two + size],
            content[one : one + size],
        )


def _splice(content: bytearray, chance: random.Random, other: bytes) -> None:
    at, start = _place(content, chance), chance.randrange(len(other) + 1)
    content[at : at + chance.choice((0, 100))] = other[start : start + chance.choice((8, 500))]


def _replace_number(content: bytearray, chance: random.Random, _: bytes) -> None:
    """Put a number in the place of one that is written as text."""
    _replace(content, chance, _NUMBER, _NUMBERS)


def _replace_word(content: bytearray, chance: random.Random, _: bytes) -> None:
    _replace(content, chance, _WORD, _TEXTS)


def _replace(
    content: bytearray, chance: random.Random, what: re.Pattern[bytes], texts: tuple[bytes, ...]
) -> None:
    found = [match.span() for match in what.finditer(content)]
    if found:
        start, end = chance.choice(found)
        content[start:end] = chance.choice(texts)


def _place(content: bytearray, chance: random.Random) -> int:
    """Somewhere in the file; half of the times in its head, where headers are."""
    size = len(content)
    if size > _HEAD_BYTES and chance.random() < 0.5:
        size = _HEAD_BYTES
    return chance.randrange(size) if size else 0


_MUTATIONS: Final[tuple[Mutation, ...]] = (
    _flip_bits,
    _flip_bits,
    _set_bytes,
    _set_word,
    _set_word,
    _set_word,
    _cut,
    _cut_out,
    _append,
    _duplicate,
    _swap,
    _splice,
    _replace_number,
    _replace_number,
    _replace_word,
)
