"""A parcel against its kind, held against the same questions asked in plain NumPy."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod

from indexer.settings import Settings
from retriever import candidates as candidates_module
from retriever.candidates import COMPARABLE, REGIONS_KM, around, distances_km
from retriever.peers import (
    LOOK_ALIKES,
    MIN_PEERS,
    MOST_PEERS,
    CropVote,
    PeerGroup,
    Peers,
    Standing,
    standing_of,
)
from retriever.queries import Bbox, Interval, ParcelFilter
from retriever.state import ParcelState
from tests.retriever.planted import (
    UNTRAINED,
    FloatArray,
    Seen,
    at_cosine,
    plant,
    random_vectors,
    searching,
    settings_in,
)

Floats = npt.NDArray[np.float64]
Place = tuple[float, float]

WHEAT = ("BTH", "winter wheat")
KM = 360 / 40_030.17
"""A kilometer in degrees along a meridian of a sphere of 6371 km."""


# Where a value stands ------------------------------------------------------------------------

TENTHS = st.integers(-10, 10).map(lambda n: n / 10)


def mid_rank(value: float, others: Sequence[float]) -> float:
    """Mean of the shares of others that lie below the value and that do not lie above it."""
    held = np.sort(np.array(others))
    left, right = (np.searchsorted(held, value, side=side) for side in ("left", "right"))
    return float(left + right) * 50 / len(held)


def quantile(share: float, others: Sequence[float]) -> float:
    """Type 7 of Hyndman and Fan, written out: linear between order statistics."""
    held = sorted(others)
    place = share * (len(held) - 1)
    low = math.floor(place)
    high = min(low + 1, len(held) - 1)
    return held[low] + (place - low) * (held[high] - held[low])


@given(value=TENTHS, others=st.lists(TENTHS, min_size=1, max_size=60))
def test_a_percentile_is_the_share_below_and_half_of_the_equal(
    value: float, others: list[float]
) -> None:
    standing = standing_of(value, others)
    assert standing.value == value
    assert standing.percentile == pytest.approx(mid_rank(value, others))
    assert standing.median == pytest.approx(quantile(0.5, others))
    assert standing.p10 == pytest.approx(quantile(0.1, others))
    assert standing.p90 == pytest.approx(quantile(0.9, others))


@given(value=TENTHS, others=st.lists(TENTHS, min_size=1, max_size=60))
def test_a_percentile_turned_upside_down_is_its_complement(
    value: float, others: list[float]
) -> None:
    upside_down = standing_of(-value, [-other for other in others])
    assert upside_down.percentile == pytest.approx(100 - standing_of(value, others).percentile)


@pytest.mark.parametrize(
    ("value", "percentile"),
    [(0.0, 0.0), (0.1, 10.0), (0.15, 20.0), (0.3, 60.0), (0.5, 90.0), (0.6, 100.0)],
)
def test_percentiles_by_hand(value: float, percentile: float) -> None:
    # Below 0.3 lie two of five, and two are equal to it: 40 % and half of 40 %.
    assert standing_of(value, [0.1, 0.2, 0.3, 0.3, 0.5]).percentile == pytest.approx(percentile)


# On the ground -------------------------------------------------------------------------------

PARIS, LONDON, NEW_YORK = (2.3522, 48.8566), (-0.1276, 51.5072), (-74.0060, 40.7128)
SYDNEY, AUCKLAND, SUVA = (151.2093, -33.8688), (174.7633, -36.8485), (178.4419, -18.1416)
LONGITUDES = st.floats(-180, 180)
LATITUDES = st.floats(-90, 90)


@pytest.mark.parametrize(
    ("start", "end", "kilometers"),
    [
        (PARIS, LONDON, 344),
        (PARIS, NEW_YORK, 5837),
        (SYDNEY, AUCKLAND, 2156),
        (PARIS, PARIS, 0),
    ],
)
def test_distances_between_cities_are_the_known_ones(
    start: Place, end: Place, kilometers: float
) -> None:
    (found,) = distances_km(start, np.array([end]))
    assert found == pytest.approx(kilometers, rel=0.006)


def test_a_quarter_of_a_meridian_is_a_quarter_of_the_sphere() -> None:
    found = distances_km((0, 0), np.array([(0, 90), (90, 0), (180, 0), (-90, 0), (0, 0)]))
    quarter = math.pi * 6371 / 2
    assert found.tolist() == pytest.approx([quarter, quarter, 2 * quarter, quarter, 0])


@given(st.tuples(LONGITUDES, LATITUDES), st.tuples(LONGITUDES, LATITUDES))
def test_distances_are_those_on_the_ellipsoid_within_its_flattening(
    start: Place, end: Place
) -> None:
    _, _, meters = Geod(ellps="WGS84").inv(*start, *end)
    (found,) = distances_km(start, np.array([end]))
    assert found == pytest.approx(meters / 1000, rel=0.006, abs=1e-6)


def test_a_place_that_is_not_known_is_at_no_distance() -> None:
    found = distances_km(PARIS, np.array([(np.nan, np.nan), PARIS]))
    assert np.isnan(found[0])
    assert found[1] == 0
    assert distances_km(PARIS, np.empty((0, 2))).shape == (0,)


def moved(start: Place, bearing_deg: float, kilometers: float) -> Place:
    """Where one comes to along a great circle of the sphere."""
    longitude, latitude = (math.radians(degrees) for degrees in start)
    bearing, angle = math.radians(bearing_deg), kilometers / 6371
    up = math.sin(latitude) * math.cos(angle)
    up += math.cos(latitude) * math.sin(angle) * math.cos(bearing)
    aside = math.atan2(
        math.sin(bearing) * math.sin(angle) * math.cos(latitude),
        math.cos(angle) - math.sin(latitude) * up,
    )
    east = math.degrees(longitude + aside)
    return (east + 180) % 360 - 180, math.degrees(math.asin(max(-1.0, min(1.0, up))))


def holds(bbox: Bbox, place: Place) -> bool:
    longitude, latitude = place
    if bbox.west <= bbox.east:
        inside = bbox.west <= longitude <= bbox.east
    else:
        inside = longitude >= bbox.west or longitude <= bbox.east
    return inside and bbox.south <= latitude <= bbox.north


@given(
    start=st.tuples(
        LONGITUDES | st.sampled_from([-180.0, 179.9, 180.0]),
        LATITUDES | st.floats(88, 90) | st.floats(-90, -88),
    ),
    bearing=st.floats(0, 360),
    kilometers=st.floats(0, 50 - 1e-6),
)
def test_every_place_of_the_region_lies_in_its_rectangle(
    start: Place, bearing: float, kilometers: float
) -> None:
    assert holds(around(start, 50), moved(start, bearing, kilometers))


@given(st.tuples(LONGITUDES, st.floats(-60, 60)))
def test_the_rectangle_is_not_much_larger_than_the_region(start: Place) -> None:
    bbox = around(start, 50)
    width = (bbox.east - bbox.west) % 360
    assert (bbox.north - bbox.south) / KM == pytest.approx(2 * 50, rel=1e-6)
    assert width * math.cos(math.radians(start[1])) / KM == pytest.approx(2 * 50, rel=0.02)


@given(st.tuples(LONGITUDES, LATITUDES))
def test_the_rectangle_is_a_valid_one(start: Place) -> None:
    bbox = around(start, 50)
    Bbox.parse(f"{bbox.west!r},{bbox.south!r},{bbox.east!r},{bbox.north!r}")


# The same questions in plain NumPy -----------------------------------------------------------


def moment(seen: Seen) -> datetime:
    return datetime.fromisoformat(f"{seen.day}T10:50:31").replace(tzinfo=UTC)


def middle(seen: Seen) -> Place | None:
    return None if seen.corner is None else (seen.corner[0] + 0.005, seen.corner[1] + 0.005)


def kilometers(one: Seen, other: Seen) -> float:
    """By the angle between the directions from the middle of the Earth."""
    points = []
    for place in (middle(one), middle(other)):
        if place is None:
            return math.inf
        longitude, latitude = np.radians(place)
        flat = np.cos(latitude)
        points.append([flat * np.cos(longitude), flat * np.sin(longitude), np.sin(latitude)])
    chord = np.linalg.norm(np.array(points[0]) - np.array(points[1]))
    return float(2 * 6371 * np.arcsin(chord / 2))


def cosine(one: Seen, other: Seen) -> float:
    assert one.vector is not None
    assert other.vector is not None
    return float(one.vector.astype(np.float64) @ other.vector.astype(np.float64))


def same_crop(one: Seen, other: Seen) -> bool:
    """By code within a collection, by name beyond it."""
    if one.crop_code and one.collection == other.collection:
        return (other.crop_code or "").lower() == one.crop_code.lower()
    return (other.crop_name or "").lower() == (one.crop_name or "").lower()


def anchor_of(planted: Sequence[Seen], parcel_id: str) -> Seen | None:
    """The latest observation that was reliable, dated and embedded."""
    own = [seen for seen in planted if seen.parcel_id == parcel_id]
    usable = [seen for seen in own if seen.reliable and seen.day and seen.vector is not None]
    return max(usable, key=moment, default=None)


def candidates_of(planted: Sequence[Seen], anchor: Seen) -> list[Seen]:
    """One observation of each other parcel: reliable, near in time, near on the ground."""
    nearest: dict[str, Seen] = {}
    for seen in planted:
        if seen.vector is None or not seen.reliable or seen.day is None:
            continue
        if seen.parcel_id == anchor.parcel_id or seen.collection == "elsewhere":
            continue
        if abs((moment(seen) - moment(anchor)).days) > 15:
            continue
        if anchor.corner is not None and kilometers(anchor, seen) > 50:
            continue
        held = nearest.setdefault(seen.parcel_id, seen)
        if abs(moment(seen) - moment(anchor)) < abs(moment(held) - moment(anchor)):
            nearest[seen.parcel_id] = seen
    return list(nearest.values())


def assert_group(group: PeerGroup | None, expected: Sequence[Seen], anchor: Seen) -> None:
    assert group is not None
    assert group.parcels == {(seen.collection, seen.parcel_id) for seen in expected}
    assert group.too_few == (len(expected) < 5)
    assert group.start == min((moment(seen) for seen in expected), default=None)
    assert group.end == max((moment(seen) for seen in expected), default=None)
    if anchor.corner is not None and expected:
        farthest = max(kilometers(anchor, seen) for seen in expected)
        assert group.farthest_km == pytest.approx(farthest, abs=1e-6)
    else:
        assert group.farthest_km is None
    for index in ("NDVI", "NDMI"):
        values = [seen.indices[index] for seen in expected if index in seen.indices]
        if index in anchor.indices and len(values) >= 5:
            assert_standing(group.standings[index], anchor.indices[index], values)
        else:
            assert index not in group.standings
    assert set(group.standings) <= {"NDVI", "NDMI"}


def assert_closest(
    group: PeerGroup, expected: Sequence[Seen], anchor: Seen, *, scored: bool
) -> None:
    told = group.to_dict()["closest"]
    assert [(peer["collection"], peer["id"]) for peer in told] == [
        (seen.collection, seen.parcel_id) for seen in expected
    ]
    for peer, seen in zip(told, expected, strict=True):
        assert peer["datetime"] == f"{seen.day}T10:50:31Z"
        score = pytest.approx(cosine(anchor, seen), abs=1e-4) if scored else None
        assert peer["score"] == score
        placed = anchor.corner is not None and seen.corner is not None
        distance = pytest.approx(kilometers(anchor, seen), abs=0.01) if placed else None
        assert peer["distance_km"] == distance
        shown = {name: value for name, value in seen.indices.items() if name in ("NDVI", "NDMI")}
        assert peer["medians"] == pytest.approx(shown)


def assert_standing(standing: Standing, value: float, others: Sequence[float]) -> None:
    assert standing.value == pytest.approx(value)
    assert standing.percentile == pytest.approx(mid_rank(value, others))
    found = [standing.p10, standing.median, standing.p90]
    assert found == pytest.approx([quantile(share, others) for share in (0.1, 0.5, 0.9)])


def expected_vote(
    look_alikes: Sequence[Seen], anchor: Seen
) -> tuple[str | None, float | None, int, bool | None]:
    """Name of the winner, its share, the number of votes, and whether it is what is declared.

    Only more than half of the votes contradict.
    """
    crops = [seen.crop_name.lower() for seen in look_alikes if seen.crop_name]
    if len(crops) < 5:
        return None, None, len(crops), None
    shares = [crops.count(crop) / len(crops) for crop in crops]
    winner = crops[int(np.argmax(shares))]
    declared = (anchor.crop_name or "").lower()
    agrees = (
        None
        if not declared or (declared != winner and max(shares) <= 0.5)
        else (declared == winner)
    )
    return winner, max(shares), len(crops), agrees


def assert_peers(peers: Peers | None, planted: Sequence[Seen], anchor: Seen) -> None:
    assert peers is not None
    assert (peers.acquired_at, peers.scene) == (moment(anchor), anchor.scene)
    candidates = sorted(
        candidates_of(planted, anchor), key=lambda seen: cosine(anchor, seen), reverse=True
    )
    kind = [seen for seen in candidates if same_crop(anchor, seen)]
    if anchor.crop_name is None:
        assert peers.similar is None
    else:
        assert_group(peers.similar, kind[:50], anchor)
        assert peers.similar is not None
        assert_closest(peers.similar, kind[:5], anchor, scored=True)
        lowest = peers.similar.lowest_score
        assert lowest == (pytest.approx(cosine(anchor, kind[:50][-1]), abs=1e-6) if kind else None)
    if anchor.crop_name is None or anchor.corner is None:
        assert peers.nearby is None
    else:
        nearest = sorted(kind, key=lambda seen: kilometers(anchor, seen))[:50]
        assert_group(peers.nearby, nearest, anchor)
        assert peers.nearby is not None
        assert_closest(peers.nearby, nearest[:5], anchor, scored=False)
        assert peers.nearby.lowest_score is None
    assert_vote(peers.crop, candidates[:10], anchor)


def assert_vote(vote: CropVote, look_alikes: Sequence[Seen], anchor: Seen) -> None:
    winner, share, n, agrees = expected_vote(look_alikes, anchor)
    assert (vote.declared.code, vote.declared.name) == (anchor.crop_code, anchor.crop_name)
    if share is not None and anchor.crop_name:
        crops = [seen.crop_name.lower() for seen in look_alikes if seen.crop_name]
        own = crops.count(anchor.crop_name.lower()) / len(crops)
        assert vote.declared_share == pytest.approx(own)
    else:
        assert vote.declared_share is None
    assert (vote.suggested_name and vote.suggested_name.lower()) == winner
    assert vote.share == (None if share is None else pytest.approx(share))
    assert (vote.n, vote.agrees) == (n, agrees)


# A planted country ---------------------------------------------------------------------------

CROPS: tuple[tuple[str | None, str | None], ...] = (
    WHEAT,
    ("bth", "Winter Wheat"),
    ("MIS", "maize"),
    (None, "Épeautre"),
    (None, "épeautre"),
    (None, None),
)
# No day lies in the middle between two others, so that one of them is always nearer.
DAYS = tuple(date(2023, 5, 1) + timedelta(days=days) for days in (0, 1, 3, 7, 12, 20, 31))


def planted_parcel(number: int, vectors: FloatArray, rng: np.random.Generator) -> list[Seen]:
    """A parcel seen on one to three days, some without a date or under clouds."""
    code, name = CROPS[rng.choice(len(CROPS), p=[0.3, 0.15, 0.2, 0.15, 0.1, 0.1])]
    # 50 km are 0.45 degrees of latitude and 0.68 of longitude here.
    corner = (2 + rng.uniform(-0.5, 0.5), 49 + rng.uniform(-0.35, 0.35))
    first = Seen(
        f"p{number:03}",
        collection=("demo", "neighbors")[number % 2],
        crop_code=code,
        crop_name=name,
        corner=None if rng.random() < 0.1 else corner,
    )
    days = rng.choice(len(DAYS), rng.integers(1, 4), replace=False)
    return [
        replace(
            first,
            vector=None if rng.random() < 0.1 else vectors[3 * number + place],
            day=None if rng.random() < 0.05 else DAYS[day].isoformat(),
            reliable=bool(rng.random() < 0.85),
            indices=planted_indices(rng),
        )
        for place, day in enumerate(days)
    ]


def planted_indices(rng: np.random.Generator) -> dict[str, float]:
    """Medians to one decimal, so that some are equal; some were not measured."""
    medians = {name: round(float(rng.uniform(-1, 1)), 1) for name in ("NDVI", "NDMI", "NDRE")}
    return {name: median for name, median in medians.items() if rng.random() < 0.9}


def planted_country(n: int, seed: int) -> list[Seen]:
    rng = np.random.default_rng(seed)
    vectors = random_vectors(3 * n, seed)
    return [seen for number in range(n) for seen in planted_parcel(number, vectors, rng)]


def test_peers_are_those_of_the_same_questions_asked_in_numpy(empty: Settings) -> None:
    planted = planted_country(60, seed=11)
    stranger = [replace(seen, collection="elsewhere") for seen in planted]
    plant(
        empty, [replace(one, parcel_id=f"x{one.parcel_id}") for one in stranger], weights=UNTRAINED
    )
    plant(empty, planted)
    answered = 0
    with searching(empty) as searcher:
        for parcel_id in sorted({seen.parcel_id for seen in planted}):
            anchor = anchor_of(planted, parcel_id)
            peers = searcher.state(parcel_id).peers
            if anchor is None:
                assert peers is None
            else:
                assert_peers(peers, planted, anchor)
                answered += 1
    assert answered > 40


# One rule at a time --------------------------------------------------------------------------


def wheat(parcel_id: str, vector: FloatArray | None = None, **others: object) -> Seen:
    """A wheat parcel; by default one that looks nearly like the anchor's."""
    chosen = at_cosine(0.9) if vector is None else vector
    seen = Seen(parcel_id, chosen, crop_code="BTH", crop_name="winter wheat")
    return replace(seen, **others)  # type: ignore[arg-type]


