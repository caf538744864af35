"""Drawn parcels through the whole of Parcelle, their numbers worked out once more from pixels.

The medians come straight from the GeoTIFFs: every pixel weighs as much as of it lies inside the
parcel, by shapely. The vectors, and whatever else a peer needs, come from plain SQL. A network of
random weights tells crops apart no better than chance, so what look-alikes say of a crop is tried
on vectors that are the mean reflectance of each parcel, which the drawn crops do differ in.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import shapely
from sqlalchemy import text

from indexer.catalog.database import opened_catalog
from indexer.catalog.tables import UtcDateTime
from indexer.landscape import Landscape, draw_landscape
from indexer.reindex import ReindexOptions, reindex
from indexer.settings import Settings
from retriever.peers import Peers
from retriever.queries import Interval, ParcelFilter
from retriever.search import ParcelSearcher
from retriever.state import ParcelState
from tests.retriever.planted import FloatArray, Seen, plant, searching, settings_in

Floats = npt.NDArray[np.float64]

DATES = (date(2023, 5, 14), date(2023, 5, 24), date(2023, 6, 20))
"""The second has a cloud; the first two lie within fifteen days."""
MAY = ParcelFilter(interval=Interval.parse("2023-05"))
BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
CLEAR = (4, 5)
"""Classes of vegetation and of bare soil."""


@dataclass(frozen=True)
class Row:
    """An observation as SQL tells it."""

    parcel_id: str
    crop: str
    moment: datetime
    reliable: bool
    vector: Floats | None
    place: tuple[float, float]
    median: float | None
    """NDVI, worked out from the pixels."""


# Pixels --------------------------------------------------------------------------------------


def shares_inside(
    outline: shapely.Geometry, transform: rasterio.Affine, shape: tuple[int, int]
) -> Floats:
    """Share of each pixel inside an outline, by cutting it with the square of each pixel."""
    west, south, east, north = outline.bounds
    shares = np.zeros(shape)
    side = transform.a
    first, last = (int((x - transform.c) // side) for x in (west, east))
    top, bottom = (int((transform.f - y) // side) for y in (north, south))
    rows, columns = np.mgrid[max(top, 0) : bottom + 1, max(first, 0) : last + 1]
    rows, columns = np.minimum(rows, shape[0] - 1), np.minimum(columns, shape[1] - 1)
    left, upper = transform.c + columns * side, transform.f - rows * side
    pixels = shapely.box(left, upper - side, left + side, upper)
    shares[rows, columns] = shapely.area(shapely.intersection(pixels, outline)) / side**2
    return shares


def weighted_median(values: Floats, weights: Floats) -> float:
    """Where half of the weight is reached, between the middles of the weights of two values."""
    order = np.lexsort((weights, values))
    middles = np.cumsum(weights[order]) - weights[order] / 2
    half = (middles[0] + middles[-1]) / 2
    return float(np.interp(half, middles, values[order]))


@dataclass(frozen=True)
class Scene:
    """One GeoTIFF in memory."""

    reflectance: Floats
    """Shape ``(12, y, x)``."""
    clear: npt.NDArray[np.bool_]
    transform: rasterio.Affine
    crs: object

    @classmethod
    def read(cls, path: Path) -> "Scene":
        with rasterio.open(path) as file:
            dn = dict(zip(file.descriptions, file.read().astype(np.float64), strict=True))
            # Baseline 05.09 stores reflectance * 10,000 + 1,000.
            reflectance = (np.stack([dn[band] for band in BANDS]) - 1000) / 10_000
            return cls(reflectance, np.isin(dn["SCL"], CLEAR), file.transform, file.crs)

    @cached_property
    def ndvi(self) -> Floats:
        red, nir = self.reflectance[BANDS.index("B04")], self.reflectance[BANDS.index("B08")]
        return np.asarray((nir - red) / (nir + red))

    def median_ndvi(self, outline: shapely.Geometry) -> float | None:
        weights = np.where(self.clear, self.weights(outline), 0)
        counted = weights > 0
        return weighted_median(self.ndvi[counted], weights[counted]) if counted.any() else None

    def mean_reflectance(self, outline: shapely.Geometry) -> Floats:
        weights = np.where(self.clear, self.weights(outline), 0)
        return np.asarray((self.reflectance * weights).sum(axis=(1, 2)) / weights.sum())

    def weights(self, outline: shapely.Geometry) -> Floats:
        height, width = self.clear.shape
        return shares_inside(outline, self.transform, (height, width))


# The landscape, and what SQL and pixels say of it --------------------------------------------


@pytest.fixture(scope="module")
def landscape(tmp_path_factory: pytest.TempPathFactory) -> Landscape:
    return draw_landscape(
        tmp_path_factory.mktemp("landscape"), size_px=200, dates=DATES, parcels_across=8
    )


@pytest.fixture(scope="module")
def scenes(landscape: Landscape) -> dict[date, Scene]:
    return dict(zip(DATES, map(Scene.read, landscape.scenes), strict=True))


@pytest.fixture(scope="module")
def outlines(landscape: Landscape, scenes: dict[date, Scene]) -> dict[str, shapely.Geometry]:
    """Each parcel in the scenes' reference system."""
    parcels = gpd.read_file(landscape.parcels_file).to_crs(scenes[DATES[0]].crs)
    return dict(zip(parcels["id"], parcels.geometry, strict=True))


