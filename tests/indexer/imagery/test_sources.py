from datetime import UTC, datetime
from pathlib import Path

import pytest

from indexer.errors import InvalidInputError
from indexer.imagery.sources import ImageSource, find_sources, source_at, time_in_name

PATCH = "S2B_MSIL2A_20170924T93021_41_29"


def touch(*paths: Path) -> None:
    """Make empty files, their folders included: finding images reads none of them."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(*imagery: str | Path) -> list[ImageSource]:
    """The sources, where nothing is expected to be skipped."""
    sources, skipped = find_sources(imagery)
    assert skipped == []
    return sources


def named(path: Path) -> ImageSource:
    """The source that a multi-band file of this name makes."""
    return ImageSource(path.stem, path, ((None, path),))


# What is found


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".TIF", ".Tiff"])
def test_a_folder_is_searched_in_depth(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path / f"a{suffix}", tmp_path / "deep" / "er" / f"b{suffix}")
    assert [source.name for source in found(tmp_path)] == ["a", "b"]


def test_a_glob_finds_what_it_matches(tmp_path: Path) -> None:
    touch(tmp_path / "a1.tif", tmp_path / "b1.tif", tmp_path / "deep" / "a2.tif")
    assert [source.name for source in found(str(tmp_path / "a*.tif"))] == ["a1"]
    assert [source.name for source in found(str(tmp_path / "**" / "a*.tif"))] == ["a1", "a2"]


def test_a_folder_that_a_glob_matches_is_searched_in_depth(tmp_path: Path) -> None:
    touch(
        tmp_path / "north" / "a.tif", tmp_path / "nowhere" / "b.tif", tmp_path / "south" / "c.tif"
    )
    assert [source.name for source in found(str(tmp_path / "no*"))] == ["a", "b"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    touch(tmp_path / "field[1].tif", tmp_path / "field1.tif")
    assert [source.name for source in found(str(tmp_path / "field[1].tif"))] == ["field[1]"]


def test_other_files_in_a_folder_are_passed_over(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a.tif", "README.md", "labels.json", "a.tif.aux.xml")))
    assert [source.name for source in found(tmp_path)] == ["a"]
    assert [source.name for source in found(str(tmp_path / "*"))] == ["a"]


def test_relative_and_absolute_files_may_be_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "a.tif", tmp_path / "b.tif")
    monkeypatch.chdir(tmp_path)
    sources = found("a.tif", tmp_path / "b.tif")
    assert {source.name: source.class_name for source in sources} == {"a": None, "b": None}


# What is not


def test_a_missing_path_is_named_and_the_others_are_found(tmp_path: Path) -> None:
    touch(tmp_path / "a.tif")
    missing = tmp_path / "missing.tif"
    sources, (skipped,) = find_sources([missing, tmp_path / "a.tif"])
    assert [source.name for source in sources] == ["a"]
    assert (skipped.source, skipped.kind) == (str(missing), "file-not-found")
    assert "no such file or folder" in skipped.reason


def test_a_folder_or_glob_without_images_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "a.tif", tmp_path / "empty" / "notes.txt")
    imagery = [str(tmp_path / "empty"), str(tmp_path / "2023*" / "*.tif")]
    sources, skipped = find_sources([tmp_path / "a.tif", *imagery])
    assert [source.name for source in sources] == ["a"]
    assert [item.source for item in skipped] == imagery
    assert {item.kind for item in skipped} == {"file-not-found"}
    assert all("no GeoTIFF found there" in item.reason for item in skipped)


def test_a_named_file_of_another_format_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "a.tif", tmp_path / "b.jp2")
    sources, (skipped,) = find_sources([tmp_path / "a.tif", tmp_path / "b.jp2"])
    assert [source.name for source in sources] == ["a"]
    assert (skipped.source, skipped.kind) == (str(tmp_path / "b.jp2"), "unreadable")


@pytest.mark.parametrize("name", ["empty", "missing.tif", "*.tif", "notes.txt"])
def test_nothing_found_at_all_is_an_error_that_names_the_place(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "notes.txt")
    with pytest.raises(InvalidInputError, match="No GeoTIFF found in") as caught:
        find_sources([str(tmp_path / name)])
    assert caught.value.kind == "no-imagery"
    assert str(tmp_path / name) in caught.value.message


def test_no_path_at_all_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match="No GeoTIFF found: none is named"):
        find_sources([])


@pytest.mark.parametrize(
    "address",
    ["/vsicurl/http://127.0.0.1:9/a.tif", "http://127.0.0.1:9/a.tif", "GTIFF_DIR:1:a.tif"],
)
def test_an_address_that_is_no_path_is_not_followed(tmp_path: Path, address: str) -> None:
    touch(tmp_path / "a.tif")
    _, (skipped,) = find_sources([tmp_path, address])
    assert (skipped.source, skipped.kind) == (address, "file-not-found")


def test_images_come_in_the_order_in_which_they_are_named(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("c.tif", "a.tif", "sub/z.tif", "sub/b.tif")))
    named = [tmp_path / "c.tif", tmp_path / "sub", tmp_path / "a.tif"]
    assert [source.name for source in find_sources(named)[0]] == ["c", "b", "z", "a"]


# Class folders


def test_the_folder_that_an_image_lies_in_is_its_class(tmp_path: Path) -> None:
    touch(
        tmp_path / "AnnualCrop" / "c1.tif", tmp_path / "Forest" / "f1.tif", tmp_path / "loose.tif"
    )
    expected = {"c1": "AnnualCrop", "f1": "Forest", "loose": None}
    for imagery in ([tmp_path], [str(tmp_path / "**" / "*.tif")]):
        classes = {source.name: source.class_name for source in found(*imagery)}
        assert classes == expected


def test_named_files_have_classes_where_their_folders_differ(tmp_path: Path) -> None:
    crop, forest = tmp_path / "AnnualCrop" / "c1.tif", tmp_path / "Forest" / "f1.tif"
    touch(crop, forest)
    assert [source.class_name for source in found(crop, forest)] == ["AnnualCrop", "Forest"]
    assert [source.class_name for source in found(crop)] == [None]


def test_a_class_folder_that_is_named_itself_is_no_class(tmp_path: Path) -> None:
    touch(tmp_path / "Forest" / "f1.tif")
    for imagery in (tmp_path / "Forest", tmp_path / "Forest" / "*.tif"):
        (source,) = found(str(imagery))
        assert source.class_name is None


@pytest.mark.parametrize("folder", ["2023-06-01", "20230601", "S2A_MSIL2A_20230601T105031_N0509"])
def test_a_folder_named_by_a_date_is_no_class(tmp_path: Path, folder: str) -> None:
    touch(tmp_path / folder / "tile.tif")
    (source,) = found(tmp_path)
    assert source.class_name is None
    assert source.acquired_at is not None
    assert source.acquired_at.date().isoformat() == "2023-06-01"


# One file per band


def test_files_that_differ_in_their_band_are_one_image(tmp_path: Path) -> None:
    folder = tmp_path / PATCH
    touch(*(folder / f"{PATCH}_{band}.tif" for band in ("B02", "B8A", "B11", "SCL")))
    touch(folder / f"{PATCH}_labels_metadata.json")
    (source,) = found(tmp_path)
    assert source.is_band_folder
    assert (source.name, source.path, source.class_name) == (PATCH, folder, None)
    assert {band: path.name for band, path in source.files} == {
        band: f"{PATCH}_{band}.tif" for band in ("B02", "B8A", "B11", "SCL")
    }


def test_several_images_may_share_a_folder(tmp_path: Path) -> None:
    touch(*(tmp_path / f"{name}_{band}.tif" for name in "xy" for band in ("B03", "B04")))
    sources = found(tmp_path)
    assert [source.name for source in sources] == ["x", "y"]
    assert all(source.path == tmp_path and len(source.files) == 2 for source in sources)


def test_band_files_without_a_common_name_take_that_of_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / "S2A_31TCJ_20230601_0_L2A"
    touch(folder / "B03.tif", folder / "B8A.tif")
    for imagery in (tmp_path, folder):
        (source,) = found(imagery)
        assert (source.name, source.path, source.class_name) == (folder.name, folder, None)
        assert source.acquired_at == datetime(2023, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize("ending", ["B04", "b04", "B4", "B04_10m"])
def test_the_band_is_known_by_each_spelling_of_a_file(tmp_path: Path, ending: str) -> None:
    touch(tmp_path / f"T31TCJ_20230601T105031_{ending}.tif")
    (source,) = found(tmp_path)
    assert source.name == "T31TCJ_20230601T105031"
    assert [band for band, _ in source.files] == ["B04"]


@pytest.mark.parametrize("stem", ["field_B13", "field_B4x", "fieldB04", "B04_field"])
def test_a_name_that_ends_in_no_band_is_a_file_of_its_own(tmp_path: Path, stem: str) -> None:
    touch(tmp_path / f"{stem}.tif")
    (source,) = found(tmp_path)
    assert not source.is_band_folder
    assert source.name == stem


def test_the_class_of_a_patch_is_the_folder_above_its_own(tmp_path: Path) -> None:
    touch(tmp_path / "Maize" / PATCH / f"{PATCH}_B02.tif", tmp_path / "Maize" / "flat_B02.tif")
    classes = {source.name: source.class_name for source in found(tmp_path)}
    assert classes == {PATCH: "Maize", "flat": "Maize"}


# What names tell


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("S2A_MSIL2A_20230601T105031_N0509_R051_T31TCJ", datetime(2023, 6, 1, 10, 50, 31)),
        # BigEarthNet writes half past nine like this.
        (PATCH, datetime(2017, 9, 24, 9, 30, 21)),
        ("S2A_MSIL2A_20171221T112501_56_35", datetime(2017, 12, 21, 11, 25, 1)),
        ("S2L2A_2021-07-01", datetime(2021, 7, 1)),
        ("field7_20210701", datetime(2021, 7, 1)),
        ("from_2021-07-01_to_2021-07-31", datetime(2021, 7, 1)),
    ],
)
def test_a_name_tells_its_first_date_in_utc(name: str, moment: datetime) -> None:
    assert time_in_name(name) == moment.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "name",
    ["AnnualCrop_1", "282D_485L_3_3", "field_120210701", "20211341", "2021-07", "1999-07-01"],
)
def test_a_name_without_a_date_tells_none(name: str) -> None:
    assert time_in_name(name) is None


def test_the_date_may_stand_on_the_folder(tmp_path: Path) -> None:
    touch(tmp_path / "2021-07-01" / "tile.tif", tmp_path / "2021-07-11" / "other_B04.tif")
    times = {source.name: source.acquired_at for source in found(tmp_path)}
    assert times == {
        "tile": datetime(2021, 7, 1, tzinfo=UTC),
        "other": datetime(2021, 7, 11, tzinfo=UTC),
    }


def test_the_date_of_the_file_outweighs_that_of_its_folder() -> None:
    source = named(Path("2021-07-01", "field_20200601.tif"))
    assert source.acquired_at == datetime(2020, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "baseline"),
    [
        ("S2B_MSIL2A_20220310T102739_N0400_R108_T32TMT_20220310T134645", "04.00"),
        ("S2A_MSIL2A_20170617T113321_N0500_R080", "05.00"),
        ("field_N0301", "03.01"),
        # Somebody processed this by hand: 99.99 tells nothing about the offset.
        ("S2A_MSIL2A_20220623T103031_N9999_R108_T32TMT_20230101T163539", None),
        ("fieldN0400", None),
        ("AnnualCrop_1", None),
    ],
)
def test_a_product_name_tells_the_processing_baseline(name: str, baseline: str | None) -> None:
    assert named(Path(f"{name}.tif")).processing_baseline == baseline


# What was found before


def test_every_source_is_found_again_by_its_path_and_name(tmp_path: Path) -> None:
    touch(
        tmp_path / "stack.tif",
        tmp_path / "B04.tif",
        tmp_path / "B08.tif",
        *(tmp_path / "tile" / f"{day}_{band}.tif" for day in "ab" for band in ("B02", "B03_10m")),
    )
    sources = found(tmp_path)
    assert len(sources) == 4
    for source in sources:
        again = source_at(source.path, source.name)
        assert again is not None
        assert (again.name, again.path, again.files) == (source.name, source.path, source.files)


def test_what_lies_below_a_folder_is_no_band_of_it(tmp_path: Path) -> None:
    touch(tmp_path / "a_B02.tif", tmp_path / "deep" / "a_B03.tif")
    again = source_at(tmp_path, "a")
    assert again is not None
    assert [band for band, _ in again.files] == ["B02"]


def test_a_source_that_is_gone_is_not_found(tmp_path: Path) -> None:
    touch(tmp_path / "a_B02.tif", tmp_path / "notes.txt")
    assert source_at(tmp_path / "gone.tif", "gone") is None
    assert source_at(tmp_path, "b") is None
    assert source_at(tmp_path / "notes.txt", "notes") is None
