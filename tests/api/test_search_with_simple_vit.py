"""``POST /search`` with an image, where an encoder of one's own made the index."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from indexer.reindex import ReindexOptions, reindex
from tests.api.test_app import api_settings
from tests.indexer.flight import FIELD_PX, KINDS, flight, train, write_fields, write_flight
from tests.retriever.planted import settings_in
from tests.synthetic import write_geotiff


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("own")
    image = write_flight(folder / "flight.tif")
    encoder = train(image, folder / "own.pt")
    index = settings_in(folder / "data")
    options = ReindexOptions(
        encoder=f"simple-vit:{encoder}",
        parcels=write_fields(folder / "fields.geojson"),
        device="cpu",
    )
    reindex(index, [image], options)
    with TestClient(create_app(api_settings(index))) as client:
        yield client


@pytest.mark.parametrize("column", [0, 1, 2])
def test_an_image_finds_parcels_of_its_kind(
    client: TestClient, tmp_path: Path, column: int
) -> None:
    field = flight(seed=4)[:, :FIELD_PX, column * FIELD_PX : (column + 1) * FIELD_PX]
    content = write_flight(tmp_path / "question.tif", field).read_bytes()
    response = client.post(
        "/search", files={"image": ("question.tif", content, "image/tiff")}, data={"k": "1"}
    )
    assert response.status_code == 200, response.text
    (match,) = response.json()["features"]
    assert match["id"].startswith(KINDS[column])


def test_an_image_of_other_bands_is_refused(client: TestClient, tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "few.tif", flight()[:3], ["450 nm", "530 nm", "560 nm"])
    response = client.post("/search", files={"image": ("few.tif", path.read_bytes(), "image/tiff")})
    assert response.status_code == 422
    assert response.json()["kind"] == "missing-band"
    assert str(tmp_path) not in response.text


def test_an_image_of_another_format_is_refused(client: TestClient) -> None:
    response = client.post(
        "/search", files={"image": ("a.npy", b"\x93NUMPY\x01\x00", "image/tiff")}
    )
    assert response.status_code == 422
    assert response.json()["kind"] == "unreadable"


def test_a_parcel_of_any_bands_has_a_picture(client: TestClient) -> None:
    response = client.get("/collections/parcels/items/beet-00/preview.png?size=64")
    assert response.status_code == 200
    assert response.content.startswith(b"\x89PNG")


def test_a_parcels_state_has_no_indices(client: TestClient) -> None:
    answer = client.get("/collections/parcels/items/beet-00").json()
    assert answer["id"] == "beet-00"
