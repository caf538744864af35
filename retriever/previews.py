"""Pictures of parcels: which observation is shown, and the pictures that were drawn last."""

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import shapely
from sqlalchemy import Connection

from indexer.embedding_space import bands_in
from indexer.errors import ImageryError, InvalidInputError, NotFoundError
from indexer.imagery.image import Image, ImagePart
from indexer.imagery.preview import BANDS, DRAWING, Style, draw_preview
from indexer.imagery.reader import Scene
from indexer.imagery.sources import EXTENSIONS, source_at
from indexer.imagery.stac.addresses import is_item
from indexer.sensors import RADAR_BANDS
from retriever.finding import find_parcel
from retriever.preview_statements import shown_observation
from retriever.queries import Interval
from retriever.quoting import quoted
from retriever.statements import AnyRow, space_of

Opener = Callable[[AnyRow, Style], Image]

_log = logging.getLogger(__name__)

MIN_SIZE_PX: Final = 64
DEFAULT_SIZE_PX: Final = 256
MAX_SIZE_PX: Final = 512

_MOST_BYTES = 32 * 2**20
# What an image without names of its bands comes to, in a row that is older than their column.
_UNNAMED = frozenset({"bands-unknown", "missing-band"})


@dataclass(frozen=True)
class Preview:
    """A picture that can be drawn, and what it will show."""

    collection: str
    parcel_id: str
    scene: str
    acquired_at: datetime | None
    """When what it shows was acquired."""
    reliable: bool
    """Whether that observation describes the parcel reliably."""
    digest: str
    """Known before the picture is drawn, and another for each picture of what was indexed."""
    draw: Callable[[], bytes]
    """Gives the PNG, at once where it was drawn before; raises ``NotFoundError``
    (``preview-not-found``) if the image cannot be read any more."""


class Previews:
    """Finds what a picture shows, and keeps the pictures that were asked for last.

    Safe to share between threads; a picture that several ask for at once is drawn once.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._kept = KeptPictures(most_bytes)

    def find(
        self,
        connection: Connection,
        parcel_id: str,
        *,
        collection: str | None = None,
        interval: Interval | None = None,
        style: Style = "true-color",
        size_px: int = DEFAULT_SIZE_PX,
    ) -> Preview:
        """The picture of a parcel: its latest reliable observation, else the latest.

        Args:
            connection: A snapshot of the catalog; the picture is drawn without it.
            parcel_id: The parcel.
            collection: Its collection; None where the id is unique over all.
            interval: Only what was acquired then is shown; None for any time.
            style: Which bands are shown.
            size_px: Width and height of the picture, 64 to 512.

        Raises:
            NotFoundError: If there is no such parcel, or it was not observed in the interval.
            InvalidInputError: If style or size is out of range.
        """
        _check(style, size_px)
        parcel = find_parcel(connection, parcel_id, collection)
        shown = shown_observation(connection, parcel.id, interval)
        if shown is None:
            when = f" in {quoted(str(interval))}" if interval else ""
            raise NotFoundError(
                f"Parcel {quoted(parcel.parcel_id)} of {quoted(parcel.collection)} was not "
                f"observed{when}; ask for another interval or none.",
                kind="state-not-found",
            )
        named = f"{DRAWING}:{shown.id}:{shown.fingerprint}:{style}:{size_px}"
        digest = hashlib.sha256(named.encode()).hexdigest()[:32]
        space = space_of(connection, parcel.space_id)
        draw = partial(_draw, shown, parcel, style, size_px, _opener(space))
        return Preview(
            collection=parcel.collection,
            parcel_id=parcel.parcel_id,
            scene=shown.scene,
            acquired_at=shown.acquired_at,
            reliable=shown.reliable,
            digest=digest,
            draw=partial(self._kept.get, digest, draw),
        )


class KeptPictures:
    """The pictures that were asked for last, up to a number of bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._pictures: OrderedDict[str, bytes] = OrderedDict()
        self._drawing: dict[str, Future[bytes]] = {}
        self._lock = threading.Lock()

    def get(self, name: str, draw: Callable[[], bytes]) -> bytes:
        """The picture of this name; drawn if it is not kept, by the first who asks."""
        with self._lock:
            kept = self._pictures.get(name)
            if kept is not None:
                self._pictures.move_to_end(name)
                return kept
            begun = self._drawing.get(name)
            mine: Future[bytes] = begun or Future()
            self._drawing[name] = mine
        if begun is not None:
            return begun.result()
        try:
            picture = draw()
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(picture)
            self._keep(name, picture)
            return picture
        finally:
            with self._lock:
                del self._drawing[name]

    def _keep(self, name: str, picture: bytes) -> None:
        with self._lock:
            self._pictures[name] = picture
            self._bytes += len(picture)
            while self._bytes > self._most_bytes:
                self._bytes -= len(self._pictures.popitem(last=False)[1])


