import io
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import update

from indexer.catalog.database import connect
from indexer.catalog.tables import Observation
from indexer.errors import InvalidInputError, NotFoundError
from indexer.imagery.preview import Style
from indexer.reindex import reindex
from indexer.sensors import PROFILES
from indexer.settings import Settings
from retriever.previews import KeptPictures, Preview, Previews
from retriever.queries import Interval
from retriever.statements import snapshot
from tests.indexer.farm import image_dn, options
from tests.indexer.one_layer import one_layer_installed
from tests.retriever.planted import Seen, at_cosine, plant
from tests.synthetic import write_geotiff

VECTOR = at_cosine(0.5)


def seen(day: str | None, parcel_id: str = "p", **changed: Any) -> Seen:  # noqa: ANN401
    return Seen(parcel_id, VECTOR, day=day, **changed)


def found(settings: Settings, parcel_id: str = "p", **asked: Any) -> Preview:  # noqa: ANN401
    engine = connect(settings)
    try:
        with snapshot(engine) as connection:
            return Previews().find(connection, parcel_id, **asked)
    finally:
        engine.dispose()


@pytest.fixture
def one_layer() -> Iterator[str]:
    with one_layer_installed() as name:
        yield name


# Which observation is shown --------------------------------------------------------------------


def test_the_latest_reliable_observation_is_shown(empty: Settings) -> None:
    days = [seen("2023-04-24"), seen("2023-05-29"), seen("2023-06-20", reliable=False), seen(None)]
    plant(empty, days)
    shown = found(empty)
    assert (shown.collection, shown.parcel_id) == ("demo", "p")
    assert (shown.scene, shown.reliable) == ("scene-2023-05-29", True)
    assert shown.acquired_at is not None
    assert shown.acquired_at.isoformat() == "2023-05-29T10:50:31+00:00"


def test_without_a_reliable_one_the_latest_is_shown(empty: Settings) -> None:
    plant(empty, [seen(day, reliable=False) for day in ("2023-05-29", "2023-04-24", None)])
    assert found(empty).scene == "scene-2023-05-29"


def test_an_observation_without_a_vector_can_be_shown(empty: Settings) -> None:
    hidden = Seen("p", None, reliable=False, valid_fraction=0.1)
    plant(empty, [hidden, seen("2023-05-29", parcel_id="other")])
    assert found(empty).scene == "scene-2023-05-29"


def test_only_observations_in_the_interval_are_shown(empty: Settings) -> None:
    plant(empty, [seen("2023-04-24", reliable=False), seen("2023-05-29")])
    assert found(empty, interval=Interval.parse("2023-04")).scene == "scene-2023-04-24"


def test_a_parcel_that_was_not_observed_in_the_interval_has_no_preview(empty: Settings) -> None:
    plant(empty, [seen("2023-04-24")])
    with pytest.raises(NotFoundError, match='"p" of "demo" was not observed in "1999"') as caught:
        found(empty, interval=Interval.parse("1999"))
    assert caught.value.kind == "state-not-found"


def test_a_parcel_that_does_not_exist_has_no_preview(empty: Settings) -> None:
    plant(empty, [seen("2023-04-24")])
    with pytest.raises(NotFoundError) as caught:
        found(empty, "q", collection="demo")
    assert caught.value.kind == "parcel-not-found"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"size_px": 63}, "Size is 63; ask for at least 64 and at most 512"),
        ({"size_px": 513}, "Size is 513"),
        ({"style": "sepia"}, 'Style "sepia" is unknown; use one of true-color, false-color'),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_refused(
    empty: Settings, asked: dict[str, Any], said: str
) -> None:
    plant(empty, [seen("2023-04-24")])
    with pytest.raises(InvalidInputError, match=said) as caught:
        found(empty, **asked)
    assert caught.value.kind == "invalid-option"


def test_the_digest_changes_with_the_picture_and_only_then(empty: Settings) -> None:
    plant(empty, [seen("2023-04-24"), seen("2023-04-24", parcel_id="other")])
    first = found(empty).digest
    assert found(empty).digest == first
    asked: tuple[dict[str, Any], ...] = ({"style": "false-color"}, {"size_px": 100})
    others = [found(empty, **one).digest for one in asked]
    others.append(found(empty, "other").digest)
    plant(empty, [seen("2023-04-24", indices={"NDVI": 0.1})])
    others.append(found(empty).digest)
    assert len({first, *others}) == 5


# Drawing ---------------------------------------------------------------------------------------


def chip_index(
    folder: Path, descriptions: tuple[str, ...] | None, bands: str | None
) -> tuple[Settings, Path]:
    """One chip, indexed as a parcel of its own; its settings and its file."""
    path = write_geotiff(folder / "chip.tif", image_dn(0), descriptions)
    settings = Settings(data_dir=folder / "data", database_url="", croma_weights="untrained")
    reindex(settings, [path], options(bands=bands, collection="chips"))
    return settings, path