ANCHOR = wheat("anchor", at_cosine(1), indices={"NDVI": 0.5, "NDMI": 0.2})


def crowd(n: int, prefix: str = "w", **others: object) -> list[Seen]:
    one = replace(wheat(""), **others)  # type: ignore[arg-type]
    return [replace(one, parcel_id=f"{prefix}{number:02}") for number in range(n)]


@pytest.fixture
def state_of(tmp_path: Path) -> Callable[[Sequence[Seen]], ParcelState]:
    """The state of ``ANCHOR`` among what is planted with it."""

    calls = count()

    def state(planted: Sequence[Seen], anchor: Seen = ANCHOR) -> ParcelState:
        settings = settings_in(tmp_path / str(next(calls)))
        plant(settings, [anchor, *planted])
        with searching(settings) as searcher:
            return searcher.state("anchor", collection=anchor.collection)

    return state


StateOf = Callable[..., ParcelState]


def peer_ids(group: PeerGroup | None) -> set[str]:
    assert group is not None
    return {parcel_id for _, parcel_id in group.parcels}


def peers_among(state: ParcelState) -> Peers:
    assert state.peers is not None, state.notes
    return state.peers


def test_the_bounds_of_peers_are_those_that_the_documentation_names() -> None:
    assert timedelta(days=15) == COMPARABLE
    assert (REGIONS_KM, MOST_PEERS, MIN_PEERS, LOOK_ALIKES) == ((5, 15, 50), 50, 5, 10)


