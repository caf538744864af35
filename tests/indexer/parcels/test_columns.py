from collections.abc import Callable, Sized
from pathlib import Path

import pytest

from indexer.errors import ParcelsError
from indexer.parcels.files import read_parcels
from tests.indexer.parcels.squares import (
    by_id,
    feature_count,
    kinds,
    squares,
    write,
)


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".parquet"])
def test_the_names_of_fiboa_are_recognized(tmp_path: Path, suffix: str) -> None:
    columns: dict[str, Sized] = {
        "id": ["100-1"],
        "crop:code": ["33101"],
        "crop:name": ["Winterweizen"],
        "metrics:area": [12_345.5],
        "determination:method": ["manual"],
    }
    path = write(squares(**columns), tmp_path / f"parcels{suffix}")
    (parcel,) = read_parcels(path, "de").parcels
    assert (parcel.parcel_id, parcel.crop_code, parcel.crop_name) == (
        "100-1",
        "33101",
        "Winterweizen",
    )
    assert parcel.area_m2 == 12_345.5
    assert parcel.attributes == {"determination:method": "manual"}


def test_the_names_of_fiboa_are_recognized_as_a_shapefile_spells_them(tmp_path: Path) -> None:
    frame = squares(id=["1"], crop_code=["7"], crop_name=["wheat"], metrics_ar=[99.5])
    (parcel,) = read_parcels(write(frame, tmp_path / "parcels.shp"), "c").parcels
    assert (parcel.crop_code, parcel.crop_name, parcel.area_m2) == ("7", "wheat", 99.5)


@pytest.mark.parametrize("suffix", [".shp", ".gpkg"])
@pytest.mark.parametrize("case", [str.upper, str.lower])
def test_the_columns_of_the_french_register_are_recognized(
    tmp_path: Path, suffix: str, case: Callable[[str], str]
) -> None:
    columns: dict[str, Sized] = {
        case("ID_PARCEL"): ["123456"],
        case("SURF_PARC"): [2.48],
        case("CODE_CULTU"): ["BTH"],
        case("CODE_GROUP"): ["1"],
    }
    path = write(squares(2154, **columns), tmp_path / f"rpg{suffix}")
    found = read_parcels(path, "fr")
    (parcel,) = found.parcels
    assert parcel.parcel_id == "123456"
    assert parcel.crop_code == "BTH"
    assert parcel.crop_name is None
    assert parcel.area_m2 == 24_800.0
    assert parcel.attributes == {case("CODE_GROUP"): "1"}
    assert found.notes == ()


@pytest.mark.parametrize("name", ["PARCEL_ID", "parcel_id", "POLYGON_ID", "Field_ID"])
def test_customary_id_columns_are_recognized_in_any_case(tmp_path: Path, name: str) -> None:
    path = write(squares(**{name: ["x7"]}), tmp_path / "parcels.geojson")
    found = read_parcels(path, "c")
    assert [parcel.parcel_id for parcel in found.parcels] == ["x7"]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([123.0, 7.5], ["123", "7.5"]),
        ([123, 4], ["123", "4"]),
        ([2**60 + 1, 5], ["1152921504606846977", "5"]),
        ([" 12 ", "é/1"], ["12", "é/1"]),
    ],
    ids=["floats", "integers", "beyond floats", "texts"],
)
def test_ids_become_text(tmp_path: Path, ids: list[object], expected: list[str]) -> None:
    path = write(squares(id=ids), tmp_path / "parcels.gpkg")
    assert [parcel.parcel_id for parcel in read_parcels(path, "c").parcels] == expected


def test_the_id_column_can_be_named(tmp_path: Path) -> None:
    path = write(squares(id=["1", "2"], REF_ID=[501, 502]), tmp_path / "parcels.gpkg")
    found = by_id(read_parcels(path, "c", id_column="ref_id"))
    assert set(found) == {"501", "502"}
    assert found["501"].attributes == {"id": "1"}


def test_the_crop_column_can_be_named_and_gives_code_and_name(tmp_path: Path) -> None:
    path = write(squares(id=["1"], CROP_TYPE=["barley"]), tmp_path / "parcels.geojson")
    (parcel,) = read_parcels(path, "c", crop_column="CROP_TYPE").parcels
    assert (parcel.crop_code, parcel.crop_name) == ("barley", "barley")
    assert parcel.attributes == {}