@pytest.fixture(scope="module")
def index(
    tmp_path_factory: pytest.TempPathFactory, landscape: Landscape, tiny_croma: str
) -> Settings:
    settings = settings_in(tmp_path_factory.mktemp("index"))
    options = ReindexOptions(
        encoder=tiny_croma, parcels=landscape.parcels_file, collection="demo", device="cpu"
    )
    reindex(settings, landscape.scenes, options)
    return settings


@pytest.fixture(scope="module")
def searcher(index: Settings) -> Iterator[ParcelSearcher]:
    with searching(index) as searcher:
        yield searcher


@pytest.fixture(scope="module")
def rows(
    index: Settings, scenes: dict[date, Scene], outlines: dict[str, shapely.Geometry]
) -> list[Row]:
    statement = """
        SELECT p.parcel_id, p.crop_name, o.acquired_at, o.reliable, e.vector,
               (p.west + p.east) / 2, (p.south + p.north) / 2
        FROM observations o JOIN parcels p ON p.id = o.parcel_id
        LEFT JOIN embeddings e ON e.observation_id = o.id
        ORDER BY p.parcel_id, o.acquired_at
    """
    columns = text(statement).columns(acquired_at=UtcDateTime)
    with opened_catalog(index) as engine, engine.connect() as connection:
        found = connection.execute(columns).all()
    return [
        Row(
            parcel_id=parcel_id,
            crop=crop,
            moment=moment,
            reliable=bool(reliable),
            vector=None if vector is None else np.frombuffer(vector, "<f4").astype(np.float64),
            place=(longitude, latitude),
            median=scenes[moment.date()].median_ndvi(outlines[parcel_id]),
        )
        for parcel_id, crop, moment, reliable, vector, longitude, latitude in found
    ]


def of_parcel(rows: Sequence[Row], parcel_id: str) -> list[Row]:
    return [row for row in rows if row.parcel_id == parcel_id]


def usable(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.reliable and row.vector is not None]


# The numbers of a state ----------------------------------------------------------------------


def test_the_landscape_tries_what_it_should(rows: list[Row]) -> None:
    """Parcels under the cloud, parcels too small for their pixels, crops with enough peers."""
    reliable = {day: sum(row.reliable for row in rows if row.moment.date() == day) for day in DATES}
    assert reliable[DATES[1]] < reliable[DATES[0]] == reliable[DATES[2]] < len(rows) / 3
    crops = Counter(row.crop for row in usable(rows) if row.moment.date() == DATES[2])
    assert max(crops.values()) > 10
    assert min(crops.values()) <= 5


