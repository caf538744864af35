"""Images that strangers send: read like any file, or refused without a trace of the server."""

import struct
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from indexer.errors import ImageryError
from indexer.imagery.reader import ReadingOptions, read_image
from indexer.imagery.uploads import MAX_LAYERS, read_upload
from indexer.sensors import PROFILES
from tests.retriever.planted import write_image

OPTIONS = ReadingOptions()
NAME = "S2A_MSIL2A_20230529T105031_N0509_chip.tif"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    write_image(path, seed=1)
    return path


def refusal(content: bytes, name: str = NAME) -> ImageryError:
    with pytest.raises(ImageryError) as caught:
        read_upload(content, name, OPTIONS)
    assert "/" not in caught.value.message.replace(" / ", ""), "a path of the server is told"
    return caught.value


def written(path: Path, **profile: object) -> bytes:
    """A GeoTIFF without pixels."""
    usual = {"driver": "GTiff", "dtype": "uint16", "count": 1, "width": 16, "height": 16}
    given = {"crs": "EPSG:32631", "transform": Affine(10, 0, 0, 0, -10, 0), "sparse_ok": True}
    with rasterio.open(path, "w", **(usual | given | profile)):
        pass
    return path.read_bytes()


def test_an_upload_is_read_as_the_file_would_be(image: Path) -> None:
    sent = read_upload(image.read_bytes(), NAME, OPTIONS)
    kept = read_image(image, OPTIONS)
    np.testing.assert_array_equal(sent.reflectance, kept.reflectance)
    assert (sent.acquired_at, sent.processing_baseline) == (
        kept.acquired_at,
        kept.processing_baseline,
    )
    assert sent.acquired_at is not None
    assert sent.scene == kept.scene


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "/abs/olute.tif", "a\0b.tif", "é" * 500])
def test_no_name_leads_anywhere(image: Path, name: str) -> None:
    chip = read_upload(image.read_bytes(), name, OPTIONS)
    assert "/" not in chip.scene
    assert len(chip.scene) <= 120


@pytest.mark.parametrize(
    "content",
    [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 100, b"II*\0" + b"\xff" * 200],
    ids=["nothing", "text", "another format", "a broken header"],
)
def test_what_is_no_geotiff_is_refused_by_its_name(content: bytes) -> None:
    error = refusal(content)
    assert error.kind == "unreadable"
    assert error.message.startswith(NAME)


def test_a_truncated_image_is_refused(image: Path) -> None:
    content = image.read_bytes()
    assert refusal(content[: len(content) // 2]).kind == "unreadable"


def test_a_vrt_that_names_a_file_of_the_server_is_not_followed(image: Path) -> None:
    vrt = (
        '<VRTDataset rasterXSize="1" rasterYSize="1"><VRTRasterBand dataType="UInt16" band="1">'
        f"<SimpleSource><SourceFilename>{image}</SourceFilename><SourceBand>1</SourceBand>"
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    assert refusal(vrt.encode()).kind == "unreadable"


def test_a_scene_is_refused_by_its_header_alone(tmp_path: Path) -> None:
    content = written(
        tmp_path / "huge.tif",
        count=12,
        width=100_000,
        height=100_000,
        tiled=True,
        blockxsize=512,
        blockysize=512,
        bigtiff="yes",
    )
    # 240 GB of pixels, none of which is there.
    assert len(content) < 64 << 20
    with rasterio.open(tmp_path / "huge.tif", "r+") as file:
        file.descriptions = PROFILES["l2a"]
    error = refusal((tmp_path / "huge.tif").read_bytes())
    assert error.kind == "too-large"
    assert "100000 x 100000 px" in error.message


def test_blocks_far_larger_than_the_image_are_refused(tmp_path: Path) -> None:
    content = bytearray(
        written(
            tmp_path / "block.tif", tiled=True, blockxsize=16, blockysize=16, endianness="little"
        )
    )
    # TileWidth (322) and TileLength (323): 16 becomes 65,520 on both sides.
    for tag in (322, 323):
        at = content.index(struct.pack("<HHI", tag, 3, 1))
        content[at + 8 : at + 10] = struct.pack("<H", 65_520)
    error = refusal(bytes(content))
    assert error.kind == "too-large"
    assert "8188 MiB" in error.message


def test_a_stack_of_very_many_layers_is_refused(tmp_path: Path) -> None:
    error = refusal(written(tmp_path / "stack.tif", count=MAX_LAYERS + 1))
    assert error.kind == "too-large"
    assert "65 layers" in error.message
