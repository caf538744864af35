"""Reindexing with an encoder learned from the images: any bands; chips, parcels, windows."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexer.embed import EmbedOptions, embed
from indexer.embedding_space import UNTRAINED_NOTE
from indexer.errors import InvalidInputError, WeightsError
from indexer.reindex import ReindexOptions, ReindexReport, reindex
from indexer.settings import Settings
from retriever.search import ParcelSearcher
from tests.indexer.farm import searching, states, stored, vectors, write_images
from tests.indexer.flight import (
    FIELD_PX,
    SIDE_PX,
    WAVELENGTHS_NM,
    fields,
    flight,
    open_encoder,
    train,
    write_fields,
    write_flight,
)
from tests.indexer.imagery.envi_files import write_envi
from tests.synthetic import write_geotiff

TestData = Callable[[str], Path]

S2_BANDS = ("B02", "B03", "B04", "B08")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``flight.tif``, ``fields.geojson`` and ``own.pt``, learned from the former."""
    folder = tmp_path_factory.mktemp("place")
    write_flight(folder / "flight.tif")
    write_fields(folder / "fields.geojson")
    train(folder / "flight.tif", folder / "own.pt")
    return folder


@pytest.fixture
def own(place: Path) -> str:
    return f"simple-vit:{place / 'own.pt'}"


def run(settings: Settings, imagery: Path, encoder: str, **options: object) -> ReindexReport:
    chosen = ReindexOptions(encoder=encoder, device="cpu", **options)  # type: ignore[arg-type]
    return reindex(settings, [imagery], chosen)


def assert_kinds_find_their_own(searcher: ParcelSearcher, ids: list[str]) -> None:
    """The nearest of every parcel is one of its kind, which begins its id."""
    for parcel_id in ids:
        (match,) = searcher.similar_by_id(parcel_id, k=1).matches
        assert match.parcel_id.split("-")[0] == parcel_id.split("-")[0]


# Parcels, windows, chips ---------------------------------------------------------------------


def test_parcels_find_parcels_of_their_kind(settings: Settings, place: Path, own: str) -> None:
    report = run(settings, place / "flight.tif", own, parcels=place / "fields.geojson")
    assert (report.read, report.embedded, report.skipped) == (1, 16, [])
    assert report.space is not None
    assert (report.space["encoder"], report.space["weights"]) == ("simple-vit", "trained")
    assert (report.space["pooling"], report.projection) == ("parcel", "padding")
    assert report.projection_recall_at_10 == pytest.approx(1)
    with searching(settings) as searcher:
        assert_kinds_find_their_own(searcher, list(fields()))


def test_windows_are_parcels_of_their_own(settings: Settings, place: Path, own: str) -> None:
    report = run(settings, place / "flight.tif", own, windows=FIELD_PX)
    assert (report.embedded, report.parcels) == (16, 16)
    kinds = {
        f"flight-{FIELD_PX}px-r{row * FIELD_PX:05}-c{column * FIELD_PX:05}": name.split("-")[0]
        for name, (row, column) in fields().items()
    }
    with searching(settings) as searcher:
        for parcel_id, kind in kinds.items():
            (match,) = searcher.similar_by_id(parcel_id, k=1).matches
            assert kinds[match.parcel_id] == kind
        outline = searcher.state(f"flight-{FIELD_PX}px-r00012-c00024").parcel.geometry
    assert outline is not None
    # 120 m x 120 m at 45 degrees north.
    width_m = (outline.bounds[2] - outline.bounds[0]) * 111_320 * np.cos(np.radians(45.15))
    assert width_m == pytest.approx(120, rel=0.01)


def test_windows_of_two_sizes_do_not_take_each_others_place(
    settings: Settings, place: Path, own: str
) -> None:
    run(settings, place / "flight.tif", own, windows=FIELD_PX)
    before = vectors(settings)
    second = run(settings, place / "flight.tif", own, windows=2 * FIELD_PX)
    assert (second.embedded, second.parcels) == (4, 16 + 4)
    after = vectors(settings)
    for seen, vector in before.items():
        np.testing.assert_array_equal(after[seen], vector)


def test_windows_go_with_any_encoder(settings: Settings, tmp_path: Path, one_layer: str) -> None:
    write_images(tmp_path / "scenes", 1)
    report = run(settings, tmp_path / "scenes", one_layer, weights="untrained", windows=8)
    assert (report.embedded, report.parcels) == (9, 9)
    assert ("image-00-8px-r00016-c00008", "image-00") in vectors(settings)


def test_everything_is_embedded_again_where_that_is_asked_for(
    settings: Settings, place: Path, own: str
) -> None:
    first = run(settings, place / "flight.tif", own, windows=FIELD_PX)
    again = run(settings, place / "flight.tif", own, windows=FIELD_PX, full=True)
    assert (again.embedded, again.unchanged) == (16, 0)
    assert first.generation is not None
    assert again.generation == first.generation + 1


