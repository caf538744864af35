"""``pretrain``: a SimpleViT on images that nobody has labelled."""

import importlib.metadata
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from indexer.encoders.simple_vit import (
    FORMAT,
    choose_device,
    random_network,
    read_tensors,
    scale_of,
    write_tensors,
)
from indexer.encoders.simple_vit_network import in_one_thread
from indexer.encoders.weights import sha256_of
from indexer.errors import ImageryError, InvalidInputError, WeightsError
from indexer.imagery.spectral_cube import SpectralImage
from indexer.progress import Progress, Silent
from indexer.training.contrast import draw_views, loss_of, make_projector
from indexer.training.inputs import OpenedImages, open_images
from indexer.training.loss_plot import plot_losses
from indexer.training.recipes import (
    DEFAULT_RECIPE,
    STOP_WINDOW,
    Block,
    PretrainRecipe,
    recipe_named,
)
from indexer.training.samples import TrainingSample, draw_sample
from indexer.training.separation import center_share, separation, unwhitened
from indexer.training.statistics import SpectralStatistics, measure
from indexer.training.tracking import Tracker, check_tracker, open_tracker

FloatArray = npt.NDArray[np.float32]

PARTIAL_FORMAT: Final = "parcelle-simple-vit-training/1"
CHECKPOINT_EVERY: Final = 100

_SCALE_PX = 4096
"""Pixels over which the scales of the features are measured."""
_SCALE_CHUNK = 256


@dataclass(frozen=True)
class PretrainOptions:
    """Options of ``parcelle pretrain``."""

    recipe: str | PretrainRecipe = DEFAULT_RECIPE
    """Name of a recipe, or one of your own."""
    seed: int = 0
    steps: int | None = None
    """None takes the recipe's; 0 writes an untrained encoder, named as such."""
    batch_size: int | None = None
    bands: str | None = None
    baseline: str | None = None
    device: str = "auto"
    checkpoint_every: int = CHECKPOINT_EVERY
    """Steps between two checkpoints; 0 makes none."""
    resume: bool = False
    plots: Path | None = None
    track: str | None = None
    track_dir: Path = field(default_factory=lambda: Path("parcelle-tracking"))


@dataclass(frozen=True)
class PretrainReport:
    """What a training did."""

    file: str
    digest: str
    trained: bool
    recipe: dict[str, Any]
    images: list[str]
    bands: int
    dimensions: int
    """Length of a pixel's features."""
    windows: int
    """Windows that were there to train on."""
    steps: int
    resumed_at: int | None
    """Steps that an earlier run had made; None for a run from the beginning."""
    losses: list[float]
    seconds: float
    """Of training steps in this run."""
    seconds_reading: float
    """Of measuring bands and reading windows."""
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        fields = dict(self.__dict__)
        for name in ("seconds", "seconds_reading"):
            fields[name] = round(fields[name], 3)
        return fields


def pretrain(
    imagery: Sequence[str | Path],
    out: Path,
    options: PretrainOptions | None = None,
    progress: Progress | None = None,
) -> PretrainReport:
    """Train a SimpleViT on unlabelled images of the same bands, and write its file.

    The same images, options, libraries and number of threads give the same file, byte for byte,
    also when a run was killed and resumed.

    Args:
        imagery: Files, folders and globs.
        out: The file to write. ``OUT.partial`` beside it keeps an unfinished training.
        options: See there.
        progress: Told of rows, tiles and steps.

    Raises:
        InvalidInputError: If an option cannot be, or no image is found.
        ImageryError: If images cannot be read, differ in their bands, or hold nothing to learn.
        WeightsError: If ``OUT.partial`` cannot be resumed.
    """
    options, progress = options or PretrainOptions(), progress or Silent()
    recipe = _resolve(options)
    check_out(out)
    _check_folder("--plots", options.plots)
    check_tracker(options.track)
    _check_folder("--track-dir", options.track_dir if options.track else None)
    device = choose_device(options.device)
    opened = open_images(imagery, options.bands, options.baseline)
    began = time.perf_counter()
    opened, statistics = _measured(opened, recipe, progress)
    run = _Run(
        recipe=recipe,
        seed=options.seed,
        images=[image.source.name for image in opened.images],
        statistics=statistics,
    )
    with in_one_thread():
        generator = torch.Generator().manual_seed(options.seed)
        sample = draw_sample(opened.images, statistics, recipe, generator, progress)
        read = time.perf_counter()
        training = _Training(run, sample, generator, device)
        notes = [*opened.notes, *training.notes]
        partial = partial_of(out)
        resumed_at = training.resume(partial) if options.resume else None
        if options.resume and resumed_at is None:
            notes.append(f"{partial}: there is no such file, so the training began anew.")
        tracker = open_tracker(options.track, options.track_dir, out.stem, run.to_dict())
        try:
            training.go_on(partial, options.checkpoint_every, tracker, progress)
        finally:
            tracker.finish()
        trained = time.perf_counter()
        write_tensors(out, training.content(opened.images))
    partial.unlink(missing_ok=True)
    if options.plots is not None and training.losses:
        plot_losses(training.losses, options.plots / "loss.png", f"{out.name}: {recipe.name}")
    if not training.losses:
        notes.append("No step was made: the weights are random (untrained).")
    return PretrainReport(
        file=str(out),
        digest=sha256_of(out),
        trained=bool(training.losses),
        recipe=recipe.to_dict(),
        images=run.images,
        bands=len(opened.images[0].bands),
        dimensions=training.dimensions,
        windows=len(sample.anchors),
        steps=len(training.losses),
        resumed_at=resumed_at,
        losses=training.losses,
        seconds=trained - read,
        seconds_reading=read - began,
        notes=notes,
    )


