"""Asking with images, and looking at parcels, where an encoder of one's own made the index."""

import io
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from indexer.errors import (
    GenerationMismatchError,
    ImageryError,
    InvalidInputError,
    NotFoundError,
    WeightsError,
)
from indexer.imagery import uploads
from indexer.imagery.chip import Chip
from indexer.imagery.reader import ReadingOptions
from indexer.imagery.spectral_sources import SpectralReading, read_whole
from indexer.imagery.uploads import read_upload
from indexer.reindex import ReindexOptions, reindex
from indexer.settings import Settings
from retriever import query_embedding
from retriever.query_embedding import bands_to_ask_with
from retriever.search import ParcelSearcher
from tests.indexer.flight import FIELD_PX, KINDS, flight, train, write_fields, write_flight
from tests.retriever.planted import searching, settings_in
from tests.synthetic import make_chip, write_geotiff

UInt8Array = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index in ``data`` of the fields of ``flight.tif``, and its encoder ``own.pt``."""
    folder = tmp_path_factory.mktemp("made")
    write_flight(folder / "flight.tif")
    write_fields(folder / "fields.geojson")
    train(folder / "flight.tif", folder / "own.pt")
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """The same in a place of its own, indexed from there."""
    query_embedding._pixel_encoder.cache_clear()
    shutil.copytree(made, tmp_path / "place")
    options = ReindexOptions(
        encoder=f"simple-vit:{tmp_path / 'place' / 'own.pt'}",
        parcels=tmp_path / "place" / "fields.geojson",
        device="cpu",
    )
    reindex(settings_in(tmp_path / "place" / "data"), [tmp_path / "place" / "flight.tif"], options)
    return tmp_path / "place"


def index_in(place: Path) -> Settings:
    return settings_in(place / "data")


def field(folder: Path, column: int) -> Path:
    """An image of one field of the first row."""
    values = flight(seed=9)[:, 1:11, column * FIELD_PX + 1 : (column + 1) * FIELD_PX - 1]
    return write_flight(folder / "question.tif", values)


def ask(searcher: ParcelSearcher, path: Path) -> str:
    wanted = bands_to_ask_with(searcher.engine, None).spectral
    assert wanted is not None
    chip = read_whole(path, SpectralReading(wanted))
    return searcher.similar_by_chip(chip, k=1).matches[0].parcel_id


@pytest.mark.parametrize("column", [0, 1, 2])
def test_an_image_of_a_field_finds_fields_of_its_kind(place: Path, column: int) -> None:
    with searching(index_in(place)) as searcher:
        assert ask(searcher, field(place, column)).startswith(KINDS[column])


def test_an_uploaded_image_finds_fields_of_its_kind(place: Path) -> None:
    content = field(place, 1).read_bytes()
    with searching(index_in(place)) as searcher:
        wanted = bands_to_ask_with(searcher.engine, "parcels").spectral
        chip = read_upload(content, "question.tif", ReadingOptions(), wanted)
        (match,) = searcher.similar_by_chip(chip, k=1).matches
    assert match.parcel_id.startswith(KINDS[1])


def test_an_uploaded_image_of_other_bands_is_refused(place: Path) -> None:
    path = write_geotiff(place / "few.tif", flight()[:3], ["450 nm", "530 nm", "560 nm"])
    with searching(index_in(place)) as searcher:
        wanted = bands_to_ask_with(searcher.engine, None).spectral
    with pytest.raises(ImageryError, match="3 of 6 wanted bands are missing") as caught:
        read_upload(path.read_bytes(), "few.tif", ReadingOptions(), wanted)
    assert caught.value.kind == "missing-band"
    assert str(place) not in caught.value.message


def test_an_image_needs_a_collection_where_there_are_several_encoders(place: Path) -> None:
    """Else an image of one encoder's bands would be refused for lacking those of the other."""
    settings = index_in(place)
    other = train(place / "flight.tif", place / "other.pt", seed=1)
    options = ReindexOptions(encoder=f"simple-vit:{other}", collection="other", device="cpu")
    reindex(settings, [place / "flight.tif"], options)
    with searching(settings) as searcher:
        with pytest.raises(InvalidInputError, match='name one of "other", "parcels"') as caught:
            bands_to_ask_with(searcher.engine, None)
        assert caught.value.kind == "invalid-collection"
        assert bands_to_ask_with(searcher.engine, "other").spectral is not None
        with pytest.raises(NotFoundError, match='"another"'):
            bands_to_ask_with(searcher.engine, "another")


