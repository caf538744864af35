from pathlib import Path

import pytest
from pydantic import ValidationError

from indexer.memory import half_of_memory
from indexer.settings import Settings


def test_the_memory_of_an_index_is_written_as_people_write_sizes(tmp_path: Path) -> None:
    assert Settings(data_dir=tmp_path, index_memory="1.5GiB").index_memory_bytes == 1536 * 1024**2


def test_an_index_may_take_half_of_the_memory_unless_something_else_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PARCELLE_INDEX_MEMORY", raising=False)
    assert Settings(data_dir=tmp_path).index_memory_bytes == half_of_memory()
    monkeypatch.setenv("PARCELLE_INDEX_MEMORY", "512M")
    assert Settings(data_dir=tmp_path).index_memory_bytes == 512 * 1024**2


@pytest.mark.parametrize("size", ["much", "-1GiB", "0"])
def test_a_memory_that_is_no_size_is_refused_with_an_example(tmp_path: Path, size: str) -> None:
    with pytest.raises(ValidationError, match=rf"PARCELLE_INDEX_MEMORY is '{size}'.*8GiB"):
        Settings(data_dir=tmp_path, index_memory=size)
