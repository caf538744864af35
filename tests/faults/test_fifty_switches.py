"""Generations are published, rolled back and pruned while many ask, over every door at once."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from indexer.catalog.database import opened_catalog
from indexer.generations.history import prune, roll_back
from indexer.lock import only_writer
from indexer.settings import Settings
from tests.api.serving import served_by_a_process
from tests.api.test_generation_switch import PARCELS, K, expected, landscape
from tests.faults.report import Entry, note, rounds
from tests.retriever.planted import plant, searching, settings_in

SWITCHES = 50
THREADS, CLIENTS = 2, 2

_BETWEEN_QUESTIONS_S = 0.01

Answer = tuple[int, dict[str, float]]
"""The generation that an answer names, and the scores that it gives, in order."""


def switch(index: Settings, number: int) -> None:
    """The next landscape; sometimes an earlier index of it, sometimes none but the current."""
    with opened_catalog(index) as engine, only_writer(index, engine, doing="switches"):
        if number % 5 == 0:
            roll_back(engine, index.generations_dir, None)
        elif number % 7 == 0:
            prune(engine, index.generations_dir, 1)
        plant(index, landscape(number), publish=number % 5 != 1)


def check_until(stop: threading.Event, ask: Callable[[], Answer]) -> list[int]:
    """The landscapes that answered, each answer being wholly of one."""
    answered = [1]
    while not stop.wait(_BETWEEN_QUESTIONS_S):
        _, scores = ask()
        # An index that is rolled back answers with all that was committed since.
        later = range(answered[-1], answered[-1] + PARCELS)
        (number,) = [one for one in later if list(expected(one)) == list(scores)]
        assert scores == pytest.approx(expected(number), abs=1e-5)
        answered.append(number)
    return answered


def over_http(stop: threading.Event, address: str) -> list[int]:
    with httpx2.Client(base_url=address, timeout=30) as client:

        def ask() -> Answer:
            response = client.get(f"/collections/demo/items/asked/similar?k={K}")
            assert response.status_code == 200, response.text
            found = response.json()
            properties = [feature["properties"] for feature in found["features"]]
            assert {one["generation"] for one in properties} == {found["generation"]}
            return found["generation"], {one["id"]: one["score"] for one in properties}

        return check_until(stop, ask)


def in_process(stop: threading.Event, index: Settings) -> list[int]:
    with searching(index) as searcher:

        def ask() -> Answer:
            found = searcher.similar_by_id("asked", k=K)
            return found.generation, {one.parcel_id: one.score for one in found.matches}

        return check_until(stop, ask)


def test_no_answer_fails_or_is_mixed_during_fifty_publications_rollbacks_and_prunings(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    index = settings_in(tmp_path)
    plant(index, landscape(1))
    stop = threading.Event()
    last = 1 + SWITCHES * rounds()
    with (
        served_by_a_process(index, workers=2) as address,
        ThreadPoolExecutor(THREADS + CLIENTS) as readers,
    ):
        asking = [readers.submit(in_process, stop, index) for _ in range(THREADS)]
        asking += [readers.submit(over_http, stop, address) for _ in range(CLIENTS)]
        try:
            for number in range(2, last + 1):
                switch(index, number)
        finally:
            stop.set()
        answered = [reader.result() for reader in asking]
    for landscapes in answered:
        assert landscapes == sorted(landscapes), "an older landscape answered after a newer one"
    assert len(set().union(*answered)) > SWITCHES / 2
    asked = sum(len(landscapes) - 1 for landscapes in answered)
    note(Entry("reads during 50 switches of generations", "answers", asked, 0, request.node.nodeid))