def test_naming_the_recognized_crop_column_changes_nothing(tmp_path: Path) -> None:
    frame = squares(**{"id": ["1"], "crop:code": ["7"], "crop:name": ["wheat"]})
    path = write(frame, tmp_path / "parcels.gpkg")
    assert read_parcels(path, "c", crop_column="crop:code") == read_parcels(path, "c")


def test_a_file_without_a_crop_column_says_which_columns_it_has(tmp_path: Path) -> None:
    path = write(squares(id=["1"], kultur=["Weizen"]), tmp_path / "parcels.gpkg")
    (note,) = read_parcels(path, "c").notes
    assert "kultur" in note
    assert "--crop-column" in note


@pytest.mark.parametrize("suffix", [".geojson", ".shp", ".parquet"])
def test_a_file_without_ids_is_refused(tmp_path: Path, suffix: str) -> None:
    path = write(squares(kultur=["Weizen", "Mais"]), tmp_path / f"parcels{suffix}")
    with pytest.raises(ParcelsError, match=r"kultur.*--id-column") as caught:
        read_parcels(path, "c")
    assert caught.value.kind == "id-missing"


def test_a_geopackage_without_ids_falls_back_on_feature_numbers_and_says_so(
    tmp_path: Path,
) -> None:
    path = write(squares(REF=[11, 12], group=["x", "x"]), tmp_path / "parcels.gpkg")
    found = read_parcels(path, "c")
    assert [parcel.parcel_id for parcel in found.parcels] == ["1", "2"]
    assert any("feature numbers (fid)" in note and "REF." in note for note in found.notes)


def test_feature_numbers_of_a_geopackage_can_be_asked_for(tmp_path: Path) -> None:
    frame = squares(**{"id": ["a", "b"], "crop:code": ["1", "2"]})
    path = write(frame, tmp_path / "parcels.gpkg")
    found = read_parcels(path, "c", id_column="fid")
    assert [parcel.parcel_id for parcel in found.parcels] == ["1", "2"]
    assert found.notes == ()


def test_a_column_of_feature_numbers_is_used_and_named(tmp_path: Path) -> None:
    path = write(squares(OBJECTID=[5, 6]), tmp_path / "parcels.shp")
    found = read_parcels(path, "c")
    assert [parcel.parcel_id for parcel in found.parcels] == ["5", "6"]
    assert any("feature numbers (OBJECTID)" in note for note in found.notes)


@pytest.mark.parametrize("ids", [[2, 2, 2, 2], [None, None, None, 1]], ids=["class", "empty"])
def test_an_id_column_that_identifies_nothing_is_passed_over(
    tmp_path: Path, ids: list[int | None]
) -> None:
    path = write(squares(id=ids, parcel_id=list("wxyz")), tmp_path / "parcels.gpkg")
    assert set(by_id(read_parcels(path, "c"))) == set("wxyz")

    path = write(squares(id=ids), tmp_path / "only.gpkg")
    found = read_parcels(path, "c")
    assert set(by_id(found)) == {"1", "2", "3", "4"}
    assert any("empty or repeating: id" in note for note in found.notes)


def test_a_named_id_column_is_taken_at_its_word(tmp_path: Path) -> None:
    path = write(squares(id=[2, 2, 2, 1]), tmp_path / "parcels.gpkg")
    found = read_parcels(path, "c", id_column="id")
    assert set(by_id(found)) == {"1", "2"}
    assert kinds(found) == ["duplicate-id", "duplicate-id"]


def test_the_real_french_register_needs_no_options(test_data: Callable[[str], Path]) -> None:
    found = read_parcels(test_data("parcels_lpis") / "fr_rpg_2022_extract100.gpkg", "fr")
    assert found.notes == ()
    assert all(parcel.crop_code and len(parcel.crop_code) == 3 for parcel in found.parcels)
    assert all("code_group" in parcel.attributes for parcel in found.parcels)


def test_real_parcels_whose_id_is_a_class_are_all_kept(test_data: Callable[[str], Path]) -> None:
    path = test_data("wheat_mustard_india") / "parcels.gpkg"
    found = read_parcels(path, "india", crop_column="name")
    assert len(found.parcels) == feature_count(path)
    assert {parcel.crop_name for parcel in found.parcels} == {"wheat", "mustard"}
