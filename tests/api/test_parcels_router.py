import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.links import CRS84
from api.settings import ApiSettings
from indexer.landscape import Landscape
from indexer.reindex import ReindexOptions, reindex
from indexer.settings import Settings
from indexer.spectral_indices import INDICES
from retriever.queries import Bbox
from retriever.search import ParcelSearcher
from tests.schemas import copy_index

PARCEL = "/collections/demo/items/demo-003"


@pytest.fixture(scope="module")
def two_collections(
    tmp_path_factory: pytest.TempPathFactory,
    demo_index: Settings,
    demo_landscape: Landscape,
    tiny_croma: str,
) -> Settings:
    """The demo index and, in the same space, two parcels with slashes in their ids."""
    folder = tmp_path_factory.mktemp("two")
    copy_index(demo_index.data_dir, folder / "index")
    declared = json.loads(demo_landscape.parcels_file.read_text())
    declared["features"] = declared["features"][:2]
    for number, feature in enumerate(declared["features"], start=1):
        feature["id"] = feature["properties"]["id"] = f"4801/{number}"
        feature["properties"]["datetime"] = "an attribute of that name"
    parcels = folder / "parcels.geojson"
    parcels.write_text(json.dumps(declared))
    settings = demo_index.model_copy(update={"data_dir": folder / "index"})
    options = ReindexOptions(encoder=tiny_croma, parcels=parcels, collection="czech", device="cpu")
    reindex(settings, demo_landscape.scenes[:1], options)
    return settings


@pytest.fixture(scope="module")
def client(two_collections: Settings) -> Iterator[TestClient]:
    settings = ApiSettings(**two_collections.model_dump(), api_keys="")
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture(scope="module")
def searcher(two_collections: Settings) -> Iterator[ParcelSearcher]:
    searcher = ParcelSearcher.open(two_collections)
    yield searcher
    searcher.close()


def features(client: TestClient, path: str = f"{PARCEL}/similar", **query: Any) -> list[Any]:  # noqa: ANN401
    response = client.get(path, params={"k": 1000, **query})
    assert response.status_code == 200, response.text
    found: list[Any] = response.json()["features"]
    return found


def ids(found: list[Any]) -> set[str]:
    return {feature["id"] for feature in found}


def as_json(answer: dict[str, Any]) -> Any:  # noqa: ANN401
    return json.loads(json.dumps(answer))


# Similar parcels -----------------------------------------------------------------------------


def test_similar_answers_what_the_searcher_answers(
    client: TestClient, searcher: ParcelSearcher
) -> None:
    response = client.get(f"{PARCEL}/similar?k=5")
    expected = searcher.similar_by_id("demo-003", collection="demo", k=5)
    assert response.headers["content-type"] == "application/geo+json"
    assert response.json() == as_json(expected.to_geojson())
    assert [match["properties"]["rank"] for match in response.json()["features"]] == [1, 2, 3, 4, 5]


def test_every_parameter_reaches_the_searcher(client: TestClient) -> None:
    text = "2.0,49.2,2.1,49.3"
    query: dict[str, Any] = {
        "k": 3,
        "crop": ["winter wheat", "MIS"],
        "bbox": text,
        "datetime": "2023-04/2023-05",
        "collections": "demo,czech",
        "observations": "true",
    }
    answer = client.get(f"{PARCEL}/similar", params=query).json()
    assert answer["query"]["k"] == 3
    assert answer["query"]["filter"] == {
        "collections": ["demo", "czech"],
        "crops": ["winter wheat", "MIS"],
        "bbox": str(Bbox.parse(text)),
        "datetime": "2023-04/2023-05",
    }


def test_a_parcel_is_never_its_own_match(client: TestClient, demo_landscape: Landscape) -> None:
    for observations in ("false", "true"):
        found = ids(features(client, observations=observations, collections="demo"))
        assert found == set(demo_landscape.crops) - {"demo-003"}


def test_observations_are_returned_one_by_one_when_asked_for(client: TestClient) -> None:
    each, best = features(client, observations="true"), features(client)
    assert len(each) > len(best) == len(ids(best))


