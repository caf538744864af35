from datetime import UTC, datetime
from typing import Any

import pytest

from indexer.errors import ImageryError
from indexer.imagery.layers import Scaling
from indexer.imagery.stac.addresses import Home
from indexer.imagery.stac.dialects import read_item
from indexer.imagery.stac.item import StacSource
from indexer.sensors import PROFILES
from tests.indexer.imagery.stac.catalogs import COG, item

PAGE = "https://93.184.216.34/s2/item.json"
FOLDER = "https://93.184.216.34/s2/"
JP2 = "image/jp2"


def read(document: dict[str, Any]) -> StacSource:
    return read_item(document, PAGE, Home())


def hrefs(source: StacSource) -> dict[str, str]:
    """Name of the file of each band."""
    return {asset.band: asset.href.removeprefix(FOLDER) for asset in source.assets}


def asset(href: str, media: str | None = COG, said: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"href": href, **({"type": media} if media else {}), **(said or {})}


def refusal(document: dict[str, Any]) -> ImageryError:
    with pytest.raises(ImageryError) as refused:
        read(document)
    return refused.value


def test_the_keys_of_earth_search_are_bands() -> None:
    assert hrefs(read(item())) == {band: f"{band}.tif" for band in (*PROFILES["l2a"], "SCL")}


def test_the_keys_of_planetary_computer_are_bands() -> None:
    assets = {band: asset(f"{band}.tif") for band in ("B02", "B8A", "SCL", "AOT", "WVP")}
    assert hrefs(read(item(assets=assets))) == {
        "B02": "B02.tif",
        "B8A": "B8A.tif",
        "SCL": "SCL.tif",
    }


def test_of_the_sizes_of_a_band_the_finest_is_taken() -> None:
    assets = {f"B02_{size}m": asset(f"B02_{size}m.tif") for size in (60, 10, 20)}
    assert hrefs(read(item(assets=assets))) == {"B02": "B02_10m.tif"}


def test_a_geotiff_is_taken_before_its_twin_in_jpeg_2000() -> None:
    assets = {"red-jp2": asset("B04.jp2", JP2), "red": asset("B04.tif")}
    assert hrefs(read(item(assets=assets))) == {"B04": "B04.tif"}


def test_jpeg_2000_on_a_server_is_refused_by_name() -> None:
    assets = {"red": asset("B04.jp2", JP2), "nir": asset("B08.tif")}
    source = read(item(assets=assets))
    assert hrefs(source) == {"B08": "B08.tif"}
    assert [band for band, _ in source.refused] == ["B04"]
    assert "JPEG 2000" in source.refused[0][1]


def test_the_format_is_known_by_the_ending_where_no_type_is_given() -> None:
    assets = {"red": asset("B04.TIF?sig=x", None), "nir": asset("B08.json", None)}
    assert list(hrefs(read(item(assets=assets)))) == ["B04"]


def test_an_asset_of_another_name_is_known_by_what_it_says_of_its_band() -> None:
    assets = {
        "a": asset("a.tif", said={"eo:bands": [{"name": "B04", "common_name": "red"}]}),
        "b": asset("b.tif", said={"eo:bands": [{"name": "x", "common_name": "nir"}]}),
        "c": asset("c.tif", said={"bands": [{"name": "B11"}]}),
        "d": asset("d.tif", said={"bands": [{"eo:common_name": "green"}]}),
        "e": asset("e.tif", said={"eo:bands": [{"name": "x", "common_name": "rededge"}]}),
    }
    assert hrefs(read(item(assets=assets))) == {
        "B04": "a.tif",
        "B08": "b.tif",
        "B11": "c.tif",
        "B03": "d.tif",
    }


def test_a_file_of_several_bands_holds_them_in_the_order_stated() -> None:
    bands = [{"name": "B02"}, {"name": "nothing"}, {"name": "B04"}]
    source = read(item(assets={"data": asset("all.tif", said={"bands": bands})}))
    assert [(one.band, one.number) for one in source.assets] == [("B02", 1), ("B04", 3)]


