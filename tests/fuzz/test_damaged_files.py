"""Files of every format, damaged at random: read or refused by name, and nothing else.

``PARCELLE_FUZZ_ROUNDS`` sets how often each seed is damaged, ``PARCELLE_FUZZ_FIRST`` where to
begin; what is damaged how depends on these numbers alone.
"""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz.mutations import mutate
from tests.fuzz.reader import Reader
from tests.fuzz.seeds import Seed, make_seeds

ROUNDS = int(os.environ.get("PARCELLE_FUZZ_ROUNDS", "12"))
FIRST = int(os.environ.get("PARCELLE_FUZZ_FIRST", "0"))


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Seed]:
    return make_seeds(tmp_path_factory.mktemp("seeds"))


def test_every_seed_is_read(seeds: list[Seed], tmp_path: Path) -> None:
    with Reader([], tmp_path / "errors") as reader:
        found = {seed.name: reader.read(seed.door, seed.folder / seed.opened) for seed in seeds}
    assert {name: (one.kind, one.trouble) for name, one in found.items()} == {
        seed.name: ("read", "") for seed in seeds
    }


def test_a_damaged_file_is_read_or_refused_by_name(seeds: list[Seed], tmp_path: Path) -> None:
    kinds: Counter[str] = Counter()
    troubles: list[dict[str, object]] = []
    with Reader(seeds, tmp_path / "errors") as reader:
        for number in range(FIRST, FIRST + ROUNDS):
            for at, seed in enumerate(seeds):
                other = seeds[(at + 1 + number) % len(seeds)].content
                damaged = mutate(seed.content, f"{seed.name}:{number}", other)
                path = _put(seed, damaged, tmp_path / "damaged")
                found = reader.read(seed.door, path)
                kinds[found.kind or "trouble"] += 1
                if found.kind is None:
                    troubles.append(
                        {"seed": seed.name, "number": number, "trouble": found.trouble[-1500:]}
                    )
    print(json.dumps({"files": kinds.total(), **dict(kinds.most_common())}))
    _keep(troubles)
    assert troubles == []
    assert kinds["read"] < kinds.total(), "some damage is noticed"


def _put(seed: Seed, content: bytes, folder: Path) -> Path:
    """A seed's files with the damaged one among them; what to open."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(seed.folder, folder)
    (folder / seed.mutated).write_bytes(content)
    return folder / seed.opened


def _keep(troubles: list[dict[str, object]]) -> None:
    place = os.environ.get("PARCELLE_FUZZ_TROUBLES")
    if place and troubles:
        Path(place).write_text(json.dumps(troubles, indent=1), encoding="utf-8")