def test_an_upload_is_bounded_before_it_is_read(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MAX_SPECTRAL_VALUES", 10 * 10 * 6 - 1)
    with searching(index_in(place)) as searcher:
        wanted = bands_to_ask_with(searcher.engine, None).spectral
    with pytest.raises(ImageryError, match="too much for a question") as caught:
        read_upload(field(place, 0).read_bytes(), "q.tif", ReadingOptions(), wanted)
    assert caught.value.kind == "too-large"


def test_a_chip_of_sentinel_2_is_refused_by_what_it_lacks(place: Path) -> None:
    with (
        searching(index_in(place)) as searcher,
        pytest.raises(ImageryError, match="wanted bands are missing") as caught,
    ):
        searcher.similar_by_chip(make_chip(16))
    assert caught.value.kind == "missing-band"


def test_a_chip_under_clouds_is_refused(place: Path) -> None:
    wanted = tuple(f"{at} nm" for at in (450, 530, 560, 665, 740, 840))
    chip: Chip = make_chip(8, wanted, valid_mask=np.zeros((8, 8), bool))
    with (
        searching(index_in(place)) as searcher,
        pytest.raises(ImageryError, match="clouds hide every pixel") as caught,
    ):
        searcher.similar_by_chip(chip)
    assert caught.value.kind == "no-valid-pixels"


def test_an_encoder_that_was_replaced_is_refused(place: Path) -> None:
    train(place / "flight.tif", place / "own.pt", seed=5)
    with (
        searching(index_in(place)) as searcher,
        pytest.raises(GenerationMismatchError, match="made with the encoder") as caught,
    ):
        ask(searcher, field(place, 0))
    assert "CROMA" not in caught.value.message
    assert caught.value.kind == "space-mismatch"


def test_an_encoder_that_is_gone_is_missed_by_name_until_its_new_place_is_named(
    place: Path,
) -> None:
    moved = (place / "own.pt").rename(place / "moved.pt")
    with (
        searching(index_in(place)) as searcher,
        pytest.raises(WeightsError, match=r"own\.pt.*simple-vit:FILE") as caught,
    ):
        ask(searcher, field(place, 0))
    assert caught.value.kind == "weights-not-found"
    options = ReindexOptions(
        encoder=f"simple-vit:{moved}", parcels=place / "fields.geojson", device="cpu"
    )
    assert reindex(index_in(place), [place / "flight.tif"], options).embedded == 0
    with searching(index_in(place)) as searcher:
        assert ask(searcher, field(place, 2)).startswith(KINDS[2])


def test_nobody_needs_the_encoder_to_ask_by_id(place: Path) -> None:
    (place / "own.pt").unlink()
    with searching(index_in(place)) as searcher:
        assert searcher.similar_by_id("beet-00", k=1).matches


# Pictures ------------------------------------------------------------------------------------


def picture(settings: Settings, parcel_id: str, **asked: object) -> UInt8Array:
    with searching(settings) as searcher:
        content = searcher.preview(parcel_id, **asked).draw()  # type: ignore[arg-type]
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))


@pytest.mark.parametrize("style", ["true-color", "false-color"])
def test_a_parcel_of_any_bands_has_a_picture(place: Path, style: str) -> None:
    drawn = picture(index_in(place), "wheat-02", style=style, size_px=64)
    assert drawn.shape == (64, 64, 4)
    shown = drawn[drawn[..., 3] == 255]
    assert len(np.unique(shown, axis=0)) > 10


def test_a_window_without_a_place_is_shown_by_itself(place: Path, tmp_path: Path) -> None:
    """Beet reflects most in the near infrared: its window has another mean color than wheat's."""
    values = np.moveaxis(flight()[:, :FIELD_PX, : 2 * FIELD_PX], 0, 2).copy()
    values[:, FIELD_PX:] = 0
    np.savez(place / "strip.npz", cube=values)
    encoder = train(place / "strip.npz", place / "strip.pt", steps=1)
    chosen = settings_in(tmp_path / "strip")
    options = ReindexOptions(encoder=f"simple-vit:{encoder}", windows=16, device="cpu")
    reindex(chosen, [place / "strip.npz"], options)
    drawn = picture(chosen, "strip-16px-r00000-c00008", size_px=64)
    # Columns 8 to 12 of 24 have data: the first quarter of columns 8 to 24, of 16 rows 12.
    opaque = (drawn[..., 3] == 255).mean(axis=0)
    assert (opaque[:16] > 0.5).all()
    assert (opaque[16:] == 0).all()


def test_false_color_needs_the_near_infrared(place: Path, tmp_path: Path) -> None:
    np.savez(place / "strip.npz", cube=np.moveaxis(flight(), 0, 2))
    encoder = train(place / "strip.npz", place / "strip.pt", steps=1)
    chosen = settings_in(tmp_path / "strip")
    options = ReindexOptions(encoder=f"simple-vit:{encoder}", device="cpu")
    reindex(chosen, [place / "strip.npz"], options)
    assert picture(chosen, "strip", size_px=64).shape == (64, 64, 4)
    with pytest.raises(NotFoundError, match="ask for true-color") as caught:
        picture(chosen, "strip", style="false-color", size_px=64)
    assert caught.value.kind == "preview-not-found"


def test_an_image_that_is_gone_has_no_picture(place: Path) -> None:
    (place / "flight.tif").unlink()
    with pytest.raises(NotFoundError, match="no longer lies") as caught:
        picture(index_in(place), "beet-00", size_px=64)
    assert caught.value.kind == "preview-not-found"
