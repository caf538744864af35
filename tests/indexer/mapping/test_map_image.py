import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import rasterio.shutil

from indexer.errors import ImageryError, InvalidInputError, StorageError, WeightsError
from indexer.mapping import blocks
from indexer.mapping.class_map import opened_map
from indexer.mapping.colors import class_color, rgb
from indexer.mapping.map_image import MapOptions, MapReport, MethodName, map_image
from indexer.training.pretrain import PretrainOptions, pretrain
from tests.indexer.mapping.planted import (
    BANDS,
    NODATA,
    SHAPE,
    SPECTRA,
    planted_classes,
    planted_cube,
    write_planted,
)
from tests.synthetic import TRANSFORM, UTM_31, write_geotiff


def classes_of(path: Path) -> npt.NDArray[np.uint8]:
    with opened_map(path) as raster:
        found: npt.NDArray[np.uint8] = raster.read(1)
    return found


def pixels_only(k: int | None = 3, **fields: object) -> MapOptions:
    return MapOptions(method="mnf-kmeans", k=k, **fields)  # type: ignore[arg-type]


def legend_of(path: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return content


def test_a_map_of_planted_classes_is_exactly_right(planted: Path, tmp_path: Path) -> None:
    report = map_image(planted, tmp_path / "map.tif", pixels_only())
    np.testing.assert_array_equal(classes_of(tmp_path / "map.tif"), planted_classes())
    # 24 rows of 14 columns less 12 pixels without data; 10 columns; 6 columns.
    assert [one.pixels for one in report.classes] == [324, 240, 144]
    assert report.pixels == 708


@pytest.mark.parametrize("method", ["kmeans", "gmm"])
def test_features_of_an_encoder_find_planted_classes_inside_their_borders(
    planted: Path, encoder_file: Path, tmp_path: Path, method: MethodName
) -> None:
    options = MapOptions(encoder=f"simple-vit:{encoder_file}", k=3, method=method, device="cpu")
    map_image(planted, tmp_path / "map.tif", options)
    found, known = classes_of(tmp_path / "map.tif"), planted_classes()
    # Windows across a border see both classes.
    near = np.zeros(SHAPE, dtype=np.bool_)
    near[:, 11:17] = near[:, 21:27] = near[:7, :8] = True
    np.testing.assert_array_equal(found[~near], known[~near])
    np.testing.assert_array_equal(found == 0, known == 0)


def test_an_encoders_features_are_clustered_by_k_means_unless_told_otherwise(
    planted: Path, encoder_file: Path, tmp_path: Path
) -> None:
    options = MapOptions(encoder=f"simple-vit:{encoder_file}", k=3, device="cpu")
    report = map_image(planted, tmp_path / "map.tif", options)
    assert report.method == "kmeans"
    default = classes_of(tmp_path / "map.tif")
    map_image(planted, tmp_path / "map.tif", replace(options, method="kmeans"))
    np.testing.assert_array_equal(default, classes_of(tmp_path / "map.tif"))


def test_a_map_says_which_encoder_and_method_made_it(
    planted: Path, encoder_file: Path, tmp_path: Path
) -> None:
    options = MapOptions(encoder=f"simple-vit:{encoder_file}", k=4, method="spectral", device="cpu")
    report = map_image(planted, tmp_path / "map.tif", options)
    assert report.method == "spectral"
    found, known = classes_of(tmp_path / "map.tif"), planted_classes()
    np.testing.assert_array_equal(found == 0, known == 0)
    assert set(np.unique(found).tolist()) == {0, 1, 2, 3, 4}
    encoder = legend_of(tmp_path / "map.tif")["encoder"]
    assert encoder["digest"] == sha256(encoder_file.read_bytes()).hexdigest()  # type: ignore[index]


def test_k_is_chosen_where_none_is_given(planted: Path, tmp_path: Path) -> None:
    report = map_image(planted, tmp_path / "map.tif", pixels_only(k=None))
    assert len(report.classes) == report.choice.k == 3
    assert legend_of(tmp_path / "map.tif")["choice"] == report.choice.to_dict()


@pytest.mark.parametrize("k", [3, 5, 8])
def test_planted_classes_are_counted(tmp_path: Path, k: int) -> None:
    random = np.random.default_rng(k)
    spectra = 2000 + 600 * random.normal(size=(k, 20))
    patches = random.permutation(np.arange(36) % k).reshape(6, 6)
    classes = patches.repeat(7, axis=0).repeat(7, axis=1)
    cube = spectra[classes].transpose(2, 0, 1) + random.normal(0, 60, (20, 42, 42))
    image = write_geotiff(tmp_path / "patches.tif", cube.astype(np.float32))
    report = map_image(image, tmp_path / "map.tif", pixels_only(k=None))
    assert report.choice.k == k
    # As many pixels as were planted, in any order.
    assert sorted(one.pixels for one in report.classes) == sorted(np.bincount(classes.ravel()))


def test_the_number_of_classes_depends_on_the_image_alone(
    planted: Path, encoder_file: Path, tmp_path: Path
) -> None:
    # An encoder of three of the six bands, in another order.
    few = write_geotiff(
        tmp_path / "few.tif",
        planted_cube()[[4, 0, 3]],
        descriptions=[BANDS[band] for band in (4, 0, 3)],
        nodata=NODATA,
    )
    other = tmp_path / "few.pt"
    pretrain([few], other, PretrainOptions(steps=2, batch_size=32, device="cpu"))
    ways = (
        MapOptions(),
        MapOptions(encoder=f"simple-vit:{encoder_file}", device="cpu"),
        MapOptions(encoder=f"simple-vit:{encoder_file}", method="gmm", device="cpu"),
        MapOptions(encoder=f"simple-vit:{other}", device="cpu"),
    )
    choices = [map_image(planted, tmp_path / "map.tif", way).choice for way in ways]
    assert choices[1:] == choices[:1] * 3


def test_a_map_lies_where_its_image_lies(planted: Path, tmp_path: Path) -> None:
    map_image(planted, tmp_path / "map.tif", pixels_only())
    with rasterio.open(tmp_path / "map.tif") as raster:
        assert raster.crs == UTM_31
        assert raster.transform == TRANSFORM
        assert raster.dtypes == ("uint8",)
        assert raster.nodata == 0


def test_an_image_without_a_place_gives_a_map_without_one(tmp_path: Path) -> None:
    image = write_planted(tmp_path / "planted.tif", crs=None, transform=None)
    map_image(image, tmp_path / "map.tif", pixels_only())
    with opened_map(tmp_path / "map.tif") as raster:
        assert raster.crs is None
        assert raster.transform.is_identity


def test_a_gis_reads_colors_and_names(planted: Path, tmp_path: Path) -> None:
    out = tmp_path / "map.tif"
    map_image(planted, out, pixels_only(names={1: "winter wheat", 3: "étang <petit> & grand"}))
    with rasterio.open(out) as raster:
        colors = raster.colormap(1)
        tags = raster.tags()
        # What rasterio does not offer, GDAL writes beside a copy, as far as it has read it.
        rasterio.shutil.copy(raster, tmp_path / "copy.tif", driver="GTiff")
    assert colors[0] == (0, 0, 0, 0)
    assert [colors[number][:3] for number in (1, 2, 3)] == [
        rgb(class_color(number)) for number in (1, 2, 3)
    ]
    band = ElementTree.parse(tmp_path / "copy.tif.aux.xml").getroot().find("PAMRasterBand")
    assert band is not None
    names = [category.text for category in band.iterfind("CategoryNames/Category")]
    assert names == ["no data", "winter wheat", "class 2", "étang <petit> & grand"]
    rows = [
        [cell.text for cell in row.iterfind("F")]
        for row in band.iterfind("GDALRasterAttributeTable/Row")
    ]
    assert rows[1] == ["2", "class 2", "240", *map(str, rgb(class_color(2)))]
    assert (tags["PARCELLE_METHOD"], tags["PARCELLE_K"]) == ("mnf-kmeans", "3")
    assert json.loads(tags["PARCELLE_CLASSES"])["1"] == "winter wheat"


def test_the_style_for_qgis_lists_the_classes_and_no_other(planted: Path, tmp_path: Path) -> None:
    map_image(planted, tmp_path / "map.tif", pixels_only(names={2: "soil"}))
    style = ElementTree.parse(tmp_path / "map.qml").getroot()
    entries = [entry.attrib for entry in style.iter("paletteEntry")]
    assert [(entry["value"], entry["label"]) for entry in entries] == [
        ("1", "class 1"),
        ("2", "soil"),
        ("3", "class 3"),
    ]
    assert entries[0]["color"] == class_color(1)


def test_the_legend_tells_size_color_and_mean_spectrum(planted: Path, tmp_path: Path) -> None:
    map_image(planted, tmp_path / "map.tif", pixels_only(names={3: "pond"}))
    legend = legend_of(tmp_path / "map.tif")
    water = legend["classes"][2]  # type: ignore[index]
    assert (water["class"], water["name"], water["pixels"]) == (3, "pond", 144)
    assert water["share"] == pytest.approx(144 / 708, abs=1e-6)
    cube, known = planted_cube(), planted_classes()
    for entry in legend["classes"]:  # type: ignore[attr-defined]
        pixels = cube[:, known == entry["class"]]
        np.testing.assert_allclose(entry["mean_spectrum"], pixels.mean(axis=1), rtol=1e-5)
        np.testing.assert_allclose(entry["std_spectrum"], pixels.std(axis=1), rtol=1e-5)
    assert [band["name"] for band in legend["bands"]] == list(BANDS)  # type: ignore[attr-defined]


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Cuts images into many tiles, and samples a part of their pixels, once it is called."""

    def cut() -> None:
        monkeypatch.setattr(blocks, "TILE_VALUES", 49 * len(BANDS))
        monkeypatch.setattr(blocks, "_STEP_PX", 7)
        monkeypatch.setattr(blocks, "MAX_SAMPLE", 320)

    return cut


def test_a_map_made_block_by_block_from_a_sample_is_that_of_the_whole(
    planted: Path, encoder_file: Path, tmp_path: Path, small_tiles: Callable[[], None]
) -> None:
    options = MapOptions(encoder=f"simple-vit:{encoder_file}", k=3, method="kmeans", device="cpu")
    whole = map_image(planted, tmp_path / "whole.tif", options)
    small_tiles()
    blocked = map_image(planted, tmp_path / "blocked.tif", options)
    assert legend_of(tmp_path / "blocked.tif")["sampled"] == 320
    assert legend_of(tmp_path / "whole.tif")["sampled"] == 708
    np.testing.assert_array_equal(
        classes_of(tmp_path / "blocked.tif"), classes_of(tmp_path / "whole.tif")
    )
    for one, other in zip(blocked.classes, whole.classes, strict=True):
        np.testing.assert_allclose(one.mean, other.mean, rtol=1e-9)
        np.testing.assert_allclose(one.center, other.center, atol=1e-4)


def test_a_sample_is_spread_over_the_whole_image() -> None:
    chosen = blocks._chosen(10_000_000, seed=0)
    assert len(chosen) == len(set(chosen.tolist())) == blocks.MAX_SAMPLE
    assert (np.diff(chosen) > 0).all()
    tenths = np.bincount(chosen // 1_000_000)
    assert tenths.tolist() == pytest.approx([blocks.MAX_SAMPLE / 10] * 10, rel=0.02)


def test_the_same_seed_gives_the_same_map(planted: Path, tmp_path: Path) -> None:
    maps = []
    for name in ("one.tif", "other.tif"):
        map_image(planted, tmp_path / name, pixels_only(k=5, seed=4))
        maps.append(classes_of(tmp_path / name))
    np.testing.assert_array_equal(maps[0], maps[1])


# Names ------------------------------------------------------------------------------------------


def named(report: MapReport) -> dict[int, str | None]:
    return {one.number: one.name for one in report.classes}


def test_names_survive_when_a_map_is_made_anew(
    planted: Path, encoder_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "map.tif"
    options = {"encoder": f"simple-vit:{encoder_file}", "method": "kmeans", "device": "cpu"}
    first = MapOptions(k=3, names={1: "wheat", 3: "water"}, **options)  # type: ignore[arg-type]
    map_image(planted, out, first)
    # Another image of the same land, where water covers more than anything else.
    cube, classes = planted_cube(seed=1), planted_classes()
    flooded = cube.copy()
    flooded[:, :20] = cube[:, :20, 29:30]
    flooded[:, classes == 0] = NODATA
    write_geotiff(tmp_path / "flooded.tif", flooded, descriptions=BANDS, nodata=NODATA)
    report = map_image(
        tmp_path / "flooded.tif",
        out,
        MapOptions(k=3, **options),  # type: ignore[arg-type]
    )
    assert named(report)[1] == "water"
    assert "wheat" in {named(report)[2], named(report)[3]} | {
        name.name for name in report.unmatched_names
    }


def test_a_name_that_no_class_certainly_bears_is_told_and_kept(
    planted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "map.tif"
    map_image(planted, out, pixels_only(names={1: "wheat", 3: "water"}))
    # Another image has another MNF, whose centers cannot be compared.
    other = write_geotiff(
        tmp_path / "other.tif", planted_cube(seed=5), descriptions=BANDS, nodata=NODATA
    )
    report = map_image(other, out, pixels_only())
    assert set(named(report).values()) == {None}
    assert any("wheat" in note and "water" in note for note in report.notes)
    kept = legend_of(out)["unmatched_names"]
    assert [entry["name"] for entry in kept] == ["wheat", "water"]  # type: ignore[attr-defined]
    # Given again, a name is no longer looked for.
    report = map_image(other, out, pixels_only(names={2: "wheat"}))
    assert named(report)[2] == "wheat"
    assert [name.name for name in report.unmatched_names] == ["water"]


def test_a_map_of_the_same_image_keeps_its_names(planted: Path, tmp_path: Path) -> None:
    out = tmp_path / "map.tif"
    map_image(planted, out, pixels_only(names={2: "soil"}))
    assert named(map_image(planted, out, pixels_only())) == {1: None, 2: "soil", 3: None}


def test_a_name_for_a_class_that_does_not_exist_is_told(planted: Path, tmp_path: Path) -> None:
    report = map_image(planted, tmp_path / "map.tif", pixels_only(names={7: "maize"}))
    assert any("no class 7" in note for note in report.notes)


# Scores -----------------------------------------------------------------------------------------


def write_truth(path: Path) -> Path:
    truth = planted_classes()
    # A row of soil that is called water, and a part that nobody labelled.
    truth[0, 14:24] = 3
    truth[20:] = 0
    np.save(path, truth)
    return path


def test_a_map_is_scored_beside_the_untrained_encoder_and_plain_methods(
    planted: Path, encoder_file: Path, tmp_path: Path
) -> None:
    truth = write_truth(tmp_path / "truth.npy")
    options = MapOptions(
        encoder=f"simple-vit:{encoder_file}", k=4, method="kmeans", labels=truth, device="cpu"
    )
    report = map_image(planted, tmp_path / "map.tif", options)
    assert [(one.features, one.method, one.k) for one in report.scores] == [
        (features, method, k)
        for features, method in (
            ("simple-vit", "kmeans"),
            ("simple-vit, untrained", "kmeans"),
            ("z-scored pixels", "kmeans"),
            ("MNF", "kmeans"),
            ("z-scored pixels", "gmm"),
        )
        for k in (4, 3)
    ]
    # 20 rows of 30 less 12 pixels without data are labelled; 10 of them wrongly.
    plain = report.scores[5].score
    assert plain.pixels == 588
    assert plain.oa == pytest.approx(578 / 588)


def test_classes_are_scored_under_their_numbers_in_the_map(planted: Path, tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "truth.npy")
    report = map_image(planted, tmp_path / "map.tif", pixels_only(labels=truth))
    own = report.scores[0]
    assert [one.matched for one in own.score.per_class] == [1, 2, 3]
    # Of 120 labelled as water + 10 that are soil, the map's water holds 120.
    water = own.score.per_class[2]
    assert (water.support, water.precision) == (130, 1)
    assert water.recall == pytest.approx(120 / 130)


def test_labels_of_another_shape_are_refused_by_name(planted: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "truth.npy", np.ones((5, 6), np.uint8))
    with pytest.raises(ImageryError) as caught:
        map_image(planted, tmp_path / "map.tif", pixels_only(labels=tmp_path / "truth.npy"))
    assert caught.value.kind == "grids-differ"
    assert "truth.npy" in str(caught.value)


def test_labels_that_label_nothing_are_told(planted: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "truth.npy", np.zeros(SHAPE, np.uint8))
    report = map_image(planted, tmp_path / "map.tif", pixels_only(labels=tmp_path / "truth.npy"))
    assert report.scores == []
    assert any("nothing to score" in note for note in report.notes)


# What cannot be done ----------------------------------------------------------------------------


def test_an_image_without_a_valid_pixel_is_refused(tmp_path: Path) -> None:
    stack = np.full((4, 8, 8), NODATA, np.int16)
    image = write_geotiff(tmp_path / "empty.tif", stack, nodata=NODATA)
    with pytest.raises(ImageryError) as caught:
        map_image(image, tmp_path / "map.tif", pixels_only())
    assert caught.value.kind == "no-valid-pixels"
    assert not (tmp_path / "map.tif").exists()


def test_a_band_without_any_data_is_left_out_and_told(tmp_path: Path) -> None:
    cube = planted_cube()
    empty = np.full((1, *SHAPE), NODATA, dtype=np.int16)
    names = (*BANDS[:3], "1400 nm", *BANDS[3:])
    image = write_geotiff(
        tmp_path / "image.tif",
        np.concatenate([cube[:3], empty, cube[3:]]),
        descriptions=names,
        nodata=NODATA,
    )
    for k in (3, None):
        report = map_image(image, tmp_path / "map.tif", MapOptions(k=k))
        assert report.pixels == np.count_nonzero(planted_classes())
        assert any("left out 1 band" in note for note in report.notes)


def test_more_classes_than_different_pixels_are_refused_with_both_numbers(tmp_path: Path) -> None:
    stack = SPECTRA.T[:, [0, 1, 2, 0, 1, 2]].reshape(len(BANDS), 2, 3).astype(np.int16)
    image = write_geotiff(tmp_path / "three.tif", stack, descriptions=BANDS)
    with pytest.raises(InvalidInputError, match=r"--k 4.* 3 different pixels") as caught:
        map_image(image, tmp_path / "map.tif", pixels_only(k=4))
    assert caught.value.kind == "invalid-k"
    assert len(map_image(image, tmp_path / "map.tif", pixels_only(k=3)).classes) == 3


def test_an_image_of_one_color_is_one_class(tmp_path: Path) -> None:
    stack = np.full((4, 6, 5), 7, np.int16)
    image = write_geotiff(tmp_path / "even.tif", stack)
    report = map_image(image, tmp_path / "map.tif", pixels_only(k=None, plots=tmp_path / "plots"))
    assert [one.pixels for one in report.classes] == [30]
    assert "all pixels are the same" in report.choice.reason


@pytest.mark.parametrize("k", [-1, 0, 1, 51])
def test_a_number_of_classes_out_of_range_is_refused(planted: Path, tmp_path: Path, k: int) -> None:
    with pytest.raises(InvalidInputError) as caught:
        map_image(planted, tmp_path / "map.tif", pixels_only(k=k))
    assert caught.value.kind == "invalid-k"


def test_an_encoder_of_other_bands_is_refused(encoder_file: Path, tmp_path: Path) -> None:
    image = write_geotiff(tmp_path / "four.tif", planted_cube()[:4], nodata=NODATA)
    with pytest.raises(ImageryError, match=r"4 bands.*6") as caught:
        map_image(image, tmp_path / "map.tif", MapOptions(encoder=f"simple-vit:{encoder_file}"))
    assert caught.value.kind == "band-count"


def test_methods_that_need_an_encoder_say_so(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="--encoder"):
        map_image(planted, tmp_path / "map.tif", MapOptions(method="spectral"))


@pytest.mark.parametrize("encoder", ["croma-large", "simple-vit:", "simple-vit"])
def test_an_encoder_of_another_kind_is_refused(planted: Path, tmp_path: Path, encoder: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        map_image(planted, tmp_path / "map.tif", MapOptions(encoder=encoder))
    assert caught.value.kind == "unknown-encoder"


def test_a_missing_encoder_file_is_named(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.pt"):
        map_image(planted, tmp_path / "map.tif", MapOptions(encoder="simple-vit:absent.pt"))


@pytest.mark.parametrize("name", ["map.png", "map", "planted.tif"])
def test_a_map_that_would_be_no_geotiff_or_replace_its_image_is_refused(
    planted: Path, tmp_path: Path, name: str
) -> None:
    before = planted.read_bytes()
    with pytest.raises(InvalidInputError, match="--out"):
        map_image(planted, tmp_path / name, pixels_only())
    assert planted.read_bytes() == before


def test_a_file_that_is_no_legend_is_not_replaced_by_one(tmp_path: Path) -> None:
    np.save(tmp_path / "scene.npy", planted_cube().transpose(1, 2, 0))
    sidecar = tmp_path / "scene.json"
    sidecar.write_text('{"nodata": -9999}', encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"scene\.json"):
        map_image(tmp_path / "scene.npy", tmp_path / "scene.tif", pixels_only())
    assert sidecar.read_text(encoding="utf-8") == '{"nodata": -9999}'


def test_a_folder_that_cannot_be_made_is_told_before_any_work(
    planted: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(StorageError) as caught:
        map_image(planted, tmp_path / "file" / "map.tif", pixels_only())
    assert caught.value.kind == "write-failed"


def test_nothing_but_the_map_is_left_behind(planted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "map.tif"
    report = map_image(planted, out, pixels_only())
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "map.json",
        "map.qml",
        "map.tif",
        "map.tif.aux.xml",
    ]
    assert sorted(report.files) == sorted(str(path) for path in out.parent.iterdir())
