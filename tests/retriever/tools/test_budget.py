"""The bound on an answer's length, held against a tokenizer that a model really has."""

import random
import string
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever.quoting import quoted
from retriever.search import ParcelSearcher
from retriever.tools.budget import TOKENS, estimate_tokens, fitted
from tests.retriever.planted import UNTRAINED, Seen, at_cosine, plant, searching, settings_in
from tests.retriever.stored import store_clusters
from tests.retriever.tools.asking import answer, tool_of
from tests.retriever.tools.tokens import count_tokens

DAYS = [f"2023-{month:02}-{day:02}" for month in range(1, 13) for day in (3, 13, 23)]
SOME_INDICES = {"NDVI": 0.7123, "NDMI": -0.3123, "NDWI": -0.61, "EVI": 0.51, "NDREI": 0.47}

ALPHABETS = {
    "words": "abcdefghijklmnopqrstuvwxyz ",
    "rare letters": "qxzjkvw",
    "capitals": string.ascii_uppercase,
    "letters and digits": string.ascii_letters + string.digits,
    "punctuation": string.punctuation,
    "Chinese": "".join(map(chr, range(0x4E00, 0x9000, 7))),
    "Gothic": "".join(map(chr, range(0x10330, 0x1034A))),
    "emoji": "".join(map(chr, range(0x1F300, 0x1F600))),
}


def hostile_names(alphabet: str) -> Iterator[str]:
    """Texts as long as an answer shows them."""
    drawn = random.Random(0)
    while True:
        yield "".join(drawn.choice(alphabet) for _ in range(99))


def landscape(names: Iterator[str], parcels: int, series: int) -> list[Seen]:
    """Parcels of one crop around the first, and a series of observations of that one."""
    wheat = [
        Seen(
            next(names),
            at_cosine(0.99 - n / 1000),
            day=DAYS[n % len(DAYS)],
            crop_code=next(names),
            crop_name="winter wheat" if n % 2 else next(names),
            corner=(2.0 + n / 1000, 49.0),
            indices=SOME_INDICES,
            attributes={next(names): next(names) for _ in range(8)},
        )
        for n in range(parcels)
    ]
    return [*wheat, *(replace(wheat[0], day=day) for day in DAYS[1 : series + 1])]


def texts(searcher: ParcelSearcher, detail: str) -> dict[str, str]:
    """One answer of each tool, as long as it gets."""
    ids = [one.parcel.parcel_id for one in searcher.parcels(limit=5).parcels]
    questions: dict[str, dict[str, Any]] = {
        "find_similar_parcels": {"parcel_id": ids[0], "like": ids[1:3], "unlike": ids[3:], "k": 50},
        "get_parcel_state": {"parcel_id": ids[0]},
        "search_parcels": {"limit": 50},
        "compare_parcels": {"parcel_ids": ids},
    }
    return {
        name: answer(tool_of(searcher, name), response_format=detail, **arguments)
        for name, arguments in questions.items()
    }


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_no_answer_is_longer_than_its_bound_whatever_is_stored(
    alphabet: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    chosen = settings_in(tmp_path_factory.mktemp("hostile"))
    names = hostile_names(ALPHABETS[alphabet])
    planted = landscape(names, parcels=60, series=30)
    plant(chosen, planted, weights=UNTRAINED)
    members = [[one.parcel_id for one in planted[n:60:5]] for n in range(5)]
    store_clusters(chosen, members, {n + 1: next(names) for n in range(5)})
    with searching(chosen) as searcher:
        for detail, bound in TOKENS.items():
            for tool, text in texts(searcher, detail).items():
                assert count_tokens(text) <= bound, (tool, detail, count_tokens(text))


def ordinary(ids: str) -> Iterator[str]:
    """Names as registers have them: an id of eight digits or a short word, then crops."""
    for number in range(10_000):
        yield f"{12_345_678 + number}" if ids == "digits" else f"demo-{number:03}"


@pytest.mark.parametrize("ids", ["digits", "words"])
def test_ten_ordinary_matches_fit_into_a_concise_answer(
    ids: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    chosen = settings_in(tmp_path_factory.mktemp("ordinary"))
    crops = ["winter wheat", "winter barley", "rapeseed", "sugar beet"]
    names = ordinary(ids)
    seen = [
        Seen(next(names), at_cosine(0.99 - n / 1000), day=DAYS[n % 36], crop_name=crops[n % 4])
        for n in range(20)
    ]
    plant(chosen, seen, weights=UNTRAINED)
    with searching(chosen) as searcher:
        for detail, bound in TOKENS.items():
            tool = tool_of(searcher, "find_similar_parcels")
            text = answer(tool, parcel_id=seen[0].parcel_id, k=10, response_format=detail)
            assert count_tokens(text) <= bound
            assert all(text.count(f'"{one.parcel_id}"') == 1 for one in seen[1:11])


@given(st.text(max_size=60))
def test_a_strangers_text_is_seldom_longer_than_estimated(text: str) -> None:
    told = quoted(text)
    assert count_tokens(told) <= 1.2 * estimate_tokens(told) + 3


def test_an_answer_tells_as_many_lines_as_have_room() -> None:
    lines = [f"{number}. a line of some words" for number in range(1000)]
    text = fitted(["head"], lines, lambda n: [f"{n} lines"], "concise")
    told = len(text.splitlines()) - 2
    assert text.splitlines() == ["head", *lines[:told], f"{told} lines"]
    assert 400 < count_tokens(text) <= 500
    longer = fitted(["head"], lines, lambda n: [f"{n} lines"], "detailed")
    assert 1600 < count_tokens(longer) <= 2000


def test_the_first_line_is_always_told() -> None:
    assert fitted([], ["word " * 1000, "two"], lambda _: [], "concise") == "word " * 1000
    assert fitted(["none"], [], lambda told: [str(told)], "concise") == "none\n0"


def test_extras_go_only_where_one_line_leaves_them_no_room() -> None:
    long, short = "word " * 200, "word " * 20
    told = fitted([], [short] * 50, lambda _: ["end"], "concise", extras=["one", long, "three"])
    assert told.splitlines()[-4:] == ["one", long, "three", "end"]
    assert told.count(short) > 1
    told = fitted([], ["first " * 300, "second"], lambda _: ["end"], "concise", extras=["a", long])
    assert told.splitlines() == ["first " * 300, "a", "end"]
