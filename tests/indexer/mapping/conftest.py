from pathlib import Path

import pytest

from indexer.training.pretrain import PretrainOptions, pretrain
from tests.indexer.mapping.planted import write_planted


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """The planted image as a GeoTIFF."""
    return write_planted(tmp_path / "planted.tif")


@pytest.fixture(scope="session")
def encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder that saw the planted image for a few steps."""
    folder = tmp_path_factory.mktemp("encoder")
    image = write_planted(folder / "planted.tif")
    out = folder / "planted.pt"
    pretrain([image], out, PretrainOptions(steps=5, batch_size=32, device="cpu"))
    return out