def _check(style: str, size_px: int) -> None:
    if style not in BANDS:
        raise InvalidInputError(
            f"Style {quoted(style)} is unknown; use one of {', '.join(BANDS)}.",
            kind="invalid-option",
        )
    if not MIN_SIZE_PX <= size_px <= MAX_SIZE_PX:
        raise InvalidInputError(
            f"Size is {size_px}; ask for at least {MIN_SIZE_PX} and at most {MAX_SIZE_PX} pixels.",
            kind="invalid-option",
        )


def _opener(space: AnyRow | None) -> Opener:
    """How the images of a space are opened for a picture."""
    if space is None:
        return _open_scene
    if space.recipe.get("modality") == "sar":
        return _open_radar
    return _open_scene if bands_in(space.recipe) is None else _open_spectral


def _draw(shown: AnyRow, parcel: AnyRow, style: Style, size_px: int, opened: Opener) -> bytes:
    try:
        image = opened(shown, style)
        geometry = None if parcel.geometry is None else shapely.from_wkb(parcel.geometry)
        if geometry is None:
            image = _part(image, parcel.attributes)
        return draw_preview(image, geometry, style, size_px)
    except ImageryError as error:
        # The message names files, which are no business of whoever asks over the network.
        _log.warning("No preview of scene %s: %s", shown.scene, error.message)
        if opened is _open_spectral and error.kind == "missing-band":
            raise _unavailable(
                shown, f"has no bands that show it in {style}; ask for true-color"
            ) from None
        if shown.layer_bands is None and error.kind in _UNNAMED:
            raise _unavailable(
                shown,
                "does not name its bands, and how they were named is not stored; reindex it again "
                "with the same --bands",
            ) from None
        raise _unavailable(shown, f"cannot be read any more ({error.kind})") from None


def _open_scene(shown: AnyRow, style: Style) -> Image:
    """The Sentinel-2 image that was observed, for the bands of a style."""
    return _reopened(shown, BANDS[style])


def _open_radar(shown: AnyRow, style: Style) -> Image:
    """The radar image that was observed: VV as gray, or in false color both polarizations."""
    from indexer.imagery.radar_preview import shown_radar

    return shown_radar(_reopened(shown, RADAR_BANDS), style)


def _reopened(shown: AnyRow, bands: tuple[str, ...]) -> Scene:
    if is_item(shown.source):
        return _reopened_item(shown, bands)
    named = None if shown.layer_bands is None else tuple(shown.layer_bands)
    source = None
    with suppress(OSError):
        source = source_at(Path(shown.source), shown.scene)
    if source is None:
        raise _gone(shown)
    return Scene.reopen(source, bands, layer_bands=named, baseline=shown.processing_baseline)


def _reopened_item(shown: AnyRow, bands: tuple[str, ...]) -> Scene:
    """An image that a catalog names; whoever waits for a picture does not wait long for it."""
    from indexer.imagery.layers import ReadingOptions
    from indexer.imagery.stac.catalog import source_at_item
    from indexer.imagery.stac.item import open_stac
    from indexer.imagery.stac.limits import HASTY

    source = source_at_item(shown.source, shown.scene)
    if source is None:
        raise _gone(shown)
    options = ReadingOptions(wanted=bands, baseline=shown.processing_baseline)
    return open_stac(source, options, HASTY)


def _open_spectral(shown: AnyRow, style: Style) -> Image:
    """The image of any bands that was observed; of Sentinel-2's as any other of its images."""
    # Needed for no picture of a Sentinel-2 collection.
    from indexer.imagery.spectral_image import open_spectral_image
    from indexer.imagery.spectral_preview import shown_image
    from indexer.imagery.spectral_sources import is_sentinel2

    path = Path(shown.source)
    if path.is_dir():
        return _open_scene(shown, style)
    named = ",".join(shown.layer_bands) if shown.layer_bands else None
    baseline = shown.processing_baseline if path.suffix.lower() in EXTENSIONS else None
    try:
        image = open_spectral_image(path, bands=named, baseline=baseline)
    except (NotFoundError, InvalidInputError):
        raise _gone(shown) from None
    if is_sentinel2(image) and {band.name for band in image.bands} >= set(BANDS[style]):
        return _open_scene(shown, style)
    return shown_image(image, style)


def _part(image: Image, attributes: Mapping[str, Any]) -> Image:
    """The window of an image without a place that a parcel is; else the image."""
    sides = [attributes.get(f"window_{name}") for name in ("row", "column", "px")]
    row, column, side = (value if isinstance(value, int) else -1 for value in sides)
    height, width = min(side, image.shape[0] - row), min(side, image.shape[1] - column)
    if min(row, column) < 0 or min(height, width) < 1:
        return image
    return ImagePart(image, row, column, (height, width))


def _gone(shown: AnyRow) -> NotFoundError:
    _log.warning("No preview of scene %s: it is not at %s", shown.scene, shown.source)
    return _unavailable(shown, "no longer lies where it was read; reindex it from where it is")


def _unavailable(shown: AnyRow, why: str) -> NotFoundError:
    return NotFoundError(
        f"The image of scene {quoted(shown.scene)} {why}.", kind="preview-not-found"
    )
