"""What items say, in the words of many providers, and what of it is believed."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit

from indexer.errors import ImageryError, InvalidInputError
from indexer.imagery.layers import Scaling
from indexer.imagery.stac.addresses import Home, is_url, resolve, shown
from indexer.imagery.stac.item import StacAsset, StacSource
from indexer.sensors import (
    HAND_PROCESSED,
    POLARIZATIONS,
    QUANTIFICATION,
    SCL,
    canonical_band,
    parse_baseline,
)

_MAX_ID_CHARACTERS = 250

# Names of Earth Search (https://earth-search.aws.element84.com/v1/collections/sentinel-2-l2a)
# beside those of ``canonical_band``; the common name rededge stands for three bands there.
_OTHER_NAMES = {"rededge1": "B05", "rededge2": "B06", "rededge3": "B07"}
_PIXEL_SIZE = re.compile(r"^(?P<band>.+?)_(?P<size>\d{2})m$", re.IGNORECASE)
_PICTURES = {"visual", "tci", "preview", "thumbnail", "rendered_preview", "overview"}
_PICTURE_ROLES = {"thumbnail", "overview", "visual", "metadata"}
_INSTRUMENTS = re.compile(r"sentinel[-_ ]?[12]|s[12][a-d]?(?![a-z0-9])", re.IGNORECASE)
_BASELINE = re.compile(r"\d{2}\.\d{2}")
_BASELINE_IN_NAME = re.compile(r"(?:^|_)N(\d{4})(?:_|\.|$)")
_NAMES = ("s2:product_uri", "sentinel:product_id", "s2:granule_id", "title")


def read_item(item: Mapping[str, Any], location: str, home: Home) -> StacSource:
    """Understand an item.

    Args:
        item: The GeoJSON Feature.
        location: Address or path of the document that holds it.
        home: Where the catalog lies, which decides what the item may name.

    Raises:
        ImageryError: ``item-invalid``, if it has no id or time; ``bands-unknown``, if it is of
            another instrument or no asset is a band; ``href-refused``, if none of its bands may
            be read.
    """
    name = _id(item, location)
    said = f"{shown(location)}: item {name}"
    properties = _mapping(item.get("properties"))
    start, end = _times(properties, said)
    _check_instrument(properties, said)
    assets, refused = _bands(item, location, home)
    if not assets and refused:
        band, why = refused[0]
        raise ImageryError(
            f"{said} has no band that can be read: {band}: {why}", kind="href-refused"
        )
    if not assets:
        raise ImageryError(
            f"{said} has no asset that is known as a band of Sentinel-2 or Sentinel-1 "
            f"({_some_keys(item)}); use a collection of GeoTIFFs with one asset for each band.",
            kind="bands-unknown",
        )
    collection = item.get("collection")
    return StacSource(
        name=name,
        location=location,
        collection=collection if isinstance(collection, str) else None,
        acquired_at=start,
        ended_at=end,
        processing_baseline=_baseline(properties, name),
        cloud_cover_percent=_number(properties.get("eo:cloud_cover")),
        assets=tuple(assets),
        refused=tuple(refused),
    )


@dataclass(frozen=True)
class _Candidate:
    """An asset, or one layer of it, that says to hold a band."""

    key: str
    band: str
    number: int
    of_several: bool
    is_jp2: bool
    pixel_m: int
    """As its key says; 0 where it does not."""
    href: object
    scaling: Scaling | None

    @property
    def rank(self) -> tuple[bool, bool, int, str]:
        """The smaller the better: GeoTIFF, of its own, fine."""
        return self.is_jp2, self.of_several, self.pixel_m, self.key


def _bands(
    item: Mapping[str, Any], location: str, home: Home
) -> tuple[list[StacAsset], list[tuple[str, str]]]:
    """The best asset of each band that may be read; other bands with the reason."""
    assets: dict[str, StacAsset] = {}
    refused: dict[str, str] = {}
    for candidate in sorted(_candidates(item), key=lambda one: one.rank):
        band = candidate.band
        if band in assets:
            continue
        try:
            href = resolve(candidate.href, location, home)
        except ImageryError as error:
            refused.setdefault(band, error.message)
            continue
        if candidate.is_jp2 and is_url(href):
            why = f"{shown(href)}: is JPEG 2000; of what lies on a server only GeoTIFF is read."
            refused.setdefault(band, why)
            continue
        assets[band] = StacAsset(band, href, candidate.number, candidate.scaling)
    return (
        [assets[band] for band in sorted(assets)],
        [(band, why) for band, why in sorted(refused.items()) if band not in assets],
    )


def _candidates(item: Mapping[str, Any]) -> Iterator[_Candidate]:
    properties = _mapping(item.get("properties"))
    for key, asset in _mapping(item.get("assets")).items():
        if not isinstance(asset, Mapping) or _is_picture(key, asset):
            continue
        kind = _format(asset)
        if kind is None:
            continue
        layers = _layers(asset)
        bands = [_band_of(layer) for layer in layers] if len(layers) > 1 else [_single(key, layers)]
        size = _PIXEL_SIZE.match(key)
        for number, band in enumerate(bands, start=1):
            if band is None:
                continue
            yield _Candidate(
                key=key,
                band=band,
                number=number,
                of_several=len(bands) > 1,
                is_jp2=kind == "jp2",
                pixel_m=int(size["size"]) if size else 0,
                href=asset.get("href"),
                scaling=_scaling(band, asset, number, properties),
            )


def _is_picture(key: str, asset: Mapping[str, Any]) -> bool:
    size = _PIXEL_SIZE.match(key)
    word = (size["band"] if size else key).lower().removesuffix("-jp2")
    roles = {role for role in _list(asset.get("roles")) if isinstance(role, str)}
    return word in _PICTURES or bool(roles & _PICTURE_ROLES)


def _format(asset: Mapping[str, Any]) -> Literal["tiff", "jp2"] | None:
    """Of which format an asset says to be, or its ending; None if it is neither."""
    media, href = asset.get("type"), asset.get("href")
    if isinstance(media, str) and media:
        if "tiff" in media.lower():
            return "tiff"
        return "jp2" if "jp2" in media.lower() else None
    try:
        ending = PurePosixPath(urlsplit(str(href)).path).suffix.lower()
    except ValueError:
        return None
    return "tiff" if ending in (".tif", ".tiff") else "jp2" if ending == ".jp2" else None


def _layers(asset: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the asset says of its layers: STAC 1.1 as ``bands``, before as ``eo:bands``."""
    layers = _list(asset.get("bands")) or _list(asset.get("eo:bands"))
    return [_mapping(layer) for layer in layers]