STRANGERS = {
    "another crop": wheat("stranger", crop_code="MIS", crop_name="maize"),
    "another code under the same name": wheat("stranger", crop_code="BTD"),
    "no declared crop": wheat("stranger", crop_code=None, crop_name=None),
    "16 days later": wheat("stranger", day="2023-06-14"),
    "16 days before": wheat("stranger", day="2023-05-13"),
    "the same day of another year": wheat("stranger", day="2022-05-29"),
    "undated": wheat("stranger", day=None),
    "unreliable": wheat("stranger", reliable=False),
    "51 km to the north": wheat("stranger", corner=(2.0, 49.0 + 51 * KM)),
    "no place": wheat("stranger", corner=None),
}


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS)
def test_what_cannot_be_compared_is_no_peer(stranger: Seen, state_of: StateOf) -> None:
    peers = peers_among(state_of([*crowd(6), stranger]))
    assert peer_ids(peers.similar) == {seen.parcel_id for seen in crowd(6)}
    assert peer_ids(peers.nearby) == {seen.parcel_id for seen in crowd(6)}


FELLOWS = {
    "the code in another case": wheat("fellow", crop_code="bth"),
    "the same code under another name": wheat("fellow", crop_name="Blé tendre d'hiver"),
    "15 days later": wheat("fellow", day="2023-06-13"),
    "15 days before": wheat("fellow", day="2023-05-14"),
    "49 km to the north": wheat("fellow", corner=(2.0, 49.0 + 49 * KM)),
    "another collection of the space": wheat("fellow", collection="other"),
    "opposite vector": wheat("fellow", at_cosine(-1)),
}


