"""The program that opens damaged files: a line of JSON in, a line of JSON out, until stdin ends.

It has so much address space and no more. What it reads must come back as an object, or be refused
with an error of Parcelle's own; anything else is told with its traceback.
"""

import json
import resource
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from indexer.errors import NotFoundError, ParcelleError
from indexer.imagery.reader import ReadingOptions, Scene
from indexer.imagery.sources import find_sources
from indexer.imagery.spectral_image import open_spectral_image, read_labels
from indexer.imagery.stac.catalog import StacQuery, find_stac_items
from indexer.imagery.stac.item import open_stac
from indexer.imagery.stac.limits import HASTY
from indexer.parcels.files import read_parcels

MEMORY_BYTES: Final = 3 << 30
"""Address space beyond what the libraries have taken at the start."""

_WINDOW_PX = 64


def _image(path: Path) -> None:
    image = open_spectral_image(path)
    height, width = (min(side, _WINDOW_PX) for side in image.shape)
    chip = image.read(image.shape[0] - height, image.shape[1] - width, height, width)
    assert chip.reflectance.shape == (len(image.bands), height, width)
    assert chip.valid_mask.shape == (height, width)


def _scene(path: Path) -> None:
    sources, skipped = find_sources([path])
    if not sources:
        raise ParcelleListed(skipped[0].kind)
    scene = Scene.open(sources[0], ReadingOptions(wanted=("B02", "B03")))
    _read(scene)


def _read(scene: Scene) -> None:
    height, width = (min(side, _WINDOW_PX) for side in scene.shape)
    chip = scene.read(0, 0, height, width)
    assert chip.reflectance.shape == (len(scene.layers), height, width)
    assert np.isfinite(chip.reflectance[:, chip.valid_mask]).all()


def _labels(path: Path) -> None:
    labels, names = read_labels(path, (30, 30))
    assert labels.shape == (30, 30)
    assert all(isinstance(name, str) for name in names.values())


def _parcels(path: Path) -> None:
    found = read_parcels(path, "fuzz")
    for parcel in found.parcels:
        assert parcel.parcel_id
        assert parcel.geometry is not None
        assert parcel.geometry.is_valid
        west, south, east, north = parcel.geometry.bounds
        assert -180 <= west <= east <= 180
        assert -90 <= south <= north <= 90
        assert parcel.area_m2 is not None
        assert parcel.area_m2 >= 0


def _stac(path: Path) -> None:
    box = (-180.0, -90.0, 180.0, 90.0)
    found, skipped = find_stac_items(StacQuery(str(path), bbox=box), limits=HASTY)
    if not found:
        raise ParcelleListed(skipped[0].kind if skipped else "none")
    for source in found:
        _read(open_stac(source, ReadingOptions(wanted=("B01", "B02")), HASTY))


class ParcelleListed(Exception):
    """What was opened is listed as skipped."""


DOORS: Final[dict[str, Callable[[Path], None]]] = {
    "image": _image,
    "labels": _labels,
    "parcels": _parcels,
    "scene": _scene,
    "stac": _stac,
}


def outcome(door: str, path: Path) -> dict[str, Any]:
    """Open a file; the kind of its refusal, ``read``, or what else happened."""
    try:
        DOORS[door](path)
    except ParcelleListed as listed:
        return {"kind": str(listed)}
    except (ParcelleError, NotFoundError) as error:
        return {"kind": error.kind}
    except BaseException:
        return {"unexpected": traceback.format_exc()}
    return {"kind": "read"}


def main() -> None:
    """Serve until stdin ends."""
    warnings.simplefilter("ignore")
    for asked in sys.stdin:
        question = json.loads(asked)
        if "limit" in question:
            limit_memory()
            told: dict[str, Any] = {"kind": "limited"}
        else:
            told = outcome(question["door"], Path(question["path"]))
        # Libraries print on stdout's number, too, when they fail; this line is found by its mark.
        sys.stdout.write(f"FUZZ {json.dumps(told)}\n")
        sys.stdout.flush()


def limit_memory() -> None:
    """Take no more than ``MEMORY_BYTES`` from now on."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