def test_a_dry_run_writes_nothing(settings: Settings, place: Path, own: str) -> None:
    report = run(settings, place / "flight.tif", own, windows=FIELD_PX, dry_run=True)
    assert (report.embedded, report.generation) == (16, None)
    assert not settings.data_dir.exists()


def test_images_of_any_format_are_chips(settings: Settings, own: str, tmp_path: Path) -> None:
    values = flight()
    left, right = values[:, :, :FIELD_PX], values[:, :, FIELD_PX : 2 * FIELD_PX]
    write_flight(tmp_path / "images" / "a.tif", left)
    write_envi(
        tmp_path / "images" / "b.hdr",
        right,
        fields={
            "wavelength": f"{{{', '.join(map(str, WAVELENGTHS_NM))}}}",
            "wavelength units": "Nanometers",
        },
    )
    np.save(tmp_path / "images" / "c.npy", np.moveaxis(left, 0, 2))
    sidecar = {"wavelengths": list(WAVELENGTHS_NM), "wavelength_units": "nm"}
    (tmp_path / "images" / "c.json").write_text(json.dumps(sidecar))
    report = run(settings, tmp_path / "images", own)
    assert (report.read, report.embedded, report.skipped) == (3, 3, [])
    with searching(settings) as searcher:
        (match,) = searcher.similar_by_id("a", k=1).matches
        # The same pixels, as another file, without a place on the map.
        assert match.parcel_id == "c"
        assert match.score > 0.9999
        assert searcher.state("c").parcel.geometry is None


def test_an_image_of_other_bands_is_skipped_by_name(
    settings: Settings, place: Path, own: str, tmp_path: Path
) -> None:
    write_flight(tmp_path / "flight.tif")
    write_geotiff(tmp_path / "few.tif", flight()[:4], ["450 nm", "530 nm", "560 nm", "665 nm"])
    report = run(settings, tmp_path, own)
    assert report.embedded == 1
    (skipped,) = report.skipped
    assert (skipped.kind, Path(skipped.source).name) == ("missing-band", "few.tif")
    assert "740 nm, 840 nm" in skipped.reason


# Vectors -------------------------------------------------------------------------------------


def test_a_vector_does_not_depend_on_the_batch(
    settings: Settings, place: Path, own: str, tmp_path: Path
) -> None:
    run(settings, place / "flight.tif", own, windows=20, batch_size=16)
    alone = settings.model_copy(update={"data_dir": tmp_path / "alone"})
    run(alone, place / "flight.tif", own, windows=20, batch_size=1)
    found, expected = vectors(settings), vectors(alone)
    assert found.keys() == expected.keys()
    assert len(found) == 9
    for seen, vector in found.items():
        np.testing.assert_allclose(vector, expected[seen], atol=1e-5)


def test_what_is_not_of_a_parcel_does_not_change_its_vector(
    settings: Settings, place: Path, own: str, tmp_path: Path
) -> None:
    """Windows reach 3 px beyond a pixel: what lies further from the parcel is not looked at."""
    values = flight()
    values[:, :, FIELD_PX + 3 :] *= 1.5
    write_flight(tmp_path / "flight.tif", values)
    parcels = place / "fields.geojson"
    run(settings, place / "flight.tif", own, parcels=parcels)
    before = vectors(settings)
    run(settings, tmp_path / "flight.tif", own, parcels=parcels)
    after = vectors(settings)
    near, far = ("beet-00", "flight"), ("wheat-02", "flight")
    np.testing.assert_allclose(after[near], before[near], atol=1e-5)
    assert float(after[far] @ before[far]) < 0.999


def test_pixels_without_data_do_not_count(settings: Settings, own: str, tmp_path: Path) -> None:
    values = flight()
    values[:, :, FIELD_PX:] = np.nan
    write_flight(tmp_path / "images" / "part.tif", values[:, :FIELD_PX, : FIELD_PX + 6])
    write_flight(tmp_path / "images" / "whole.tif", flight()[:, :FIELD_PX, : FIELD_PX + 6])
    run(settings, tmp_path / "images", own)
    with searching(settings) as searcher:
        seen = searcher.state("part").observations[0]
    assert seen.valid_fraction == pytest.approx(FIELD_PX / (FIELD_PX + 6))
    assert np.isfinite(vectors(settings)["part", "part"]).all()


def test_a_track_leaves_its_empty_windows_out_and_says_so(
    settings: Settings, own: str, tmp_path: Path
) -> None:
    values = flight()
    values[:, :, 2 * FIELD_PX :] = 0
    report = run(settings, write_flight(tmp_path / "track.tif", values), own, windows=FIELD_PX)
    assert (report.embedded, report.skipped) == (8, [])
    assert "track: 8 windows without data are left out." in report.notes