def test_pictures_are_no_bands() -> None:
    rgb = [{"name": "red"}, {"name": "green"}, {"name": "blue"}]
    assets = {
        "visual": asset("TCI.tif", said={"eo:bands": rgb}),
        "TCI_10m": asset("TCI_10m.tif", said={"eo:bands": rgb}),
        "picture": asset("picture.tif", said={"roles": ["overview"], "eo:bands": rgb}),
        "nir": asset("B08.tif"),
    }
    assert list(hrefs(read(item(assets=assets)))) == ["B08"]


def test_polarizations_of_sentinel_1_are_bands() -> None:
    assets = {"vv": asset("vv.tif"), "vh": asset("vh.tif"), "safe-manifest": asset("manifest.safe")}
    source = read(item(assets=assets, properties={"platform": "sentinel-1a"}))
    assert hrefs(source) == {"VH": "vh.tif", "VV": "vv.tif"}


@pytest.mark.parametrize("platform", ["sentinel-2a", "Sentinel-2B", "S2A", "sentinel-2", "S1A"])
def test_sentinel_2_and_1_have_many_names(platform: str) -> None:
    assert read(item(properties={"platform": platform})).assets


@pytest.mark.parametrize("platform", ["landsat-8", "terra", "s3a", "noaa-20", "s20"])
def test_the_bands_of_other_instruments_are_not_taken_for_those_of_sentinel(platform: str) -> None:
    error = refusal(item(properties={"platform": platform}))
    assert error.kind == "bands-unknown"
    assert platform in error.message


def test_an_item_without_any_band_names_its_assets() -> None:
    error = refusal(item(assets={"elevation": asset("dem.tif")}))
    assert error.kind == "bands-unknown"
    assert "elevation" in error.message


def test_an_item_whose_bands_may_not_be_read_says_why() -> None:
    error = refusal(item(assets={"red": asset("s3://sentinel-s2-l2a/B04.tif")}))
    assert error.kind == "href-refused"
    assert "neither http:// nor https://" in error.message


def test_a_refused_band_has_its_reason() -> None:
    assets = {"red": asset("http://127.0.0.1/B04.tif"), "nir": asset("B08.tif")}
    ((band, why),) = read(item(assets=assets)).refused
    assert band == "B04"
    assert "private network" in why


def test_a_band_that_is_refused_once_may_be_had_elsewhere() -> None:
    assets = {"B04": asset("s3://bucket/B04.tif"), "red": asset("B04.tif")}
    source = read(item(assets=assets))
    assert hrefs(source) == {"B04": "B04.tif"}
    assert source.refused == ()


OFFSET = {"raster:bands": [{"scale": 0.0001, "offset": -0.1}]}


@pytest.mark.parametrize(
    ("said", "properties", "expected"),
    [
        ({}, {}, None),
        (OFFSET, {}, Scaling(0.0001, -0.1)),
        # Earth Search states the offset though it is removed already.
        (OFFSET, {"earthsearch:boa_offset_applied": True}, Scaling(0.0001, 0.0)),
        (OFFSET, {"earthsearch:boa_offset_applied": False}, Scaling(0.0001, -0.1)),
        ({}, {"earthsearch:boa_offset_applied": True}, Scaling(0.0001, 0.0)),
        # STAC 1.1 states it beside the asset or in its bands.
        ({"raster:scale": 0.0001, "raster:offset": -0.1}, {}, Scaling(0.0001, -0.1)),
        ({"bands": [{"raster:scale": 0.0001, "raster:offset": 0}]}, {}, Scaling(0.0001, 0.0)),
        # The usual scale alone says nothing about the offset.
        ({"raster:bands": [{"scale": 0.0001}]}, {}, None),
        ({"raster:bands": [{"scale": 0.00005}]}, {}, Scaling(0.00005, 0.0)),
        ({"raster:bands": [{"scale": 1, "offset": 0}]}, {}, None),
        ({"raster:bands": [{"scale": 0, "offset": 5}]}, {}, None),
        ({"raster:bands": [{"scale": -1}]}, {}, None),
        ({"raster:bands": [{"scale": "0.1"}]}, {}, None),
        ({"raster:bands": "all"}, {}, None),
        ({"raster:bands": []}, {}, None),
    ],
)
def test_the_scale_is_believed_unless_it_is_known_to_lie(
    said: dict[str, Any], properties: dict[str, Any], expected: Scaling | None
) -> None:
    source = read(item(assets={"red": asset("B04.tif", said=said)}, properties=properties))
    assert [one.scaling for one in source.assets] == [expected]


