"""A radar image, prepared for ``draw_preview``."""

from dataclasses import replace
from typing import Final

import numpy as np

from indexer.imagery.chip import Chip, FloatArray
from indexer.imagery.image import Image, ShownImage
from indexer.imagery.preview import Style

# Backscatter that is shown as black and as white, dB: between them lies nearly all land.
_SHOWN_DB: Final = {"VV": (-22.0, 0.0), "VH": (-29.0, -7.0)}
_SHOWN_RATIO_DB: Final = (2.0, 14.0)


def shown_radar(image: Image, style: Style) -> ShownImage:
    """Choose what is shown of an image of VV and VH.

    Args:
        image: Whose chips hold both, in dB.
        style: True color shows VV as gray, false color VV, VH and their ratio.
    """
    return ShownImage(image, _gray if style == "true-color" else _colored)


def _gray(chip: Chip) -> Chip:
    gray = _share(chip.band("VV"), _SHOWN_DB["VV"])
    return replace(chip, reflectance=np.stack([gray] * 3), bands=("VV", "VV", "VV"))


def _colored(chip: Chip) -> Chip:
    vv, vh = chip.band("VV"), chip.band("VH")
    ratio = _share(vv - vh, _SHOWN_RATIO_DB)
    shown = np.stack([_share(vv, _SHOWN_DB["VV"]), _share(vh, _SHOWN_DB["VH"]), ratio])
    return replace(chip, reflectance=shown, bands=("VV", "VH", "VV / VH"))


def _share(backscatter_db: FloatArray, ends_db: tuple[float, float]) -> FloatArray:
    dark, light = ends_db
    share: FloatArray = np.clip((backscatter_db - dark) / (light - dark), 0, 1).astype(np.float32)
    return share