def test_only_parcels_of_the_crops_are_returned(
    client: TestClient, demo_landscape: Landscape
) -> None:
    wanted = {"rapeseed", "maize"}
    expected = {name for name, crop in demo_landscape.crops.items() if crop in wanted}
    found = features(client, crop=["Rapeseed", "MIS"], collections="demo")
    assert ids(found) == expected - {"demo-003"}


def test_only_parcels_that_touch_the_bbox_are_returned(client: TestClient) -> None:
    parcel = client.get("/collections/demo/items/demo-009").json()
    # A corner of its outline, taken as a rectangle without extent.
    longitude, latitude = parcel["geometry"]["coordinates"][0][0]
    found = ids(features(client, bbox=f"{longitude},{latitude},{longitude},{latitude}"))
    assert "demo-009" in found
    assert len(found) < 4


def test_only_observations_in_the_interval_are_returned(client: TestClient) -> None:
    found = features(client, datetime="2023-04", observations="true")
    assert found
    assert {match["properties"]["datetime"][:7] for match in found} == {"2023-04"}


def test_matches_come_from_every_collection_of_the_space(client: TestClient) -> None:
    found = {match["properties"]["collection"] for match in features(client)}
    assert found == {"demo", "czech"}


@pytest.mark.parametrize("wanted", ["demo", "czech"])
def test_collections_narrow_the_search(client: TestClient, wanted: str) -> None:
    found = {match["properties"]["collection"] for match in features(client, collections=wanted)}
    assert found == {wanted}


def test_a_filter_that_nothing_passes_gives_an_empty_answer_that_says_so(
    client: TestClient,
) -> None:
    answer = client.get(f"{PARCEL}/similar?crop=vineyard&k=2").json()
    assert answer["features"] == []
    assert answer["numberReturned"] == 0
    assert "Only 0 parcels match; 2 were asked for." in answer["notes"]


# One parcel ----------------------------------------------------------------------------------


def test_a_parcel_is_a_feature_with_fiboa_properties(
    client: TestClient, demo_landscape: Landscape
) -> None:
    declared = json.loads(demo_landscape.parcels_file.read_text())["features"][2]
    response = client.get(PARCEL)
    parcel = response.json()
    assert response.headers["content-type"] == "application/geo+json"
    assert parcel["type"] == "Feature"
    assert parcel["id"] == declared["id"] == "demo-003"
    assert parcel["geometry"]["type"] == "Polygon"
    assert parcel["properties"].keys() == {
        "cluster",
        "cluster:number",
        "cluster:score",
        "collection",
        "id",
        "crop:code",
        "crop:name",
        "metrics:area",
        "variety",
        "datetime",
        "valid_fraction",
        "reliable",
        *INDICES,
    }
    for name in ("crop:code", "crop:name", "variety"):
        assert parcel["properties"][name] == declared["properties"][name]
    assert parcel["properties"]["datetime"].startswith("2023-08-12T10:50:31")
    state = client.get(f"{PARCEL}/state").json()
    (latest,) = [one for one in state["observations"] if one["datetime"].startswith("2023-08-12")]
    assert parcel["properties"]["NDVI"] == round(latest["indices"]["NDVI"]["median"], 4)


def test_the_links_of_a_parcel_lead_somewhere(client: TestClient) -> None:
    for path in (PARCEL, "/collections/czech/items/4801%2F1"):
        links = client.get(path).json()["links"]
        assert [link["rel"] for link in links] == [
            "self",
            "collection",
            "similar",
            "state",
            "preview",
        ]
        for link in links:
            response = client.get(link["href"])
            assert response.status_code == 200, link
            assert response.headers["content-type"] == link["type"]


def test_the_only_reference_system_may_be_named_for_a_parcel(client: TestClient) -> None:
    for query in ("", f"?crs={CRS84}"):
        response = client.get(f"{PARCEL}{query}")
        assert response.status_code == 200
        assert response.headers["Content-Crs"] == f"<{CRS84}>"
    refused = client.get(f"{PARCEL}?crs=http://www.opengis.net/def/crs/EPSG/0/4326")
    assert (refused.status_code, refused.json()["kind"]) == (400, "invalid-request")


@pytest.mark.parametrize("written", ["4801/1", "4801%2F1"])
def test_an_id_may_hold_a_slash(client: TestClient, written: str) -> None:
    path = f"/collections/czech/items/{written}"
    assert client.get(path).json()["id"] == "4801/1"
    assert client.get(f"{path}/state").json()["id"] == "4801/1"
    assert client.get(f"{path}/similar").json()["query"]["id"] == "4801/1"