@pytest.mark.parametrize("fellow", FELLOWS.values(), ids=FELLOWS)
def test_what_can_be_compared_is_a_peer(fellow: Seen, state_of: StateOf) -> None:
    peers = peers_among(state_of([*crowd(6), fellow]))
    assert "fellow" in peer_ids(peers.similar)
    assert "fellow" in peer_ids(peers.nearby)


def test_without_a_code_the_name_decides_in_any_case(state_of: StateOf) -> None:
    anchor = replace(ANCHOR, crop_code=None, crop_name="épeautre")
    others = [
        wheat("capital", crop_code=None, crop_name="Épeautre"),
        wheat("upper", crop_code="EPE", crop_name="ÉPEAUTRE"),
        wheat("wheat"),
    ]
    peers = peers_among(state_of(others, anchor))
    assert peer_ids(peers.similar) == {"capital", "upper"}


def test_parcels_of_one_crop_and_place_count_on_both_sides_of_the_antimeridian(
    state_of: StateOf,
) -> None:
    anchor = replace(ANCHOR, corner=(179.98, -17.0))
    others = crowd(6, corner=(-179.9, -17.0))
    peers = peers_among(state_of([*others, wheat("far", corner=(-179.0, -17.0))], anchor))
    assert peer_ids(peers.nearby) == {seen.parcel_id for seen in others}
    assert peers.nearby is not None
    # 0.12 degrees of a parallel.
    expected = 0.12 / KM * math.cos(math.radians(16.995))
    assert peers.nearby.farthest_km == pytest.approx(expected, rel=1e-4)


