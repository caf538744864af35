"""One item of a catalog as a source of bands that are read by window, over HTTP or from disk."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from indexer.errors import ImageryError, ParcelleError
from indexer.imagery.layers import Layer, ReadingOptions, Scaling
from indexer.imagery.rasters import remote_path
from indexer.imagery.reader import Scene
from indexer.imagery.stac.addresses import Home, host_of, is_private_host, is_url, shown
from indexer.imagery.stac.limits import PATIENT, Limits
from indexer.sensors import SCL

if TYPE_CHECKING:
    from indexer.imagery.stac.http import PoliteIO


@dataclass(frozen=True)
class StacAsset:
    """The file, or the layer of a file, that holds one band of an item."""

    band: str
    href: str
    """Address on a server, or path of a file below the catalog's folder."""
    number: int = 1
    """Layer in the file, counted from 1."""
    scaling: Scaling | None = None
    """As the item states it; None where the processing baseline tells."""


@dataclass(frozen=True)
class StacSource:
    """One acquisition that an item of a catalog names. Plain data: it can be pickled."""

    name: str
    """The item's id."""
    location: str
    """Address or path of the document that holds the item."""
    collection: str | None
    acquired_at: datetime
    """Acquisition time, aware UTC; of an interval its start."""
    ended_at: datetime
    """End of the interval, else the same."""
    processing_baseline: str | None
    cloud_cover_percent: float | None
    """As the item says it; None where it does not."""
    assets: tuple[StacAsset, ...]
    """One for each band that can be read."""
    refused: tuple[tuple[str, str], ...] = ()
    """Bands that the item has but that cannot be read, and why."""
    class_name: None = None
    """Items do not lie in class folders."""


def open_stac(source: StacSource, options: ReadingOptions, limits: Limits = PATIENT) -> Scene:
    """Open the wanted bands of an item by their headers; pixels are fetched by window.

    Args:
        source: The item.
        options: Which bands are wanted, and perhaps the processing baseline.
        limits: Of time, for this and for all that is read from the scene.

    Raises:
        ImageryError: If a wanted band is missing, may not be read, or cannot be had, as
            ``Scene.of_layers``.
    """
    refused = dict(source.refused)
    # Without the classes that it has, the clouds of a scene would pass as ground.
    for band in (*options.wanted, SCL):
        if band in refused:
            raise ImageryError(
                f"{shown(source.location)}: band {band} of {source.name}: {refused[band]}",
                kind="href-refused",
            )
    return Scene.of_layers(
        source,
        _layers(source, options, limits),
        options,
        acquired_at=source.acquired_at,
        baseline=source.processing_baseline,
    )


def _layers(source: StacSource, options: ReadingOptions, limits: Limits) -> list[Layer]:
    assets = [asset for asset in source.assets if asset.band in (*options.wanted, SCL)]
    # A wanted band that the item lacks is to be named before any server is asked.
    if {asset.band for asset in assets}.issuperset(options.wanted):
        paths = _paths(source, assets, limits)
    else:
        paths = {}
    return [
        Layer(one.band, paths.get(one.href, one.href), one.number, one.scaling) for one in assets
    ]


def _paths(source: StacSource, assets: Sequence[StacAsset], limits: Limits) -> dict[str, str]:
    """The path of each file on a server; all servers are asked at once, for that takes a while."""
    bands = {asset.href: asset.band for asset in assets if is_url(asset.href)}
    if not bands:
        return {}
    # Its client takes a third of a second to import.
    from indexer.imagery.stac.http import PoliteIO

    is_near = not is_url(source.location) or is_private_host(host_of(source.location))
    home = Home(is_private=is_near)

    def path(href: str) -> str:
        return remote_path(
            _settle(PoliteIO(home, limits), source, bands[href], href),
            connect_s=limits.connect_s,
            silence_s=limits.silence_s,
            request_s=limits.request_s,
            retries=limits.retries,
            delay_s=limits.delay_s,
        )

    with ThreadPoolExecutor(len(bands)) as pool:
        return dict(zip(bands, pool.map(path, bands), strict=True))


def _settle(remote: "PoliteIO", source: StacSource, band: str, href: str) -> str:
    """Where a band's file finally lies; asked for here, since GDAL follows any redirect."""
    try:
        return remote.settle(href)
    except ParcelleError as error:
        kind = error.kind if error.kind in ImageryError.KINDS else "missing-band"
        raise ImageryError(
            f"{shown(source.location)}: band {band} of {source.name}: {error.message}", kind=kind
        ) from None