def test_medians_are_those_of_the_pixels(searcher: ParcelSearcher, rows: list[Row]) -> None:
    for parcel_id in {row.parcel_id for row in rows}:
        told = [seen.medians.get("NDVI") for seen in searcher.state(parcel_id).observations]
        expected = [row.median for row in of_parcel(rows, parcel_id)]
        assert told == pytest.approx(expected, abs=1e-5)


def test_trends_and_peaks_are_those_of_the_pixels(
    searcher: ParcelSearcher, rows: list[Row]
) -> None:
    trends = 0
    for parcel_id in {row.parcel_id for row in rows}:
        state = searcher.state(parcel_id, peers=False)
        own = [row for row in of_parcel(rows, parcel_id) if row.reliable]
        assert_peak(state, own)
        if len(own) < 3:
            assert state.trend is None
            continue
        trends += 1
        assert state.trend is not None
        day, median = (np.array(of) for of in ([days(row) for row in own], ndvi_of(own)))
        rises, runs = (of[[1, 2, 2]] - of[[0, 0, 1]] for of in (median, day))
        assert state.trend.per_day == pytest.approx(np.sort(rises / runs)[1], abs=1e-6)
    assert trends > 40


def days(row: Row) -> float:
    return row.moment.timestamp() / 86_400


def ndvi_of(rows: Sequence[Row]) -> list[float]:
    return [row.median for row in rows if row.median is not None]


def assert_peak(state: ParcelState, own: Sequence[Row]) -> None:
    if not own:
        assert state.peak is None
        return
    assert state.peak is not None
    medians = ndvi_of(own)
    assert state.peak.median == pytest.approx(max(medians), abs=1e-5)
    assert state.peak.acquired_at == own[int(np.argmax(medians))].moment


def test_the_last_change_is_the_cosine_of_the_stored_vectors(
    searcher: ParcelSearcher, rows: list[Row]
) -> None:
    for parcel_id in {row.parcel_id for row in rows}:
        change = searcher.state(parcel_id, peers=False).last_change
        own = usable(of_parcel(rows, parcel_id))
        if len(own) < 2:
            assert change is None
            continue
        before, after = own[-2:]
        assert change is not None
        assert (change.start, change.end) == (before.moment, after.moment)
        assert before.vector is not None
        assert after.vector is not None
        assert change.score == pytest.approx(float(before.vector @ after.vector), abs=1e-5)
        expected = ndvi_of([after])[0] - ndvi_of([before])[0]
        assert change.indices["NDVI"] == pytest.approx(expected, abs=1e-5)


# Peers ---------------------------------------------------------------------------------------


def candidates(rows: Sequence[Row], anchor: Row) -> list[Row]:
    """One observation of each other parcel, closest vector first; all lie within a few km."""
    near = [
        row
        for row in usable(rows)
        if row.parcel_id != anchor.parcel_id and abs(days(row) - days(anchor)) <= 15
    ]
    # Those nearest in time come last, and so are the ones that stay.
    near.sort(key=lambda row: -abs(days(row) - days(anchor)))
    chosen = list({row.parcel_id: row for row in near}.values())
    assert anchor.vector is not None
    similarities = np.array([row.vector for row in chosen]) @ anchor.vector
    return [chosen[place] for place in np.argsort(-similarities)]


