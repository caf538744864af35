from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indexer.encoders.croma import parameters
from indexer.encoders.weights import locate_weights
from indexer.errors import GenerationMismatchError, ImageryError, InvalidInputError, WeightsError
from indexer.imagery.chip import Chip
from indexer.imagery.reader import ReadingOptions, read_image
from indexer.reindex import ReindexOptions, reindex
from indexer.sensors import PROFILES
from indexer.settings import Settings
from retriever import query_embedding
from retriever.search import ParcelSearcher
from tests.retriever.planted import searching, settings_in, write_image
from tests.synthetic import make_chip

NAMES = ("beet", "maize", "rape", "wheat")


def read(path: Path) -> Chip:
    return read_image(path, ReadingOptions())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for seed, name in enumerate(NAMES):
        write_image(folder / f"{name}.tif", seed)
    return folder


@pytest.fixture(scope="module")
def searcher(
    tmp_path_factory: pytest.TempPathFactory, images: Path, tiny_croma: str
) -> Iterator[ParcelSearcher]:
    """Searches whole images, embedded by an untrained network."""
    chosen = settings_in(tmp_path_factory.mktemp("index"))
    reindex(chosen, [images], ReindexOptions(encoder=tiny_croma, device="cpu"))
    with searching(chosen) as searcher:
        yield searcher


@pytest.mark.parametrize("name", NAMES)
def test_the_pixels_of_a_stored_image_find_it_first(
    searcher: ParcelSearcher, images: Path, name: str
) -> None:
    matches = searcher.similar_by_chip(read(images / f"{name}.tif"), k=2)
    first, second = matches.matches
    assert first.parcel_id == name
    assert first.score >= 0.999
    assert second.score < first.score
    assert matches.query == {"image": name, "datetime": None, "k": 2, "filter": {}}


def test_an_image_of_another_size_may_ask(searcher: ParcelSearcher) -> None:
    (match,) = searcher.similar_by_chip(make_chip(size=64), k=1).matches
    assert -1 <= match.score <= 1


def test_an_image_without_a_band_is_refused_by_the_bands_name(searcher: ParcelSearcher) -> None:
    bands = tuple(band for band in PROFILES["l2a"] if band != "B11")
    with pytest.raises(ImageryError, match="B11 is missing") as caught:
        searcher.similar_by_chip(make_chip(bands=bands))
    assert caught.value.kind == "missing-band"


def test_an_image_without_data_is_refused(searcher: ParcelSearcher) -> None:
    nothing = np.full((12, 120, 120), np.nan, np.float32)
    with pytest.raises(ImageryError, match="no pixel has data") as caught:
        searcher.similar_by_chip(make_chip(reflectance=nothing))
    assert caught.value.kind == "no-valid-pixels"


def test_k_out_of_bounds_is_refused_before_anything_is_embedded(searcher: ParcelSearcher) -> None:
    with pytest.raises(InvalidInputError, match="k is 0"):
        searcher.similar_by_chip(make_chip(), k=0)


# Weights -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory: pytest.TempPathFactory, tiny_croma: str) -> Path:
    """A file of the optical parts, as one state dict."""
    import torch

    content = parameters(tiny_croma, locate_weights("untrained", tiny_croma), "optical")
    file = tmp_path_factory.mktemp("weights") / "weights.pt"
    torch.save(content, file)
    return file


@pytest.fixture(scope="module")
def index_of_weights(
    tmp_path_factory: pytest.TempPathFactory, images: Path, weight_file: Path, tiny_croma: str
) -> Settings:
    """Settings of an index that was made with ``weight_file``, though they name others."""
    chosen = settings_in(tmp_path_factory.mktemp("trained"))
    options = ReindexOptions(encoder=tiny_croma, weights=str(weight_file), device="cpu")
    reindex(chosen, [images], options)
    return chosen


@pytest.fixture
def weights(weight_file: Path) -> Iterator[Path]:
    """The weight file, to be moved and changed; no network is in memory yet."""
    content = weight_file.read_bytes()
    query_embedding._loaded.cache_clear()
    yield weight_file
    weight_file.write_bytes(content)


@pytest.fixture
def trained(index_of_weights: Settings, weights: Path) -> Settings:
    return index_of_weights


def ask(chosen: Settings, images: Path) -> str:
    with searching(chosen) as searcher:
        return searcher.similar_by_chip(read(images / "rape.tif"), k=1).matches[0].parcel_id


def test_weights_are_found_where_the_index_was_made_with_them(
    trained: Settings, images: Path
) -> None:
    assert ask(trained, images) == "rape"


def test_weights_that_moved_are_found_by_the_settings(
    trained: Settings, images: Path, weights: Path
) -> None:
    moved = weights.rename(weights.with_name("moved.pt"))
    assert ask(trained.model_copy(update={"croma_weights": str(moved)}), images) == "rape"


def test_weights_that_are_gone_are_missed_by_name(
    trained: Settings, images: Path, weights: Path
) -> None:
    weights.unlink()
    with pytest.raises(WeightsError, match=str(weights)) as caught:
        ask(trained.model_copy(update={"croma_weights": str(weights)}), images)
    assert caught.value.kind == "weights-not-found"


@pytest.mark.parametrize("configured", ["the same file", "untrained", "pretrained"])
def test_weights_that_changed_since_are_refused(
    trained: Settings, images: Path, weights: Path, configured: str
) -> None:
    weights.write_bytes(b"other weights")
    setting = str(weights) if configured == "the same file" else configured
    with pytest.raises(GenerationMismatchError, match="was made with the weights") as caught:
        ask(trained.model_copy(update={"croma_weights": setting}), images)
    assert caught.value.kind == "space-mismatch"


def test_a_network_is_loaded_once_and_its_weights_are_read_once(
    trained: Settings, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_files: list[str] = []

    def noted(choice: str, encoder: str) -> object:
        read_files.append(choice)
        return locate_weights(choice, encoder)

    monkeypatch.setattr(query_embedding, "locate_weights", noted)
    with searching(trained) as searcher:
        for name in NAMES:
            assert searcher.similar_by_chip(read(images / f"{name}.tif"), k=1).matches
    assert len(read_files) == 1