def test_a_picture_is_drawn_from_the_image_that_was_read(tmp_path: Path, one_layer: str) -> None:
    settings, _ = chip_index(tmp_path, PROFILES["l2a"], None)
    with Image.open(io.BytesIO(found(settings, "chip", size_px=96).draw())) as picture:
        pixels = np.array(picture)
    # 24 pixels, each four times four, of which none lacks data.
    assert pixels.shape == (96, 96, 4)
    np.testing.assert_array_equal(pixels, pixels[::4, ::4].repeat(4, axis=0).repeat(4, axis=1))
    assert (pixels[..., 3] == 255).all()
    # Each band has a level of its own, and so the picture a color.
    darkest_first = np.argsort([image_dn(0)[band].mean() for band in (3, 2, 1)])
    np.testing.assert_array_equal(np.argsort(pixels[..., :3].mean(axis=(0, 1))), darkest_first)


@pytest.mark.parametrize("style", ["true-color", "false-color"])
def test_an_image_whose_bands_were_named_is_drawn_alike(
    tmp_path: Path, one_layer: str, style: Style
) -> None:
    named, _ = chip_index(tmp_path / "named", PROFILES["l2a"], None)
    told, _ = chip_index(tmp_path / "told", None, "l2a")
    first, second = (found(index, "chip", style=style).draw() for index in (named, told))
    assert first == second


def refusal(settings: Settings, folder: Path) -> NotFoundError:
    """Why there is no picture; strangers are told no path."""
    with pytest.raises(NotFoundError) as caught:
        found(settings, "chip").draw()
    assert caught.value.kind == "preview-not-found"
    assert '"chip"' in caught.value.told
    assert str(folder) not in caught.value.told
    assert caught.value.__cause__ is None
    return caught.value


def test_an_image_that_moved_has_no_preview_until_it_is_indexed_again(
    tmp_path: Path, one_layer: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings, path = chip_index(tmp_path, PROFILES["l2a"], None)
    before = found(settings, "chip").draw()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = path.rename(elsewhere / path.name)
    with caplog.at_level(logging.WARNING):
        assert "reindex it from where it is" in refusal(settings, tmp_path).message
    assert str(path) in caplog.text
    reindex(settings, [moved], options(collection="chips"))
    assert found(settings, "chip").draw() == before


def test_an_image_that_cannot_be_read_any_more_has_no_preview(
    tmp_path: Path, one_layer: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings, path = chip_index(tmp_path, PROFILES["l2a"], None)
    path.write_bytes(path.read_bytes()[:200])
    assert "cannot be read any more (unreadable)" in refusal(settings, tmp_path).message
    assert str(path) in caplog.text


def test_an_older_row_whose_image_names_no_bands_has_no_preview(
    tmp_path: Path, one_layer: str
) -> None:
    settings, _ = chip_index(tmp_path, None, "l2a")
    engine = connect(settings)
    with engine.begin() as connection:
        connection.execute(update(Observation).values(layer_bands=None))
    engine.dispose()
    assert "reindex it again with the same --bands" in refusal(settings, tmp_path).message


# Pictures that are kept ------------------------------------------------------------------------


class Painter:
    """Draws pictures of some bytes, and counts them."""

    def __init__(self, size: int = 1) -> None:
        self.size = size
        self.drawn = 0

    def __call__(self) -> bytes:
        self.drawn += 1
        return bytes(self.size)


def test_a_picture_is_drawn_once(tmp_path: Path) -> None:
    kept, painter = KeptPictures(10), Painter()
    assert [kept.get("a", painter) for _ in range(3)] == [b"\0"] * 3
    assert painter.drawn == 1


def test_the_pictures_that_were_asked_for_last_are_kept_within_their_bytes() -> None:
    kept, painters = KeptPictures(10), {name: Painter(4) for name in "abc"}
    for name in "abac":
        # Of a, b and c two fit, and b was asked for before a.
        kept.get(name, painters[name])
    for name in "ca":
        kept.get(name, painters[name])
    assert [painters[name].drawn for name in "abc"] == [1, 1, 1]
    kept.get("b", painters["b"])
    assert painters["b"].drawn == 2


def test_a_picture_larger_than_all_that_is_kept_is_drawn_each_time() -> None:
    kept, large, small = KeptPictures(10), Painter(11), Painter(1)
    assert [len(kept.get("large", large)) for _ in range(2)] == [11, 11]
    assert large.drawn == 2
    for _ in range(2):
        kept.get("small", small)
    assert small.drawn == 1


@contextmanager
def asked_by_many(kept: KeptPictures, draw: Any) -> Iterator[list[Any]]:  # noqa: ANN401
    """Futures of eight that ask for one picture, while the first is drawing it."""
    begun, go_on = threading.Event(), threading.Event()

    def slowly() -> bytes:
        begun.set()
        assert go_on.wait(30)
        return bytes(draw())

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(kept.get, "a", slowly)
        assert begun.wait(30)
        others = [pool.submit(kept.get, "a", draw) for _ in range(7)]
        go_on.set()
        yield [first, *others]


def test_a_picture_that_many_ask_for_at_once_is_drawn_once() -> None:
    painter = Painter()
    with asked_by_many(KeptPictures(10), painter) as answers:
        assert [answer.result(30) for answer in answers] == [b"\0"] * 8
    assert painter.drawn == 1


def test_a_picture_that_failed_is_tried_again() -> None:
    def fail() -> bytes:
        raise NotFoundError("gone", kind="preview-not-found")

    kept, painter = KeptPictures(10), Painter()
    with asked_by_many(kept, fail) as answers:
        assert all(isinstance(answer.exception(30), NotFoundError) for answer in answers)
    assert kept.get("a", painter) == b"\0"