def test_an_attribute_does_not_hide_a_property_of_ours(client: TestClient) -> None:
    parcel = client.get("/collections/czech/items/4801%2F1").json()
    assert parcel["properties"]["datetime"].startswith("2023-04-24T")


def test_state_answers_what_the_searcher_answers(
    client: TestClient, searcher: ParcelSearcher
) -> None:
    response = client.get(f"{PARCEL}/state")
    expected = searcher.state("demo-003", collection="demo").to_dict()
    assert response.headers["content-type"] == "application/json"
    assert response.json() == as_json(expected)
    assert len(response.json()["observations"]) == 3


def test_state_keeps_to_the_interval(client: TestClient) -> None:
    seen = client.get(f"{PARCEL}/state?datetime=2023-08-12/..").json()["observations"]
    assert [observation["datetime"][:10] for observation in seen] == ["2023-08-12"]


# What cannot be answered ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "kind", "said"),
    [
        ("/collections/demo/items/demo-03", 404, "parcel-not-found", "demo-003"),
        ("/collections/demo/items/demo-03/similar", 404, "parcel-not-found", "demo-003"),
        ("/collections/demo/items/demo-03/state", 404, "parcel-not-found", "demo-003"),
        ("/collections/dmo/items/demo-003", 404, "collection-not-found", "demo"),
        (f"{PARCEL}/similar?collections=nowhere", 404, "collection-not-found", "nowhere"),
        (f"{PARCEL}/similar?collections=", 400, "invalid-request", "collections"),
        (f"{PARCEL}/similar?k=0", 400, "invalid-k", "k is 0"),
        (f"{PARCEL}/similar?k=1001", 400, "invalid-k", "at most 1000"),
        (f"{PARCEL}/similar?k=ten", 400, "invalid-request", "Parameter k is 'ten'"),
        (f"{PARCEL}/similar?crop=", 400, "invalid-request", "crop"),
        (f"{PARCEL}/similar?observations=2", 400, "invalid-request", "observations"),
        (f"{PARCEL}/similar?bbox=1,2,3", 400, "invalid-bbox", "west,south,east,north"),
        (f"{PARCEL}/similar?bbox=49,2,nan,3", 400, "invalid-bbox", "nan"),
        (f"{PARCEL}/similar?datetime=spring", 400, "invalid-datetime", "spring"),
        (f"{PARCEL}/state?datetime=2023-02-30", 400, "invalid-datetime", "2023-02-30"),
        (f"{PARCEL}/state?datetime=1999", 404, "state-not-found", "1999"),
        ("/collections/demo/items/%00", 400, "invalid-request", "parcel_id"),
        ("/collections/demo/items/", 400, "invalid-request", "parcel_id"),
        ("/collections/demo/things", 404, "route-not-found", "/collections/demo/things"),
    ],
)
def test_a_question_that_cannot_be_answered_is_told_why(
    client: TestClient, path: str, status: int, kind: str, said: str
) -> None:
    response = client.get(path)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["kind"] == kind
    assert said in response.json()["detail"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (PARCEL, "this route takes crs."),
        (f"{PARCEL}/state", "this route takes datetime."),
        (f"{PARCEL}/similar", "k, observations, collections, crop, bbox, datetime"),
        ("/", "this route takes f."),
        ("/conformance", "this route takes none"),
        ("/api", "this route takes none"),
        ("/health/live", "this route takes none"),
        ("/health/ready", "this route takes none"),
    ],
)
def test_an_unknown_parameter_is_refused_by_name(
    client: TestClient, path: str, allowed: str
) -> None:
    response = client.get(f"{path}?limt=3")
    assert response.status_code == 400
    assert response.json()["kind"] == "unknown-parameter"
    assert "limt" in response.json()["detail"]
    assert allowed in response.json()["detail"]


def test_no_error_names_a_file(client: TestClient, two_collections: Settings) -> None:
    paths = ("/collections/x/items/y", f"{PARCEL}/similar?k=0", "/nowhere", f"{PARCEL}?a=b")
    for path in paths:
        assert str(two_collections.data_dir.parent) not in client.get(path).text