def test_a_parcel_counts_once_by_its_observation_nearest_in_time(state_of: StateOf) -> None:
    often = [
        wheat("often", at_cosine(0.99), day="2023-05-19", indices={"NDVI": 0.9}),
        wheat("often", at_cosine(0.2), day="2023-05-31", indices={"NDVI": 0.1}),
        wheat("often", at_cosine(0.98), day="2023-06-12", indices={"NDVI": 0.9}),
    ]
    peers = peers_among(state_of([*often, *crowd(4, indices={"NDVI": 0.5})]))
    for group in (peers.similar, peers.nearby):
        assert group is not None
        assert len(group.parcels) == 5
        assert (group.start, group.end) == (moment(ANCHOR), moment(often[1]))
        # One of five below 0.5, four equal to it.
        assert group.standings["NDVI"].percentile == pytest.approx(60)
    assert peers.similar is not None
    assert peers.similar.lowest_score == pytest.approx(0.2, abs=1e-6)


def test_an_unreliable_observation_does_not_hide_a_reliable_one(state_of: StateOf) -> None:
    twice = [wheat("twice", day="2023-05-25"), wheat("twice", day="2023-05-29", reliable=False)]
    assert "twice" in peer_ids(peers_among(state_of(twice)).similar)


def ranked_crowd() -> list[Seen]:
    """Sixty parcels; the less they look like the anchor, the nearer they are to it."""
    return [
        wheat(
            f"w{n:02}",
            at_cosine(0.99 - n / 100),
            corner=(2.0, 49.0 + (60 - n) * 0.5 * KM),
            indices={"NDVI": n / 100, "NDMI": -n / 100},
        )
        for n in range(60)
    ]


