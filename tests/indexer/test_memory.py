import os

import pytest

from indexer.memory import bytes_of, half_of_memory


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("1000000", 1_000_000),
        ("512M", 512 * 1024**2),
        ("8GiB", 8 * 1024**3),
        ("8gb", 8 * 1024**3),
        ("1.5 k", 1536),
        (" 2TiB ", 2 * 1024**4),
        ("12 B", 12),
    ],
)
def test_a_size_is_read_in_powers_of_1024(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "8 pounds", "-1", "0", "0.2", "1e9", "8G8", "½"])
def test_what_is_no_size_is_none(text: str) -> None:
    assert bytes_of(text) is None


def test_half_of_the_memory_is_less_than_the_memory() -> None:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert whole - 2 * half_of_memory() in (0, 1)