def partial_of(out: Path) -> Path:
    """Where an unfinished training is kept."""
    return out.with_name(out.name + ".partial")


def check_out(out: Path) -> None:
    """Find out whether a file can be written, before any work.

    Raises:
        InvalidInputError: If not (``invalid-option``).
    """
    if out.is_dir():
        raise InvalidInputError(
            f"--out {out}: is a folder; name a file in it.", kind="invalid-option"
        )
    if not out.parent.is_dir():
        raise InvalidInputError(
            f"--out {out}: there is no folder {out.parent}; make it first.", kind="invalid-option"
        )
    if out.exists() and not _may_be_replaced(out):
        raise InvalidInputError(
            f"--out {out}: exists and is no encoder of parcelle pretrain; name another file, or "
            "delete this one.",
            kind="invalid-option",
        )
    probe = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        probe.touch()
    except OSError as error:
        raise InvalidInputError(
            f"--out {out}: cannot be written ({error.strerror or error}).", kind="invalid-option"
        ) from error
    with suppress(OSError):
        probe.unlink()


def _check_folder(option: str, folder: Path | None) -> None:
    """Refuse what cannot become a folder, before any work."""
    if folder is not None and folder.exists() and not folder.is_dir():
        raise InvalidInputError(
            f"{option} {folder}: is no folder; name another place.", kind="invalid-option"
        )


def _may_be_replaced(out: Path) -> bool:
    """Whether a file is empty or an encoder: above all, that it is none of the images."""
    if out.stat().st_size == 0:
        return True
    try:
        return str(read_tensors(out).get("format")).startswith(FORMAT.split("/")[0])
    except WeightsError:
        return False


def _resolve(options: PretrainOptions) -> PretrainRecipe:
    """The recipe with the options' numbers."""
    recipe = options.recipe
    if isinstance(recipe, str):
        recipe = recipe_named(recipe)
    if not 0 <= options.seed < 2**63:
        raise InvalidInputError(
            f"--seed {options.seed}: give a whole number from 0.", kind="invalid-option"
        )
    if options.checkpoint_every < 0:
        raise InvalidInputError(
            f"--checkpoint-every {options.checkpoint_every}: give steps, or 0 for none.",
            kind="invalid-option",
        )
    return replace(
        recipe,
        steps=recipe.steps if options.steps is None else options.steps,
        batch_size=recipe.batch_size if options.batch_size is None else options.batch_size,
    )


def _measured(
    opened: OpenedImages, recipe: PretrainRecipe, progress: Progress
) -> tuple[OpenedImages, SpectralStatistics]:
    """The images, less bands that have data nowhere, and what their bands are like."""
    try:
        return opened, measure(opened.images, recipe, progress)
    except ImageryError as error:
        if error.kind != "no-valid-pixels":
            raise
    opened = opened.without_empty_bands()
    return opened, measure(opened.images, recipe, progress)


@dataclass(frozen=True, eq=False)
class _Run:
    """What decides a training's result."""

    recipe: PretrainRecipe
    seed: int
    images: list[str]
    statistics: SpectralStatistics

    def to_dict(self) -> dict[str, Any]:
        """JSON form of what was chosen."""
        return {"recipe": self.recipe.to_dict(), "seed": self.seed, "images": self.images}


