"""A training's numbers in Weights & Biases or TensorBoard, for those who have them."""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal, Protocol, cast

from indexer.errors import InvalidInputError

Mode = Literal["online", "offline", "disabled", "shared"]

PROJECT: Final = "parcelle"


class Tracker(Protocol):
    """Receives a training's numbers."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Numbers of a step, counted from 1."""

    def finish(self) -> None:
        """No more numbers will come."""


class Untracked:
    """Keeps nothing."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Ignore the numbers."""

    def finish(self) -> None:
        """Ignore the end."""


class _TensorBoard:
    def __init__(self, folder: Path, run: str, settings: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / run))
        lines = "\n".join(f"    {key}: {value}" for key, value in settings.items())
        self._writer.add_text("settings", lines)

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self, folder: Path, run: str, settings: dict[str, Any]) -> None:
        import wandb

        self._run = wandb.init(
            project=PROJECT,
            name=run,
            dir=str(folder),
            config=settings,
            mode=cast(Mode, wandb_mode()),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def finish(self) -> None:
        self._run.finish()


_TRACKERS: Final[dict[str, Callable[[Path, str, dict[str, Any]], Tracker]]] = {
    # The word for --track, the package, and the extra of the distribution, all the same.
    "tensorboard": _TensorBoard,
    "wandb": _WeightsAndBiases,
}


def wandb_mode() -> str:
    """``WANDB_MODE``; else online with a key in ``WANDB_API_KEY``, and offline without."""
    default = "online" if os.environ.get("WANDB_API_KEY") else "offline"
    return os.environ.get("WANDB_MODE") or default


def check_tracker(kind: str | None) -> None:
    """Find out whether a tracker can be had, before any work.

    Raises:
        InvalidInputError: If its package is not installed, or there is no such tracker
            (``invalid-option``).
    """
    if kind is None:
        return
    if kind not in _TRACKERS:
        raise InvalidInputError(
            f"--track {kind}: unknown; use one of {', '.join(_TRACKERS)}.", kind="invalid-option"
        )
    try:
        import_module(kind)
    except ImportError:
        raise InvalidInputError(
            f"--track {kind}: the package {kind} is not installed; install parcelle[{kind}] "
            f'(pip install "parcelle[{kind}]").',
            kind="invalid-option",
        ) from None


def open_tracker(kind: str | None, folder: Path, run: str, settings: dict[str, Any]) -> Tracker:
    """Begin to keep a run's numbers.

    Args:
        kind: ``tensorboard`` or ``wandb``; None keeps nothing.
        folder: Where files of the tracker go; made if need be.
        run: Name of the run.
        settings: Of the run, in JSON form.
    """
    if kind is None:
        return Untracked()
    folder.mkdir(parents=True, exist_ok=True)
    return _TRACKERS[kind](folder, run, settings)
