"""Smooth random texture, for stands of crops, soils and the edge of a cloud."""

import math

import numpy as np

from indexer.statistics import Float64Array


def smooth_noise(size_px: int, scale_px: float, rng: np.random.Generator) -> Float64Array:
    """Gaussian noise with hills about ``scale_px`` wide; zero mean, unit variance."""
    frequency = np.fft.fftfreq(size_px)
    envelope = np.exp(-2 * (math.pi * scale_px * frequency) ** 2)
    spectrum = np.fft.fft2(rng.standard_normal((size_px, size_px)))
    noise: Float64Array = np.fft.ifft2(spectrum * np.outer(envelope, envelope)).real
    return (noise - float(noise.mean())) / float(noise.std())