class _Training:
    """A network on its way.

    Args:
        run: What decides the result.
        sample: Windows to train on.
        generator: Draws anchors and disturbances; a draw of it begins the training.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(
        self, run: _Run, sample: TrainingSample, generator: torch.Generator, device: str
    ) -> None:
        self._run, self._sample, self._generator, self._device = run, sample, generator, device
        recipe = run.recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed)
            self._projector = make_projector(recipe).to(device)
        self._network = random_network(run.statistics.channels, recipe, run.seed).to(device)
        anchors = torch.randperm(len(sample.anchors), generator=generator)[:_SCALE_PX]
        self._scale_places = sample.anchors[anchors]
        self._centers = self._center_pixels()
        self._shares = self._measure_shares()
        self._untrained_scales = self._scales()
        parameters = [*self._network.parameters(), *self._projector.parameters()]
        self._optimizer, self._scheduler = _optimizer(parameters, recipe)
        self._batch = min(recipe.batch_size, len(sample.anchors))
        self.losses: list[float] = []

    @property
    def notes(self) -> list[str]:
        """What must be said of it."""
        wanted = self._run.recipe.batch_size
        if self._batch == wanted:
            return []
        return [f"There are {self._batch} windows to train on, fewer than a batch of {wanted}."]

    @property
    def dimensions(self) -> int:
        """Length of a pixel's features."""
        return sum(len(scale["mean"]) for scale in self._untrained_scales.values())

    def go_on(self, partial: Path, every: int, tracker: Tracker, progress: Progress) -> None:
        """Make the steps that are left."""
        steps = self._run.recipe.steps
        self._network.train()
        progress.start("training", steps)
        progress.advance(len(self.losses))
        while len(self.losses) < steps and not self._is_enough():
            loss = self._step()
            done = len(self.losses)
            tracker.log(done, {"loss": loss, "learning_rate": self._learning_rate})
            progress.rename(f"training, loss {_recent(self.losses):.4g}")
            progress.advance(1)
            if every and done % every == 0 and done < steps:
                write_tensors(partial, self._state())
        progress.finish()

    @property
    def _learning_rate(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])

    def _is_enough(self) -> bool:
        below = self._run.recipe.stop_below
        recent = self.losses[-STOP_WINDOW:]
        return (
            below is not None and len(recent) == STOP_WINDOW and sum(recent) < below * len(recent)
        )

    def _step(self) -> float:
        recipe = self._run.recipe
        first, second = draw_views(self._sample, recipe, self._batch, self._generator)
        loss = loss_of(self._projected(first), self._projected(second), recipe)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        if self._scheduler is not None:
            self._scheduler.step()
        value = loss.item()
        if value != value:
            raise ImageryError(
                f"{', '.join(self._run.images)}: the loss is no number after "
                f"{len(self.losses) + 1} steps; look for absurd values in the images, or take a "
                "smaller learning rate.",
                kind="no-contrast",
            )
        self.losses.append(value)
        return value

    def _projected(self, windows: Tensor) -> Tensor:
        embeddings = self._network(windows.to(self._device))
        return self._projector(embeddings)  # type: ignore[no-any-return]

    def _state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "format": PARTIAL_FORMAT,
            "run": self._run.to_dict(),
            "statistics": _statistics_form(self._run.statistics),
            "losses": self.losses,
            "generator": self._generator.get_state(),
            "network": self._network.state_dict(),
            "projector": self._projector.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scheduler": None if self._scheduler is None else self._scheduler.state_dict(),
        }

    def resume(self, partial: Path) -> int | None:
        """Go back to where a killed run was; None if it left nothing.

        Raises:
            WeightsError: If the file is damaged, or of another training.
        """
        if not partial.is_file():
            return None
        state = read_tensors(partial)
        self._check_same_run(partial, state)
        try:
            self._network.load_state_dict(state["network"])
            self._projector.load_state_dict(state["projector"])
            self._optimizer.load_state_dict(state["optimizer"])
            if self._scheduler is not None:
                self._scheduler.load_state_dict(state["scheduler"])
            self._generator.set_state(state["generator"])
            self.losses = [float(loss) for loss in state["losses"]]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise WeightsError(
                f"{partial}: its parts do not fit together ({type(error).__name__}); delete it and "
                "begin without --resume.",
                kind="weights-mismatch",
            ) from error
        return len(self.losses)

    def _check_same_run(self, partial: Path, state: Mapping[str, Any]) -> None:
        if state.get("format") != PARTIAL_FORMAT:
            raise WeightsError(
                f"{partial}: is no unfinished training of this version (found format "
                f"{state.get('format')!r:.60}, not {PARTIAL_FORMAT}); delete it and begin without "
                "--resume.",
                kind="weights-mismatch",
            )
        there, here = state.get("run"), self._run.to_dict()
        there = there if isinstance(there, dict) else {}
        other = [key for key in here if there.get(key) != here[key]]
        if not other and not _same_statistics(state.get("statistics"), self._run.statistics):
            other = ["images' values or bands"]
        if other:
            raise WeightsError(
                f"{partial}: belongs to a training with other {', '.join(other)}"
                f"{_difference(there, here)}. Give what it began with, or begin without --resume.",
                kind="weights-mismatch",
            )

    def content(self, images: Sequence[SpectralImage]) -> dict[str, Any]:
        """What the encoder's file holds: tensors and plain values."""
        return {
            "format": FORMAT,
            **self._run.to_dict(),
            "trained": bool(self.losses),
            "steps": len(self.losses),
            "windows": len(self._sample.anchors),
            "bands": [dict(band.__dict__) for band in images[0].bands],
            "statistics": _statistics_form(self._run.statistics),
            "network": {
                name: tensor.detach().cpu().clone()
                for name, tensor in self._network.state_dict().items()
            },
            "scales": self._scales(),
            "untrained_scales": self._untrained_scales,
            "losses": self.losses,
            "device": self._device,
            "versions": {
                name: importlib.metadata.version(name) for name in ("numpy", "parcelle", "torch")
            },
        }

    def _center_pixels(self) -> FloatArray:
        """Channels of the pixels that scales are measured on, shape ``(n, channel)``."""
        half = self._run.recipe.window_px // 2
        parts = torch.split(self._scale_places, _SCALE_CHUNK)
        centers = [self._sample.windows(places)[:, :, half, half] for places in parts]
        return np.asarray(torch.cat(centers).numpy())

    def _measure_shares(self) -> dict[Block, float]:
        """How much each block of the features counts."""
        recipe = self._run.recipe
        even = 1 / len(recipe.features)
        if recipe.clear_silhouette is None or set(recipe.features) != {"embedding", "center"}:
            return dict.fromkeys(recipe.features, even)
        silhouette = separation(unwhitened(self._centers, recipe.whitening))
        center = center_share(silhouette, recipe.clear_silhouette)
        return {"embedding": 1 - center, "center": center}

    def _scales(self) -> dict[str, dict[str, Any]]:
        """Scales of the features, as the network is now."""
        self._network.eval()
        embeddings = []
        with torch.inference_mode():
            for places in torch.split(self._scale_places, _SCALE_CHUNK):
                windows = self._sample.windows(places).to(self._device)
                embeddings.append(self._network(windows).cpu())
        found: dict[Block, FloatArray] = {
            "embedding": torch.cat(embeddings).numpy(),
            "center": self._centers,
        }
        scales = {name: scale_of(found[name], share) for name, share in self._shares.items()}
        return {name: scale.to_dict() for name, scale in scales.items()}