def assert_peers(peers: Peers | None, rows: Sequence[Row], anchor: Row) -> None:
    assert peers is not None
    assert peers.acquired_at == anchor.moment
    others = candidates(rows, anchor)
    kind = [row for row in others if row.crop == anchor.crop]
    for group in (peers.similar, peers.nearby):
        # A crop has fewer than fifty parcels here, and so both groups hold all of them.
        assert group is not None
        assert {parcel_id for _, parcel_id in group.parcels} == {row.parcel_id for row in kind}
        assert group.farthest_km is not None
        assert group.farthest_km < 3
        if len(kind) < 5:
            assert group.standings == {}
            continue
        standing = group.standings["NDVI"]
        medians = np.array(ndvi_of(kind))
        (value,) = ndvi_of([anchor])
        assert standing.percentile == pytest.approx(100 * np.mean(medians < value), abs=1e-6)
        told = [standing.p10, standing.median, standing.p90]
        assert told == pytest.approx(np.percentile(medians, [10, 50, 90]), abs=1e-5)
    ten = Counter(row.crop for row in others[:10])
    assert peers.crop.n == 10
    assert peers.crop.share == max(ten.values()) / 10
    assert peers.crop.suggested_name is not None
    assert ten[peers.crop.suggested_name] == max(ten.values())
    agrees = peers.crop.suggested_name == anchor.crop
    assert peers.crop.share == pytest.approx(max(ten.values()) / sum(ten.values()))
    assert peers.crop.agrees is (agrees or None if peers.crop.share <= 0.5 else agrees)


@pytest.mark.parametrize("where", [ParcelFilter(), MAY], ids=["June", "May"])
def test_peers_are_those_of_sql_and_pixels(
    where: ParcelFilter, searcher: ParcelSearcher, rows: list[Row]
) -> None:
    held = 0
    for parcel_id in {row.parcel_id for row in rows}:
        state = searcher.state(parcel_id, where=where)
        month = 5 if where is MAY else 12
        own = [row for row in usable(of_parcel(rows, parcel_id)) if row.moment.month <= month]
        if not own:
            assert state.peers is None
            continue
        held += 1
        assert_peers(state.peers, rows, own[-1])
    assert held > 60


def test_in_may_a_clouded_peer_stands_with_an_earlier_day(
    searcher: ParcelSearcher, rows: list[Row]
) -> None:
    clear = [row for row in usable(rows) if row.moment.date() == DATES[1]]
    common = Counter(row.crop for row in clear).most_common(1)[0][0]
    anchor = next(row for row in clear if row.crop == common)
    peers = searcher.state(anchor.parcel_id, where=MAY).peers
    assert peers is not None
    assert peers.similar is not None
    assert peers.similar.start is not None
    assert peers.similar.end is not None
    assert (peers.similar.start.date(), peers.similar.end.date()) == DATES[:2]


# A crop that was declared wrongly ------------------------------------------------------------


def spectral_vectors(
    scenes: dict[date, Scene], outlines: dict[str, shapely.Geometry]
) -> dict[str, FloatArray]:
    """Unit vectors of the mean reflectance on the two clear dates, standardized by band."""
    clear = [scenes[DATES[0]], scenes[DATES[2]]]
    spectra = np.array(
        [
            np.concatenate([scene.mean_reflectance(outline) for scene in clear])
            for outline in outlines.values()
        ]
    )
    spectra = (spectra - spectra.mean(axis=0)) / spectra.std(axis=0)
    padded = np.zeros((len(spectra), 512), np.float32)
    padded[:, : spectra.shape[1]] = spectra / np.linalg.norm(spectra, axis=1, keepdims=True)
    return dict(zip(outlines, padded, strict=True))


@pytest.fixture(scope="module")
def spectra(
    scenes: dict[date, Scene], outlines: dict[str, shapely.Geometry]
) -> dict[str, FloatArray]:
    return spectral_vectors(scenes, outlines)


def vote_for(
    parcel_id: str, declared: str, crops: dict[str, str], spectra: dict[str, FloatArray], at: Path
) -> Peers:
    """The peers of a parcel once something is declared of it, over vectors of reflectance."""
    settings = settings_in(at)
    declarations = {**crops, parcel_id: declared}
    plant(settings, [Seen(one, spectra[one], crop_name=crop) for one, crop in declarations.items()])
    with searching(settings) as searcher:
        peers = searcher.state(parcel_id).peers
    assert peers is not None
    return peers


