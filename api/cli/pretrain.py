"""``parcelle pretrain``: a SimpleViT on unlabelled images."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli import options
from api.cli.console import Bar, say, say_json, tell, tell_notes

if TYPE_CHECKING:
    from indexer.training.pretrain import PretrainReport


class Recipe(StrEnum):
    """What is learned, and how."""

    default = "default"
    report = "report"


class Track(StrEnum):
    """Where a training's numbers can go."""

    wandb = "wandb"
    tensorboard = "tensorboard"


def pretrain(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="GeoTIFF, ENVI (.hdr) or NumPy files, folders or quoted globs; all of the same "
            "bands, any number of them.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="FILE.pt to write; FILE.pt.partial beside it keeps an unfinished run."
        ),
    ],
    recipe: Annotated[
        Recipe,
        typer.Option("--recipe", help="report: triplets as in the student report of 2023."),
    ] = Recipe.default,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="The same seed gives the same file.")
    ] = 0,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", min=0, help="Training steps. Default: the recipe's; 0 stays untrained."
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=2, help="Windows in a step. Default: the recipe's."),
    ] = None,
    bands: options.Bands = None,
    baseline: options.Baseline = None,
    device: options.DeviceChoice = options.Device.auto,
    checkpoint_every: Annotated[
        int,
        typer.Option("--checkpoint-every", min=0, help="Steps between checkpoints; 0 for none."),
    ] = 100,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a killed run left its checkpoint.")
    ] = False,
    plots: Annotated[
        Path | None, typer.Option("--plots", metavar="DIR", help="Draw loss.png there.")
    ] = None,
    track: Annotated[
        Track | None,
        typer.Option(
            "--track", help="Keep the loss in Weights & Biases (offline too) or TensorBoard."
        ),
    ] = None,
    track_dir: Annotated[
        Path, typer.Option("--track-dir", metavar="DIR", help="Where files of --track go.")
    ] = Path("parcelle-tracking"),
    as_json: options.AsJson = False,
) -> None:
    """Train a SimpleViT of your own on images that nobody has labelled.

    For example:

      parcelle pretrain flight.hdr --out flight.pt --plots plots/

      parcelle pretrain flights/ --out farm.pt --seed 1 --resume

    The same images, options and machine give the same file, byte for byte.
    """
    from indexer.training.pretrain import PretrainOptions, partial_of
    from indexer.training.pretrain import pretrain as run

    chosen = PretrainOptions(
        recipe=recipe.value,
        seed=seed,
        steps=steps,
        batch_size=batch_size,
        bands=bands,
        baseline=baseline,
        device=device.value,
        checkpoint_every=checkpoint_every,
        resume=resume,
        plots=plots,
        track=None if track is None else track.value,
        track_dir=track_dir,
    )
    try:
        report = run(images, out, chosen, Bar("steps"))
    except KeyboardInterrupt:
        tell(_stopped(partial_of(out)))
        raise
    if as_json:
        say_json(report.to_dict())
    else:
        say(summary(report))
        tell_notes(report.notes)


def _stopped(partial: Path) -> str:
    """What is left of a training that was interrupted."""
    if not partial.is_file():
        return "Stopped before the first checkpoint; nothing is kept."
    return f"Stopped. {partial} keeps the training up to a checkpoint; --resume goes on from there."


def summary(report: "PretrainReport") -> str:
    """A training in a few lines."""
    again = "" if report.resumed_at is None else f" (resumed at {report.resumed_at})"
    lines = [
        f"Recipe {report.recipe['name']}: {report.steps} steps{again} on {report.windows} windows "
        f"of {len(report.images)} image{'s'[: len(report.images) != 1]} with {report.bands} bands, "
        f"{report.seconds_reading:.1f} s reading and {report.seconds:.1f} s training."
    ]
    if report.losses:
        few = max(1, len(report.losses) // 10)
        first = sum(report.losses[:few]) / few
        last = sum(report.losses[-few:]) / few
        lines.append(f"Loss {first:.4g} over the first {few} steps, {last:.4g} over the last.")
    weights = "trained" if report.trained else "UNTRAINED (random weights)"
    lines.append(
        f"Wrote {report.file}: {weights}, {report.dimensions} dimensions, digest "
        f"{report.digest[:12]}; use it as --encoder simple-vit:{report.file}."
    )
    return "\n".join(lines)
