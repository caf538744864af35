import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from indexer.chipping import Window
from indexer.embedder import Embedder, embed_ahead
from indexer.encoders.base import Images
from indexer.encoders.weights import Weights
from indexer.errors import ImageryError
from indexer.pipeline import TileWork
from indexer.preparing import Prepared
from tests.indexer.one_chip import PATCHES, embed, in_chip, prepare, work_of
from tests.synthetic import make_chip

FloatArray = npt.NDArray[np.float32]


class Averaging:
    """An encoder whose tokens are the patches' mean of the first band; its head doubles them."""

    name = "averaging"
    weights = Weights("untrained", "averages", None)
    precision = "fp32"
    dimensions = 1
    patches_per_side = PATCHES
    loaded = True

    def load(self) -> None:
        """There is nothing to read."""

    def pool(self, images: Images, pooling_weights: Sequence[FloatArray]) -> list[FloatArray]:
        tokens = np.stack(list(images))[:, 0].reshape(-1, PATCHES, 8, PATCHES, 8).mean(axis=(2, 4))
        return [
            np.array([[np.average(token, weights=weight)] for weight in weights], np.float32)
            for token, weights in zip(tokens, pooling_weights, strict=True)
        ]

    def finish(self, pooled: FloatArray) -> FloatArray:
        return 2 * pooled

    def encode(self, images: Images, pooling_weights: Sequence[FloatArray]) -> list[FloatArray]:
        return [self.finish(rows) for rows in self.pool(images, pooling_weights)]


def image_of(brightness: float) -> FloatArray:
    return np.full((12, 120, 120), brightness, dtype=np.float32)


def test_each_parcel_gets_the_embedding_of_its_own_patches() -> None:
    chip = make_chip()
    image = image_of(0.5)
    image[0, :, :60] += 0.25
    left, right = in_chip(chip, 0, 0, 40, 40), in_chip(chip, 80, 80, 120, 120)
    rows = embed(Averaging(), image, prepare(chip, left, right))
    np.testing.assert_allclose(rows, [[1.5], [1.0]], atol=1e-6)


def in_tiles(prepared: Prepared, *weights: float, scene: str = "scene") -> Prepared:
    """A parcel that has so many patches in each of several tiles."""
    parts = []
    for number, weight in enumerate(weights):
        patches = np.zeros((PATCHES, PATCHES), np.float32)
        patches[0, 0] = weight
        parts.append((Window(0, 88 * number, 120, 120), patches))
    return replace(prepared, parts=tuple(parts), seen=replace(prepared.seen, scene=scene))


def parts_of(prepared: Prepared, *brightness: float) -> list[TileWork]:
    """The tiles of a parcel, each of one brightness."""
    return [
        TileWork(image_of(one), [(prepared, weights)], [])
        for one, (_, weights) in zip(brightness, prepared.parts, strict=True)
    ]


def test_a_parcel_in_several_tiles_is_the_mean_of_all_of_its_patches() -> None:
    (prepared,) = prepare(make_chip(), None)
    wide = in_tiles(prepared, 1.0, 0.5, 0.5)
    works = parts_of(wide, 0.1, 0.2, 0.6)
    embedder = Embedder(Averaging())
    # It is complete with its last tile, in whatever batches they come.
    assert embedder.embed(works[:1]) == []
    ((found),) = embedder.embed(works[1:])
    assert found.prepared is wide
    assert found.embedding is not None
    assert found.embedding[0] == pytest.approx(2 * (0.1 + 0.1 + 0.3) / 2)
    assert embedder.passes == 3


def test_what_is_complete_comes_in_the_same_order_whatever_the_batches() -> None:
    chip = make_chip()
    small = prepare(chip, in_chip(chip, 0, 0, 40, 40), in_chip(chip, 50, 0, 90, 40))
    (whole,) = prepare(chip, None)
    wide, clouded = in_tiles(whole, 1.0, 1.0), replace(whole)
    first, second = parts_of(wide, 0.1, 0.2)
    works = [
        replace(first, jobs=[*first.jobs, *work_of(first.image, small[:1]).jobs]),
        replace(second, jobs=[*second.jobs, *work_of(second.image, small[1:]).jobs]),
        TileWork(np.empty(0, np.float32), [], [clouded]),
    ]
    together = Embedder(Averaging()).embed(works)
    one_by_one = Embedder(Averaging())
    apart = [one for work in works for one in one_by_one.embed([work])]
    expected = [small[0], wide, small[1], clouded]
    for found in (together, apart):
        assert [one.prepared for one in found] == expected
    assert together[-1].embedding is None
    for one, other in zip(together[:3], apart[:3], strict=True):
        np.testing.assert_array_equal(one.embedding, other.embedding)


def test_a_parcel_of_a_scene_that_broke_off_does_not_meet_one_of_the_next() -> None:
    (prepared,) = prepare(make_chip(), None)
    lost = in_tiles(prepared, 1.0, 1.0, scene="broken")
    embedder = Embedder(Averaging())
    assert embedder.embed(parts_of(lost, 0.1, 0.2)[:1]) == []
    wide = in_tiles(prepared, 1.0, 1.0, scene="next")
    ((found),) = embedder.embed(parts_of(wide, 0.3, 0.3))
    assert found.embedding is not None
    assert found.embedding[0] == pytest.approx(0.6)
    assert embedder._sums == {}


def test_the_next_batch_is_read_while_the_network_computes() -> None:
    (prepared,) = prepare(make_chip(), None)
    reading = threading.Event()

    class Waiting(Averaging):
        def pool(self, images: Images, pooling_weights: Sequence[FloatArray]) -> list[FloatArray]:
            # The first batch would wait for ever if the second were read after it.
            assert reading.wait(10)
            return super().pool(images, pooling_weights)

    def batches() -> Iterator[list[TileWork]]:
        yield [work_of(image_of(0.1), [prepared])]
        reading.set()
        yield [work_of(image_of(0.2), [prepared])]
        yield [work_of(image_of(0.3), [prepared]), work_of(image_of(0.4), [prepared])]

    done = list(embed_ahead(Embedder(Waiting()), batches()))
    values = [one.embedding[0] for found, _ in done for one in found if one.embedding is not None]
    np.testing.assert_allclose(values, [0.2, 0.4, 0.6, 0.8], atol=1e-6)
    assert [tiles for _, tiles in done] == [1, 1, 2]


def test_an_error_of_the_network_ends_the_run() -> None:
    (prepared,) = prepare(make_chip(), None)

    class Failing(Averaging):
        def pool(self, images: Images, pooling_weights: Sequence[FloatArray]) -> list[FloatArray]:
            raise ImageryError("nothing to see", kind="no-valid-pixels")

    works = [work_of(image_of(0.1), [prepared])]
    with pytest.raises(ImageryError, match="nothing to see"):
        list(embed_ahead(Embedder(Failing()), iter([works, works])))