def test_classes_and_backscatter_are_not_scaled() -> None:
    assets = {"scl": asset("SCL.tif", said=OFFSET), "vv": asset("vv.tif", said=OFFSET)}
    source = read(item(assets=assets, properties={"earthsearch:boa_offset_applied": True}))
    assert [one.scaling for one in source.assets] == [None, None]


@pytest.mark.parametrize(
    ("name", "properties", "expected"),
    [
        ("a", {"s2:processing_baseline": "05.09"}, "05.09"),
        ("a", {"processing:version": "05.10"}, "05.10"),
        ("a", {"processing:version": "1.0"}, None),
        ("a", {"s2:processing_baseline": "99.99"}, None),
        ("a", {"s2:processing_baseline": 5}, None),
        ("a", {"s2:product_uri": "S2A_MSIL2A_20230601T105031_N0509_R051_T31UDQ_x.SAFE"}, "05.09"),
        ("S2A_MSIL2A_20210601T105031_N0300_R051_T31UDQ_20210601T1", {}, "03.00"),
        ("S2A_31UDQ_20230601_0_L2A", {}, None),
    ],
)
def test_the_baseline_is_told_by_a_property_or_a_product_name(
    name: str, properties: dict[str, Any], expected: str | None
) -> None:
    assert read(item(name, properties=properties)).processing_baseline == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2023-06-01T10:50:31.024Z", datetime(2023, 6, 1, 10, 50, 31, 24_000, UTC)),
        ("2023-06-01T10:50:31.123456789Z", datetime(2023, 6, 1, 10, 50, 31, 123_456, UTC)),
        ("2023-06-01T12:50:31+02:00", datetime(2023, 6, 1, 10, 50, 31, 0, UTC)),
        ("2023-06-01t10:50:31z", datetime(2023, 6, 1, 10, 50, 31, 0, UTC)),
        ("2023-06-01", datetime(2023, 6, 1, tzinfo=UTC)),
    ],
)
def test_times_are_read_as_utc(text: str, expected: datetime) -> None:
    assert read(item(time=text)).acquired_at == expected


@pytest.mark.parametrize("time", [None, "", "yesterday", "2023-13-01T00:00:00Z"])
def test_an_item_without_a_time_is_refused(time: str | None) -> None:
    error = refusal(item("S2A", time=time))
    assert error.kind == "item-invalid"
    assert "S2A" in error.message


@pytest.mark.parametrize("name", ["", " ", None, 7, "a\nb", "x" * 300])
def test_an_item_without_usable_id_is_refused(name: object) -> None:
    assert refusal({**item(), "id": name}).kind == "item-invalid"


@pytest.mark.parametrize("part", ["properties", "assets", "collection", "links"])
@pytest.mark.parametrize("value", [None, 3, "x", [1], {"a": [1]}])
def test_an_item_of_wrong_shape_is_refused_or_read_but_breaks_nothing(
    part: str, value: object
) -> None:
    try:
        source = read({**item(), part: value})
    except ImageryError as error:
        assert error.kind in ("item-invalid", "bands-unknown")  # noqa: PT017 - either may happen
    else:
        assert source.name == "S2A_31UDQ_20230601_0_L2A"