@pytest.mark.parametrize(
    ("crop", "declared"),
    # Ten look-alikes vote, and so only of these is there a majority for each parcel.
    [("winter wheat", "maize"), ("winter wheat", "winter barley"), ("winter barley", "rapeseed")],
)
def test_a_crop_that_was_declared_wrongly_is_contradicted_by_look_alikes_that_grow_the_true_one(
    crop: str,
    declared: str,
    landscape: Landscape,
    spectra: dict[str, FloatArray],
    tmp_path: Path,
) -> None:
    parcel_id = typical(crop, landscape.crops, spectra)
    honest = vote_for(parcel_id, crop, landscape.crops, spectra, tmp_path / "honest")
    assert (honest.crop.suggested_name, honest.crop.agrees) == (crop, True)
    wrong = vote_for(parcel_id, declared, landscape.crops, spectra, tmp_path / "wrong")
    assert (wrong.crop.declared.name, wrong.crop.suggested_name) == (declared, crop)
    assert wrong.crop.agrees is False
    # The look-alikes are those they were: what is declared of a parcel moves no vector.
    assert wrong.crop.share == honest.crop.share


def typical(crop: str, crops: dict[str, str], spectra: dict[str, FloatArray]) -> str:
    """The parcel of a crop that is nearest to the mean of all parcels of the crop."""
    growing = [parcel_id for parcel_id in crops if crops[parcel_id] == crop]
    mean = np.mean([spectra[parcel_id] for parcel_id in growing], axis=0)
    return max(growing, key=lambda parcel_id: float(spectra[parcel_id] @ mean))


def test_a_wrong_declaration_in_the_parcels_file_changes_the_kind_and_not_the_vote(
    landscape: Landscape,
    searcher: ParcelSearcher,
    rows: list[Row],
    tiny_croma: str,
    tmp_path: Path,
) -> None:
    wheat = next(row for row in usable(rows) if row.crop == "winter wheat")
    parcels = json.loads(landscape.parcels_file.read_text(encoding="utf-8"))
    for feature in parcels["features"]:
        if feature["id"] == wheat.parcel_id:
            feature["properties"].update({"crop:name": "rapeseed", "crop:code": "CZH"})
    altered = tmp_path / "parcels.geojson"
    altered.write_text(json.dumps(parcels), encoding="utf-8")
    settings = settings_in(tmp_path / "index")
    options = ReindexOptions(encoder=tiny_croma, parcels=altered, collection="demo", device="cpu")
    reindex(settings, landscape.scenes[-1:], options)
    with searching(settings) as other:
        wrong = other.state(wheat.parcel_id).peers
    assert wrong is not None
    assert wrong.similar is not None
    rapeseed = {row.parcel_id for row in usable(rows) if row.crop == "rapeseed"}
    assert {parcel_id for _, parcel_id in wrong.similar.parcels} == rapeseed
    assert (wrong.crop.declared.code, wrong.crop.declared.name) == ("CZH", "rapeseed")
    assert wrong.crop.share is not None
    agrees = wrong.crop.suggested_name == "rapeseed"
    assert wrong.crop.agrees is (agrees or None if wrong.crop.share <= 0.5 else agrees)


def test_the_shared_demo_index_tells_the_same_as_its_pixels(
    demo_landscape: Landscape, demo_index: Settings
) -> None:
    read = [Scene.read(path) for path in demo_landscape.scenes]
    parcels = gpd.read_file(demo_landscape.parcels_file).to_crs(read[0].crs)
    with searching(demo_index) as searcher:
        for parcel_id, outline in zip(parcels["id"], parcels.geometry, strict=True):
            seen = searcher.state(parcel_id, peers=False).observations
            told = [one.medians.get("NDVI") for one in seen]
            expected = [scene.median_ndvi(outline) for scene in read]
            assert told == pytest.approx(expected, abs=1e-5)
