"""The loss curve as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

SMOOTHED_STEPS = 20


def plot_losses(losses: Sequence[float], path: Path, title: str) -> None:
    """Draw the loss of every step, and its mean over the steps around.

    Args:
        losses: At least one.
        path: A PNG file; its folder is made if need be.
        title: Above the plot.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = np.arange(1, len(losses) + 1)
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(steps, losses, color="#9db8d6", linewidth=0.8, label="each step")
    if len(losses) > SMOOTHED_STEPS:
        axes.plot(steps, smoothed(losses), color="#1f4e8c", label=f"mean of {SMOOTHED_STEPS} steps")
        axes.legend(frameon=False)
    axes.set(xlabel="step", ylabel="loss", title=title)
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def smoothed(losses: Sequence[float]) -> list[float]:
    """The mean of each loss and those before it, ``SMOOTHED_STEPS`` at most."""
    sums = np.concatenate(([0.0], np.cumsum(losses)))
    ends = np.arange(1, len(losses) + 1)
    starts = np.maximum(ends - SMOOTHED_STEPS, 0)
    return [float(mean) for mean in (sums[ends] - sums[starts]) / (ends - starts)]