# A second time -------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"windows": 20}, {"parcels": True}])
def test_a_second_time_nothing_is_embedded(
    settings: Settings, place: Path, own: str, options: dict[str, object]
) -> None:
    if "parcels" in options:
        options = {"parcels": place / "fields.geojson"}
    first = run(settings, place / "flight.tif", own, **options)
    rows = {seen: row for seen, (row, _) in stored(settings).items()}
    again = run(settings, place / "flight.tif", own, **options)
    assert (again.embedded, again.unchanged) == (0, first.embedded)
    assert again.generation == first.generation
    assert {seen: row for seen, (row, _) in stored(settings).items()} == rows


def test_another_training_is_another_space(
    settings: Settings, place: Path, own: str, tmp_path: Path
) -> None:
    first = run(settings, place / "flight.tif", own)
    other = train(place / "flight.tif", tmp_path / "other.pt", seed=1)
    second = run(settings, place / "flight.tif", f"simple-vit:{other}")
    assert second.embedded == 1
    assert first.space is not None
    assert second.space is not None
    assert first.space["id"] != second.space["id"]


def test_an_encoder_that_moved_embeds_nothing_and_is_found_where_it_is(
    settings: Settings, place: Path, own: str, tmp_path: Path
) -> None:
    run(settings, place / "flight.tif", own)
    moved = shutil.copy(place / "own.pt", tmp_path / "moved.pt")
    assert run(settings, place / "flight.tif", f"simple-vit:{moved}").embedded == 0


def test_two_encoders_live_side_by_side_and_never_meet(
    settings: Settings, place: Path, own: str, tmp_path: Path, one_layer: str
) -> None:
    run(settings, place / "flight.tif", own, windows=FIELD_PX, collection="flights")
    write_images(tmp_path / "scenes", 3)
    run(settings, tmp_path / "scenes", one_layer, weights="untrained", collection="scenes")
    with searching(settings) as searcher:
        answer = searcher.similar_by_id(f"flight-{FIELD_PX}px-r00000-c00000", k=50)
        assert {match.collection for match in answer.matches} == {"flights"}
        answer = searcher.similar_by_id("image-00", k=50)
        assert {match.collection for match in answer.matches} == {"scenes"}


# Honesty and refusals ------------------------------------------------------------------------


def test_an_untrained_encoder_is_named_as_such(
    settings: Settings, place: Path, tmp_path: Path
) -> None:
    file = train(place / "flight.tif", tmp_path / "random.pt", steps=0)
    report = run(settings, place / "flight.tif", f"simple-vit:{file}")
    assert report.space is not None
    assert report.space["weights"] == "untrained"
    assert UNTRAINED_NOTE in report.notes


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"weights": "untrained"}, "--weights untrained"),
        ({"normalization": "dataset"}, "--normalization dataset"),
        ({"normalization": "ssl4eo"}, "--normalization ssl4eo"),
        ({"windows": 4}, "--windows 4"),
        ({"windows": 1025}, "--windows 1025"),
        ({"windows": 20, "parcels": Path("fields.geojson")}, "--windows cuts"),
    ],
)
def test_options_that_contradict_are_refused_by_name(
    settings: Settings, place: Path, own: str, options: dict[str, object], named: str
) -> None:
    with pytest.raises(InvalidInputError, match=named) as caught:
        run(settings, place / "flight.tif", own, **options)
    assert caught.value.kind == "invalid-option"
    assert not settings.data_dir.exists()


@pytest.mark.parametrize("encoder", ["simple-vit", "simple-vit:", "resnet"])
def test_an_unknown_encoder_is_refused(settings: Settings, place: Path, encoder: str) -> None:
    with pytest.raises(InvalidInputError, match="simple-vit:FILE") as caught:
        run(settings, place / "flight.tif", encoder)
    assert caught.value.kind == "unknown-encoder"


def test_a_file_that_is_no_encoder_is_refused(
    settings: Settings, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "no.pt").write_bytes(b"lost")
    with pytest.raises(WeightsError, match=r"no\.pt") as caught:
        run(settings, place / "flight.tif", f"simple-vit:{tmp_path / 'no.pt'}")
    assert caught.value.kind == "weights-corrupt"


def test_bands_cannot_be_named_where_images_name_their_own(
    settings: Settings, own: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "flight.npz", cube=np.moveaxis(flight(), 0, 2))
    with pytest.raises(InvalidInputError, match="--bands l2a") as caught:
        run(settings, tmp_path / "flight.npz", own, bands="l2a")
    assert caught.value.kind == "invalid-bands"


# State ---------------------------------------------------------------------------------------


