"""New generations are published while clients ask."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from indexer.lock import only_writer
from tests.api.serving import served_by_a_process
from tests.retriever.planted import Seen, at_cosine, plant, settings_in

SWITCHES = 20
PARCELS = 23
CLIENTS = 4
K = 8


def cosine(parcel: int, generation: int) -> float:
    """To the parcel that asks; each generation has an order of its own."""
    return 0.9 - 0.8 * ((parcel + 7 * generation) % PARCELS) / PARCELS


def landscape(generation: int) -> list[Seen]:
    others = [
        Seen(f"p{n:02}", at_cosine(cosine(n, generation), axis=1 + n)) for n in range(PARCELS)
    ]
    return [Seen("asked", at_cosine(1)), *others]


def expected(generation: int) -> dict[str, float]:
    """The ids and scores of an answer, in order."""
    scores = {f"p{n:02}": cosine(n, generation) for n in range(PARCELS)}
    best = sorted(scores, key=lambda name: -scores[name])[:K]
    return {name: scores[name] for name in best}


def ask_until(stop: threading.Event, address: str) -> list[int]:
    """The landscapes that answered, each answer being wholly of one.

    It is that of the generation that the answer names, or what was committed since.
    """
    answered = []
    with httpx2.Client(base_url=address, timeout=30) as client:
        while not stop.is_set():
            response = client.get(f"/collections/demo/items/asked/similar?k={K}")
            assert response.status_code == 200, response.text
            found = response.json()
            properties = [feature["properties"] for feature in found["features"]]
            assert {one["generation"] for one in properties} == {found["generation"]}
            scores = {one["id"]: one["score"] for one in properties}
            published = found["generation"]
            number = published if list(scores) == list(expected(published)) else published + 1
            assert list(scores) == list(expected(number))
            assert scores == pytest.approx(expected(number), abs=1e-5)
            answered.append(number)
    return answered


def test_no_request_fails_and_no_answer_mixes_landscapes_while_generations_switch(
    tmp_path: Path,
) -> None:
    index = settings_in(tmp_path)
    plant(index, landscape(1))
    stop = threading.Event()
    with (
        served_by_a_process(index, workers=2) as address,
        ThreadPoolExecutor(CLIENTS) as clients,
    ):
        asking = [clients.submit(ask_until, stop, address) for _ in range(CLIENTS)]
        try:
            for generation in range(2, 2 + SWITCHES):
                # Without the lock, a service that starts would take what is built for a leftover.
                with only_writer(index, doing="switches"):
                    plant(index, landscape(generation))
        finally:
            stop.set()
        answered = [client.result() for client in asking]
    for generations in answered:
        assert generations == sorted(generations), "an older landscape answered after a newer one"
    # Each of them was there long enough to be asked by somebody.
    assert len(set().union(*answered)) > SWITCHES / 2
