"""GDAL, which QGIS reads with as well, and OWSLib, on a collection of 5,000 parcels."""

from collections.abc import Iterator
from urllib.parse import parse_qs

import pytest
import shapely
from owslib.ogcapi.features import Features
from sqlalchemy import select
from starlette.types import ASGIApp, Receive, Scope, Send

from api.app import create_app
from indexer.catalog.database import open_catalog
from indexer.catalog.tables import Observation, Parcel
from indexer.settings import Settings
from tests.api import gis_reading
from tests.api.gis_reading import in_a_process
from tests.api.test_app import api_settings, served
from tests.drawn_index import draw_index

PARCELS = 5_000


class Recorder:
    """Notes the requests for items that pass through.

    Args:
        app: That answers them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.asked: list[dict[str, list[str]]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].endswith("/items"):
            self.asked.append(parse_qs(scope["query_string"].decode()))
        await self.app(scope, receive, send)

    def pages(self) -> list[dict[str, list[str]]]:
        """The parameters of each page that was asked for since the last call."""
        asked, self.asked = self.asked, []
        return asked


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return draw_index(tmp_path_factory.mktemp("index"), PARCELS)


@pytest.fixture(scope="module")
def service(index: Settings) -> Iterator[tuple[str, Recorder]]:
    recorder = Recorder(create_app(api_settings(index)))
    with served(recorder) as address:
        yield address, recorder


def stored(index: Settings, *conditions: object) -> list[str]:
    """Ids of parcels, as SQL has them."""
    engine = open_catalog(index)
    with engine.connect() as connection:
        statement = select(Parcel.parcel_id).join(Observation, Observation.parcel_id == Parcel.id)
        found = list(connection.scalars(statement.where(*conditions)))  # type: ignore[arg-type]
    engine.dispose()
    return sorted(found)


def test_gdal_reads_every_parcel_over_several_pages(
    index: Settings, service: tuple[str, Recorder]
) -> None:
    address, recorder = service
    assert in_a_process(gis_reading.layers, address) == ["demo"]
    recorder.pages()
    found = in_a_process(gis_reading.table, address, "demo", PAGE_SIZE=700)
    # The first is a look at the columns.
    assert len(recorder.pages()) >= PARCELS / 700
    assert sorted(found["id"]) == stored(index)
    engine = open_catalog(index)
    with engine.connect() as connection:
        row = connection.execute(select(Parcel).where(Parcel.parcel_id == "p001234")).one()
    engine.dispose()
    at = found["id"].index("p001234")
    assert found["crop:name"][at] == row.crop_name
    assert found["metrics:area"][at] == row.area_m2
    assert found["farm"][at] == row.attributes["farm"]
    assert shapely.from_wkb(found["geometry"][at]).equals_exact(
        shapely.from_wkb(row.geometry), tolerance=1e-7
    )


def test_gdal_leaves_rectangles_and_equal_properties_to_the_service(
    index: Settings, service: tuple[str, Recorder]
) -> None:
    address, recorder = service
    found = in_a_process(
        gis_reading.table,
        address,
        "demo",
        PAGE_SIZE=20,
        bbox=(2.0, 48.0, 2.3, 48.01),
        where="\"crop:name\" = 'maize' AND farm = 5 AND NDVI > 0.3",
    )
    inside = (Parcel.west <= 2.3, Parcel.south <= 48.01)
    same = (Parcel.crop_name == "maize", Parcel.attributes["farm"].as_integer() == 5)
    greener = Observation.indices[("NDVI", "median")].as_float() > 0.3
    expected = stored(index, *inside, *same, greener)
    assert expected
    assert sorted(found["id"]) == expected
    (filtered,) = [page for page in recorder.pages() if "crop:name" in page]
    assert filtered["crop:name"] == ["maize"]
    assert filtered["farm"] == ["5"]
    assert [float(side) for side in filtered["bbox"][0].split(",")] == [2.0, 48.0, 2.3, 48.01]


def test_owslib_reads_every_parcel_page_by_page(
    index: Settings, service: tuple[str, Recorder]
) -> None:
    client = Features(service[0])
    assert client.feature_collections() == ["demo"]
    assert "cql2-text" in " ".join(client.conformance()["conformsTo"])
    assert set(client.collection_queryables("demo")["properties"]) >= {"crop:name", "farm"}
    found: list[str] = []
    page = client.collection_items("demo", limit=900)
    while True:
        found += [feature["id"] for feature in page["features"]]
        following = [link["href"] for link in page["links"] if link["rel"] == "next"]
        if not following:
            break
        (after,) = parse_qs(following[0].partition("?")[2])["after"]
        page = client.collection_items("demo", limit=900, after=after)
    assert sorted(found) == stored(index)
    # One answer of all of them is sent while it is read.
    assert len(client.collection_items("demo", limit=PARCELS)["features"]) == PARCELS


def test_owslib_filters_with_cql2(index: Settings, service: tuple[str, Recorder]) -> None:
    client = Features(service[0])
    page = client.collection_items(
        "demo",
        limit=1000,
        bbox=[2.0, 48.0, 2.3, 48.02],
        filter="\"crop:name\" IN ('maize', 'rapeseed') AND NDVI BETWEEN 0.25 AND 0.75",
    )
    median = Observation.indices[("NDVI", "median")].as_float()
    expected = stored(
        index,
        Parcel.west <= 2.3,
        Parcel.south <= 48.02,
        Parcel.crop_name.in_(("maize", "rapeseed")),
        median.between(0.25, 0.75),
    )
    assert 0 < len(expected) < 1000
    assert sorted(feature["id"] for feature in page["features"]) == expected