def _single(key: str, layers: Sequence[Mapping[str, Any]]) -> str | None:
    """Band of an asset of one layer: its key tells, else what it says of the layer."""
    size = _PIXEL_SIZE.match(key)
    own = _band(size["band"] if size else key.removesuffix("-jp2"))
    return own or (_band_of(layers[0]) if layers else None)


def _band_of(layer: Mapping[str, Any]) -> str | None:
    words = (layer.get(name) for name in ("name", "eo:common_name", "common_name"))
    return next((band for word in words if (band := _band(word))), None)


def _band(word: object) -> str | None:
    if not isinstance(word, str):
        return None
    return _OTHER_NAMES.get(word.strip().lower()) or canonical_band(word)


def _scaling(
    band: str, asset: Mapping[str, Any], number: int, properties: Mapping[str, Any]
) -> Scaling | None:
    """How the item says that digital numbers become reflectance, as far as it is believed.

    Where it says that the offset is removed already, its own ``offset`` is the well-known lie: the
    items of Earth Search keep stating the offset of the original product.
    """
    if band == SCL or band in POLARIZATIONS:
        return None
    if properties.get("earthsearch:boa_offset_applied") is True:
        return Scaling(1 / QUANTIFICATION, 0.0)
    scale, offset = _stated(asset, number)
    if scale is None or scale <= 0 or (scale, offset or 0.0) == (1.0, 0.0):
        return None
    if offset is None:
        # The usual scale says nothing about the offset; the baseline does.
        usual = math.isclose(scale, 1 / QUANTIFICATION)
        return None if usual else Scaling(scale, 0.0)
    return Scaling(scale, offset)


def _stated(asset: Mapping[str, Any], number: int) -> tuple[float | None, float | None]:
    """Scale and offset of a layer: ``raster:bands``, or in STAC 1.1 ``raster:scale``."""
    older, newer = _list(asset.get("raster:bands")), _list(asset.get("bands"))
    old = _mapping(older[number - 1]) if number <= len(older) else {}
    new = _mapping(newer[number - 1]) if number <= len(newer) else {}

    def first(name: str) -> float | None:
        found = (new.get(f"raster:{name}"), asset.get(f"raster:{name}"), old.get(name))
        return next((number for value in found if (number := _number(value)) is not None), None)

    return first("scale"), first("offset")


def _times(properties: Mapping[str, Any], said: str) -> tuple[datetime, datetime]:
    moment = _moment(properties.get("datetime"))
    start, end = (_moment(properties.get(name)) for name in ("start_datetime", "end_datetime"))
    if moment is not None:
        return moment, moment
    if start is None or end is None or end < start:
        raise ImageryError(
            f"{said} has no time (datetime, or start_datetime and end_datetime); name items of "
            "known time.",
            kind="item-invalid",
        )
    return start, end


def _moment(text: object) -> datetime | None:
    """A time as RFC 3339 writes it, aware UTC."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text.strip().upper())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _check_instrument(properties: Mapping[str, Any], said: str) -> None:
    found = [properties.get(name) for name in ("constellation", "platform")]
    told = [text for text in found if isinstance(text, str) and text]
    if told and not any(_INSTRUMENTS.match(text) for text in told):
        raise ImageryError(
            f"{said} is of {shown(told[0])}; Sentinel-2 and Sentinel-1 are read.",
            kind="bands-unknown",
        )


def _baseline(properties: Mapping[str, Any], name: str) -> str | None:
    """Processing baseline as a property says it, else a product's name."""
    for key in ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version"):
        text = properties.get(key)
        # Other software has versions, too; theirs seldom look like 05.09.
        if isinstance(text, str) and _BASELINE.fullmatch(text):
            return _believed(text)
    for text in (*(properties.get(key) for key in _NAMES), name):
        match = _BASELINE_IN_NAME.search(text) if isinstance(text, str) else None
        if match:
            return _believed(match[1])
    return None


def _believed(text: str) -> str | None:
    try:
        baseline = parse_baseline(text)
    except InvalidInputError:
        return None
    return None if baseline == HAND_PROCESSED else baseline


def _id(item: Mapping[str, Any], location: str) -> str:
    name = item.get("id")
    if isinstance(name, str) and name.isprintable() and 0 < len(name.strip()) <= _MAX_ID_CHARACTERS:
        return name
    raise ImageryError(
        f"{shown(location)}: an item has no usable id; an id is a printable text of at most "
        f"{_MAX_ID_CHARACTERS} characters.",
        kind="item-invalid",
    )


def _some_keys(item: Mapping[str, Any]) -> str:
    keys = [shown(str(key))[:40] for key in _mapping(item.get("assets"))]
    return (
        f"it has {', '.join(keys[:8])}{', ...' if len(keys) > 8 else ''}" if keys else "it has none"
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None