def _optimizer(
    parameters: list[nn.Parameter], recipe: PretrainRecipe
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.OneCycleLR | None]:
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    optimizer = kind(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    if recipe.schedule == "constant" or not recipe.steps:
        return optimizer, None
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.steps
    )


def _statistics_form(statistics: SpectralStatistics) -> dict[str, Tensor | None]:
    components, limits = statistics.components, statistics.limits
    return {
        "mean": torch.from_numpy(statistics.mean.copy()),
        "std": torch.from_numpy(statistics.std.copy()),
        "components": None if components is None else torch.from_numpy(components.copy()),
        "limits": None if limits is None else torch.from_numpy(limits.copy()),
    }


def _same_statistics(stored: object, statistics: SpectralStatistics) -> bool:
    """Whether images give to the last bit what they gave when a training began."""
    here = _statistics_form(statistics)
    if not isinstance(stored, dict) or set(stored) != set(here):
        return False
    for name, tensor in here.items():
        other = stored[name]
        if tensor is None or not isinstance(other, Tensor):
            if tensor is not other:
                return False
        elif not torch.equal(tensor, other):
            return False
    return True


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The first difference of two recipes, in brackets; empty if they are the same."""
    theirs, ours = there.get("recipe"), here["recipe"]
    if not isinstance(theirs, dict):
        return ""
    names = [name for name in ours if theirs.get(name) != ours[name]]
    if not names:
        return ""
    return f" ({names[0]} {theirs.get(names[0])!r:.40}, here {ours[names[0]]!r:.40})"


def _recent(losses: Sequence[float]) -> float:
    """Mean of the last steps' losses."""
    recent = losses[-20:]
    return sum(recent) / len(recent)