def test_look_alikes_are_the_most_similar_and_neighbors_the_nearest(state_of: StateOf) -> None:
    anchor = replace(ANCHOR, indices={"NDVI": 0.2, "NDMI": -0.2})
    peers = peers_among(state_of(ranked_crowd(), anchor))
    assert peer_ids(peers.similar) == {f"w{n:02}" for n in range(50)}
    assert peer_ids(peers.nearby) == {f"w{n:02}" for n in range(10, 60)}
    assert peers.similar is not None
    assert peers.nearby is not None
    assert peers.similar.lowest_score == pytest.approx(0.5, abs=1e-6)
    assert peers.similar.farthest_km == pytest.approx(30, abs=1e-3)
    assert peers.nearby.farthest_km == pytest.approx(25, abs=1e-3)
    # Among 0.00 to 0.49, twenty lie below 0.20 and one is equal to it; among 0.10 to 0.59, ten.
    assert_standing(peers.similar.standings["NDVI"], 0.2, [n / 100 for n in range(50)])
    assert peers.similar.standings["NDVI"].percentile == pytest.approx(41)
    assert peers.nearby.standings["NDVI"].percentile == pytest.approx(21)
    assert peers.nearby.standings["NDMI"].percentile == pytest.approx(79)


@pytest.mark.parametrize("n", [0, 4])
def test_too_few_peers_tell_no_percentile_and_say_so(n: int, state_of: StateOf) -> None:
    peers = peers_among(state_of(crowd(n)))
    for group in (peers.similar, peers.nearby):
        assert group is not None
        assert group.too_few
        told = group.to_dict()
        assert (told["n"], told["too_few"], told["indices"]) == (n, True, {})


def test_five_peers_are_enough(state_of: StateOf) -> None:
    peers = peers_among(state_of(crowd(5, indices={"NDVI": 0.4, "NDMI": 0.3})))
    for group in (peers.similar, peers.nearby):
        assert group is not None
        assert not group.too_few
        assert group.standings["NDVI"].percentile == 100
        assert group.standings["NDMI"].percentile == 0


def test_an_index_that_was_not_measured_has_no_percentile(state_of: StateOf) -> None:
    some = crowd(3, "n", indices={"NDVI": 0.4})
    peers = peers_among(state_of([*crowd(4), *some], replace(ANCHOR, indices={"NDMI": 0.3})))
    assert peers.similar is not None
    # Seven peers, but only four of them have an NDMI, and the anchor has no NDVI.
    assert peers.similar.standings == {}


