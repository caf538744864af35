from pathlib import Path

import numpy as np
import pytest

from indexer.errors import ImageryError, InvalidInputError, NotFoundError
from indexer.imagery.spectral_bands import SpectralBand
from indexer.imagery.spectral_sources import (
    SpectralReading,
    find_spectral_sources,
    is_sentinel2,
    layer_bands,
    read_whole,
)
from tests.indexer.imagery.envi_files import write_envi
from tests.synthetic import make_dn, write_band_folder, write_geotiff

CUBE = np.arange(3 * 4 * 5, dtype=np.float32).reshape(3, 4, 5) + 1
BANDS = tuple(SpectralBand(f"band {number}", None) for number in (1, 2, 3))


def names_of(*imagery: Path | str) -> list[str]:
    return [source.name for source in find_spectral_sources(imagery)[0]]


def save(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, cube=np.moveaxis(CUBE, 0, 2))
    return path


def test_images_of_every_format_are_found(tmp_path: Path) -> None:
    write_geotiff(tmp_path / "d.tif", CUBE)
    write_envi(tmp_path / "c.hdr", CUBE)
    save(tmp_path / "a.npz")
    np.save(tmp_path / "b.npy", CUBE)
    (tmp_path / "b.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("no image")
    assert names_of(tmp_path) == ["d", "a", "b", "c"]
    assert names_of(f"{tmp_path}/*") == ["d", "a", "b", "c"]


def test_what_a_shell_makes_of_a_glob_is_each_image_once(tmp_path: Path) -> None:
    write_envi(tmp_path / "c.hdr", CUBE)
    np.save(tmp_path / "b.npy", CUBE)
    (tmp_path / "b.json").write_text("{}")
    assert names_of(*sorted(tmp_path.iterdir())) == ["b", "c"]


def test_the_numbers_of_a_header_are_an_image_where_they_are_named_alone(tmp_path: Path) -> None:
    write_envi(tmp_path / "c.hdr", CUBE)
    (source,), _ = find_spectral_sources([tmp_path / "c.img"])
    assert SpectralReading(BANDS).open(source).shape == (4, 5)


def test_subfolders_are_classes(tmp_path: Path) -> None:
    save(tmp_path / "maize" / "a.npz")
    save(tmp_path / "2024-05-01" / "b.npz")
    save(tmp_path / "c.npz")
    found, _ = find_spectral_sources([tmp_path])
    assert {source.name: source.class_name for source in found} == {
        "a": "maize",
        "b": None,
        "c": None,
    }


def test_band_files_of_sentinel_2_are_one_image(tmp_path: Path) -> None:
    dn = make_dn(12, ("B02", "B03", "B08"))
    write_band_folder(tmp_path / "s2", dict(zip(("B02", "B03", "B08"), dn, strict=True)))
    ((source), *others), _ = find_spectral_sources([tmp_path])
    assert others == []
    wanted = (SpectralBand("B08", 0.833), SpectralBand("B02", 0.492))
    image = SpectralReading(wanted, baseline="03.01").open(source)
    assert is_sentinel2(image)
    np.testing.assert_allclose(image.read().reflectance, dn[[2, 0]] / np.float32(10_000))


def test_a_file_whose_name_ends_like_a_band_is_an_image(tmp_path: Path) -> None:
    write_geotiff(tmp_path / "flight_B02.tif", CUBE)
    (source,), _ = find_spectral_sources([tmp_path])
    assert source.name == "flight_B02"
    assert SpectralReading(BANDS).open(source).shape == (4, 5)


def test_what_is_not_there_is_skipped_by_name(tmp_path: Path) -> None:
    save(tmp_path / "a.npz")
    found, skipped = find_spectral_sources([tmp_path / "a.npz", tmp_path / "gone"])
    assert len(found) == 1
    assert [one.kind for one in skipped] == ["file-not-found"]
    assert "gone" in skipped[0].reason


def test_nothing_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"\.npz") as caught:
        find_spectral_sources([tmp_path])
    assert caught.value.kind == "no-imagery"


def test_layers_that_were_named_are_remembered(tmp_path: Path) -> None:
    dn = make_dn(8, ("B02", "B03"))
    path = write_geotiff(tmp_path / "chip.tif", dn)
    (source,), _ = find_spectral_sources([path])
    wanted = (SpectralBand("B03", 0.56), SpectralBand("B02", 0.49))
    image = SpectralReading(wanted, bands="B02,B03").open(source)
    assert layer_bands(image) == ("B02", "B03")
    assert [band.name for band in image.bands] == ["B03", "B02"]


def test_layers_without_names_are_asked_for_by_the_option_that_helps(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "chip.tif", np.ones((2, 8, 8), np.uint16))
    (source,), _ = find_spectral_sources([path])
    with pytest.raises(ImageryError, match="--bands") as caught:
        SpectralReading((SpectralBand("B03", 0.56), SpectralBand("B02", 0.49))).open(source)
    assert caught.value.kind == "bands-unknown"


def test_one_image_is_read_as_a_whole(tmp_path: Path) -> None:
    chip = read_whole(save(tmp_path / "a.npz"), SpectralReading(BANDS))
    np.testing.assert_array_equal(chip.reflectance, CUBE)
    save(tmp_path / "b.npz")
    with pytest.raises(InvalidInputError, match="holds 2 images"):
        read_whole(tmp_path, SpectralReading(BANDS))
    with pytest.raises(NotFoundError):
        read_whole(tmp_path / "gone.npz", SpectralReading(BANDS))
