"""Small spectral images as files, with and without gaps."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

FloatArray = npt.NDArray[np.float32]


def make_cube(height: int = 20, width: int = 24, bands: int = 6, seed: int = 0) -> FloatArray:
    """Two materials in stripes with some noise, shape ``(y, x, band)``, far from zero."""
    random = np.random.default_rng(seed)
    spectra = random.uniform(200, 900, size=(2, bands))
    stripes = (np.arange(width) // 5) % 2
    cube = spectra[stripes][None].repeat(height, axis=0)
    return (cube + random.normal(0, 20, size=cube.shape)).astype(np.float32)


def save_cube(path: Path, cube: npt.NDArray[np.float32]) -> Path:
    """Write a cube ``(y, x, band)`` as an image that ``open_spectral_image`` reads."""
    np.savez(path, cube=cube)
    return path


def in_one_thread() -> Iterator[None]:
    """Let torch use one thread for as long as a fixture lasts.

    Sums of several threads may differ in their last bits, and threads of small networks spend their
    time waiting for each other where the machine is busy.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