def test_an_interval_chooses_the_observation_that_is_held_against_the_kind(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    early = replace(ANCHOR, day="2023-04-24", vector=at_cosine(0.8))
    plant(settings, [ANCHOR, early, *crowd(6, "e", day="2023-04-20"), *crowd(5, "l")])
    with searching(settings) as searcher:
        where = ParcelFilter(interval=Interval.parse("2023-04"))
        april = peers_among(searcher.state("anchor", where=where))
        latest = peers_among(searcher.state("anchor"))
    assert (april.scene, latest.scene) == ("scene-2023-04-24", "scene-2023-05-29")
    assert peer_ids(april.similar) == {f"e{n:02}" for n in range(6)}
    assert peer_ids(latest.similar) == {f"l{n:02}" for n in range(5)}


# Parcels without a place ---------------------------------------------------------------------


def test_a_parcel_without_a_place_has_look_alikes_from_anywhere_and_no_neighbors(
    state_of: StateOf,
) -> None:
    far = crowd(3, "far", corner=(-60.0, -30.0))
    nowhere = crowd(3, "nowhere", corner=None)
    peers = peers_among(state_of([*far, *nowhere], replace(ANCHOR, corner=None)))
    assert peer_ids(peers.similar) == {seen.parcel_id for seen in (*far, *nowhere)}
    assert peers.nearby is None
    assert peers.similar is not None
    assert peers.similar.farthest_km is None


def test_a_parcel_without_a_crop_has_no_kind_but_a_suggestion(state_of: StateOf) -> None:
    anchor = replace(ANCHOR, crop_code=None, crop_name=None)
    peers = peers_among(state_of(crowd(6), anchor))
    assert peers.similar is None
    assert peers.nearby is None
    assert told(peers.crop) == ((None, None), WHEAT, 1.0, 6, None)
    assert peers.crop.declared_share is None


# The vote of the look-alikes -----------------------------------------------------------------


def told(vote: CropVote) -> tuple[object, ...]:
    declared = (vote.declared.code, vote.declared.name)
    return declared, (vote.suggested_code, vote.suggested_name), vote.share, vote.n, vote.agrees


def voters(*crops: tuple[str | None, str | None]) -> list[Seen]:
    """Parcels that look less and less like the anchor, in the order of the crops."""
    return [
        Seen(f"v{n:02}", at_cosine(0.95 - n / 50), crop_code=code, crop_name=name)
        for n, (code, name) in enumerate(crops)
    ]


MAIZE, BARLEY, NONE = ("MIS", "maize"), ("ORH", "winter barley"), (None, None)


def test_the_look_alikes_confirm_what_is_declared(state_of: StateOf) -> None:
    vote = peers_among(state_of(voters(WHEAT, MAIZE, WHEAT, WHEAT, BARLEY))).crop
    assert told(vote) == (WHEAT, WHEAT, pytest.approx(0.6), 5, True)
    assert vote.declared_share == pytest.approx(0.6)


def test_the_look_alikes_contradict_what_is_declared(state_of: StateOf) -> None:
    vote = peers_among(state_of(voters(WHEAT, MAIZE, MAIZE, MAIZE, BARLEY, MAIZE))).crop
    assert (vote.suggested_code, vote.suggested_name) == MAIZE
    assert vote.share == pytest.approx(4 / 6)
    assert (vote.n, vote.agrees) == (6, False)
    assert vote.declared_share == pytest.approx(1 / 6)


def test_half_of_the_look_alikes_are_not_enough_to_contradict(state_of: StateOf) -> None:
    vote = peers_among(state_of(voters(WHEAT, MAIZE, MAIZE, MAIZE, BARLEY, BARLEY))).crop
    assert told(vote) == (WHEAT, MAIZE, pytest.approx(0.5), 6, None)


def test_of_two_crops_with_as_many_votes_the_closer_one_is_suggested(state_of: StateOf) -> None:
    vote = peers_among(state_of(voters(BARLEY, MAIZE, WHEAT, WHEAT, MAIZE, NONE))).crop
    assert (vote.suggested_name, vote.n) == ("maize", 5)
    assert vote.share == pytest.approx(0.4)


def test_only_the_ten_closest_vote_and_those_that_declare_nothing_are_not_counted(
    state_of: StateOf,
) -> None:
    first_ten = [NONE] * 4 + [WHEAT] * 2 + [MAIZE] * 4
    vote = peers_among(state_of(voters(*first_ten, *[WHEAT] * 9))).crop
    assert (vote.suggested_name, vote.n) == ("maize", 6)
    assert vote.share == pytest.approx(4 / 6)


def test_fewer_than_five_votes_suggest_nothing(state_of: StateOf) -> None:
    vote = peers_among(state_of(voters(MAIZE, MAIZE, MAIZE, MAIZE, NONE, NONE))).crop
    assert told(vote) == (WHEAT, (None, None), None, 4, None)
    assert vote.to_dict()["too_few"] is True


def test_upper_and_lower_case_are_one_crop(state_of: StateOf) -> None:
    crops = (("mis", "Maize"), MAIZE, ("bth", "WINTER WHEAT"), WHEAT, ("Bth", "Winter wheat"))
    vote = peers_among(state_of(voters(*crops))).crop
    assert (vote.suggested_code, vote.agrees) == ("bth", True)
    assert vote.share == pytest.approx(0.6)


def test_far_away_and_long_ago_nobody_votes(state_of: StateOf) -> None:
    strangers = [
        replace(seen, corner=(4.0, 49.0)) if n % 2 else replace(seen, day="2023-03-01")
        for n, seen in enumerate(voters(*[MAIZE] * 12))
    ]
    vote = peers_among(state_of(strangers)).crop
    assert (vote.n, vote.share) == (0, None)


def test_names_decide_where_one_side_has_no_code(state_of: StateOf) -> None:
    anchor = replace(ANCHOR, crop_code=None)
    vote = peers_among(state_of(voters(*[WHEAT] * 5), anchor)).crop
    assert vote.agrees is True


def test_a_code_and_a_name_that_nothing_connects_neither_agree_nor_disagree(
    state_of: StateOf,
) -> None:
    only_a_code = replace(ANCHOR, crop_name=None)
    only_names = voters(*[(None, "winter wheat")] * 5)
    vote = peers_among(state_of(only_names, only_a_code)).crop
    assert vote.suggested_name == "winter wheat"
    assert vote.agrees is None


def test_a_code_means_what_its_own_collection_says(state_of: StateOf) -> None:
    others = [replace(seen, collection="abroad", crop_name="hop") for seen in voters(*[WHEAT] * 6)]
    state = peers_among(state_of(others))
    assert peer_ids(state.similar) == set()
    assert told(state.crop) == (WHEAT, ("BTH", "hop"), 1.0, 6, False)
    named = [replace(seen, crop_code="117", crop_name="winter wheat") for seen in others]
    state = peers_among(state_of(named))
    assert peer_ids(state.similar) == {seen.parcel_id for seen in named}
    assert state.crop.agrees is True


# The region -----------------------------------------------------------------------------------


def test_peers_are_sought_no_farther_than_enough_of_them_are_found(
    state_of: StateOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates_module, "ENOUGH_CANDIDATES", 6)
    near = crowd(6, "near", corner=(2.0, 49.0 + 4 * KM))
    middling = crowd(6, "middling", corner=(2.0, 49.0 + 14 * KM))
    far = crowd(6, "far", corner=(2.0, 49.0 + 49 * KM))
    for planted, within_km, found in (
        ([*near, *middling, *far], 5, near),
        ([*near[1:], *middling, *far], 15, [*near[1:], *middling]),
        ([*near[1:3], *middling[1:3], *far[:1]], 50, [*near[1:3], *middling[1:3], *far[:1]]),
    ):
        peers = peers_among(state_of(planted))
        assert peers.similar is not None
        assert peers.nearby is not None
        assert peer_ids(peers.similar) == {seen.parcel_id for seen in found}
        assert {peers.similar.within_km, peers.nearby.within_km} == {within_km}
        assert peers.crop.within_km == within_km


# Without an index ----------------------------------------------------------------------------


@dataclass
class _Place:
    settings: Settings

    def state(self) -> ParcelState:
        with searching(self.settings) as searcher:
            return searcher.state("anchor")


@pytest.fixture
def place(tmp_path: Path) -> _Place:
    return _Place(settings_in(tmp_path))


def assert_measured_but_not_compared(state: ParcelState, why: str) -> None:
    assert state.observations[-1].medians["NDVI"] == 0.5
    assert state.peers is None
    assert state.generation is None
    (note,) = [note for note in state.notes if "Not compared with other parcels" in note]
    assert why in note


def test_before_anything_is_published_a_state_is_told_without_peers(place: _Place) -> None:
    plant(place.settings, [ANCHOR, *crowd(6)], publish=False)
    assert_measured_but_not_compared(place.state(), "no published generation")


@pytest.mark.parametrize(
    "hidden",
    [{"vector": None}, {"reliable": False}, {"day": None}],
    ids=lambda case: next(iter(case)),
)
def test_a_parcel_without_a_usable_observation_is_not_compared(
    hidden: dict[str, object], place: _Place
) -> None:
    plant(place.settings, [replace(ANCHOR, **hidden), *crowd(6)])  # type: ignore[arg-type]
    assert_measured_but_not_compared(place.state(), "no reliable observation")


@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_with_a_damaged_index_a_state_is_told_without_peers(how: str, place: _Place) -> None:
    plant(place.settings, [ANCHOR, *crowd(6)])
    (index,) = place.settings.generations_dir.rglob("vectors.npy")
    if how == "missing":
        index.unlink()
    else:
        content = bytearray(index.read_bytes())
        content[len(content) // 2] ^= 1
        index.write_bytes(content)
    assert_measured_but_not_compared(place.state(), "index")


def test_peers_can_be_left_out(place: _Place) -> None:
    plant(place.settings, [ANCHOR, *crowd(6)])
    with searching(place.settings) as searcher:
        state = searcher.state("anchor", peers=False)
    assert state.peers is None
    assert state.notes == ()


def test_rows_that_wait_for_their_publication_take_no_peer_away(place: _Place) -> None:
    """As between two batches of a reindex, or after one that died."""
    plant(place.settings, [ANCHOR, *crowd(6)])
    before = peers_among(place.state())
    plant(place.settings, crowd(6, valid_fraction=0.9), publish=False)
    waiting = peers_among(place.state())
    assert peer_ids(before.similar) == {f"w{n:02}" for n in range(6)}
    assert peer_ids(waiting.similar) == peer_ids(before.similar)
    assert peer_ids(waiting.nearby) == peer_ids(before.nearby)


def test_a_newer_day_that_waits_for_its_publication_takes_no_peer_away(place: _Place) -> None:
    plant(place.settings, [ANCHOR, *crowd(6, day="2023-05-24")])
    plant(place.settings, crowd(6, day="2023-05-29"), publish=False)
    assert peer_ids(peers_among(place.state()).similar) == {f"w{n:02}" for n in range(6)}