def test_without_the_bands_of_indices_there_are_none(
    settings: Settings, place: Path, own: str
) -> None:
    run(settings, place / "flight.tif", own, parcels=place / "fields.geojson")
    assert all(indices == {} for _, indices in states(settings).values())
    with searching(settings) as searcher:
        state = searcher.state("beet-00").to_dict()
        assert state["formulas"] == {}
        assert searcher.similar_by_id("beet-00", k=3).to_geojson()["features"]


def test_sentinel_2_keeps_its_indices(settings: Settings, tmp_path: Path) -> None:
    dn = np.full((4, 24, 24), 1000, np.uint16)
    dn[3], dn[:, :12] = 3000, dn[:, :12] + 500
    dn[:, ::2, ::3] += 37
    image = write_geotiff(tmp_path / "s2.tif", dn, S2_BANDS)
    file = train(image, tmp_path / "s2.pt")
    run(settings, image, f"simple-vit:{file}")
    ((_, indices),) = states(settings).values()
    red, nir = dn[2].astype(float), dn[3].astype(float)
    assert indices["NDVI"]["median"] == pytest.approx(np.median((nir - red) / (nir + red)))
    assert "NDMI" not in indices


def test_bands_that_only_bear_sentinel_2s_names_give_no_index(
    settings: Settings, tmp_path: Path
) -> None:
    names = {"band names": f"{{{', '.join(S2_BANDS)}}}"}
    image = write_envi(tmp_path / "drone.hdr", flight()[:4], fields=names)
    file = train(image, tmp_path / "drone.pt")
    assert run(settings, image, f"simple-vit:{file}").embedded == 1
    ((_, indices),) = states(settings).values()
    assert indices == {}


# embed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [None, 512])
def test_embed_writes_what_reindex_would_store(
    settings: Settings, place: Path, own: str, tmp_path: Path, dimensions: int | None
) -> None:
    report = embed(
        settings,
        [place / "flight.tif"],
        tmp_path / "out.npy",
        EmbedOptions(encoder=own, windows=FIELD_PX, device="cpu", dimensions=dimensions),
    )
    rows = np.load(tmp_path / "out.npy")
    assert (
        report.shape == rows.shape == (16, dimensions or open_encoder(place / "own.pt").dimensions)
    )
    run(settings, place / "flight.tif", own, windows=FIELD_PX)
    if dimensions == 512:
        about = json.loads((tmp_path / "out.json").read_text())
        assert about["projection"] == "padding"
        names = [row["id"] for row in about["rows"]]
        for name, row in zip(names, rows, strict=True):
            np.testing.assert_allclose(row, vectors(settings)[name, "flight"], atol=1e-5)


def test_an_image_too_large_to_be_one_chip_is_cut_into_windows(
    settings: Settings, own: str, tmp_path: Path
) -> None:
    wide = np.tile(flight()[:, :12], (1, 1, 22))
    image = write_flight(tmp_path / "wide.tif", wide)
    report = run(settings, image, own)
    assert [(one.kind, "--windows" in one.reason) for one in report.skipped] == [
        ("too-large", True)
    ]
    assert run(settings, image, own, windows=96).embedded == 11


def test_a_chip_of_too_many_values_is_refused_before_it_is_read(
    settings: Settings, place: Path, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = SIDE_PX * SIDE_PX * len(WAVELENGTHS_NM)
    monkeypatch.setattr("indexer.pipeline.MOST_CHIP_VALUES", values - 1)
    (skipped,) = run(settings, place / "flight.tif", own).skipped
    assert skipped.kind == "too-large"
    assert "--windows" in skipped.reason
    assert run(settings, place / "flight.tif", own, windows=40).embedded == 4


def test_windows_of_real_fields_find_windows_of_the_same_crop(
    settings: Settings, test_data: TestData, tmp_path: Path
) -> None:
    image = test_data("hyperspectral") / "salinas_a.npz"
    truth = np.load(image)["gt"]
    file = train(image, tmp_path / "own.pt", steps=10)
    run(settings, image, f"simple-vit:{file}", windows=8)
    pure: dict[str, int] = {}
    for parcel_id, _ in vectors(settings):
        row, column = int(parcel_id[-12:-7]), int(parcel_id[-5:])
        classes, counts = np.unique(truth[row : row + 8, column : column + 8], return_counts=True)
        if classes[counts.argmax()] > 0 and counts.max() >= 60:
            pure[parcel_id] = int(classes[counts.argmax()])
    assert len(pure) > 20
    with searching(settings) as searcher:
        same = [
            crop == pure[next(one.parcel_id for one in matches if one.parcel_id in pure)]
            for parcel_id, crop in pure.items()
            for matches in [searcher.similar_by_id(parcel_id, k=30).matches]
        ]
    assert np.mean(same) > 0.9
