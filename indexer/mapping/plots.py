"""Plots of a class map: what an expert looks at before giving the classes names.

Figures are drawn to files without pyplot, which would keep them all and look for a screen.
"""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from indexer.errors import InvalidInputError
from indexer.imagery.spectral_image import SpectralImage, true_color
from indexer.mapping.choose_k import KChoice
from indexer.mapping.class_map import MapClass, written_aside
from indexer.mapping.colors import rgb
from indexer.mapping.scores import MapScore
from indexer.progress import Progress

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]

MAX_SHOWN_PX: Final = 1_000
"""Longest side of a picture in pixels; larger images are thinned out."""

_DOTS_PER_INCH = 150
_INK, _FAINT, _GRID = "#22282b", "#5d666b", "#dfe3e4"
_ACCENT, _BAR = "#aa3377", "#b9c2c6"
_VIEWS = ("#4477aa", "#228833")
_TSNE_POINTS = 1_500
# Names longer than this would take the place of what they name.
_LABEL_WIDTH = 28

_STYLE: Final[dict[str, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 10,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": _INK,
    # Names are data: a dollar sign in one is no formula.
    "text.parse_math": False,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "figure.facecolor": "white",
}


@dataclass(frozen=True)
class Drawn:
    """What there is to draw of one map."""

    title: str
    image: SpectralImage
    classes: Sequence[MapClass]
    choice: KChoice
    features_name: str
    sample: FloatArray
    """Features, shape ``(n, d)``."""
    sample_labels: npt.NDArray[np.integer[Any]]
    """Class numbers, shape ``(n,)``."""
    score: MapScore | None
    """None where no truth is known."""
    read_map: Callable[[int, int], UInt8Array]
    """The map at a height and width."""


def check_folder(folder: Path) -> None:
    """Make the folder for plots.

    Raises:
        InvalidInputError: If it is a file (``invalid-option``).
    """
    if folder.exists() and not folder.is_dir():
        raise InvalidInputError(
            f"--plots {folder}: is a file; name a folder.", kind="invalid-option"
        )
    with written_aside(folder / "map.png"):
        folder.mkdir(parents=True, exist_ok=True)


def draw_all(folder: Path, drawn: Drawn, seed: int, progress: Progress) -> list[Path]:
    """Draw every plot that there is something for.

    Args:
        folder: Where they go.
        drawn: What there is to draw.
        seed: Decides which features are shown, and where.
        progress: Is told how far the work has come.

    Returns:
        The files: ``map.png``, ``spectra.png``, and where there is something to show
        ``choice_of_k.png``, ``features.png`` and ``confusion.png``.

    Raises:
        StorageError: ``write-failed``.
    """
    import matplotlib

    todo: dict[str, Callable[[], Figure]] = {
        "map.png": lambda: draw_map(drawn),
        "spectra.png": lambda: draw_spectra(drawn),
    }
    if drawn.choice.candidates:
        todo["choice_of_k.png"] = lambda: draw_choice(drawn.choice)
    if len(drawn.classes) > 1:
        todo["features.png"] = lambda: draw_features(drawn, seed)
    if drawn.score is not None:
        score = drawn.score
        todo["confusion.png"] = lambda: draw_confusion(score, drawn.classes)
    files: list[Path] = []
    progress.start("Drawing", len(todo))
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type] # keys are literals there
        for name, draw in todo.items():
            with written_aside(folder / name) as aside:
                draw().savefig(aside, dpi=_DOTS_PER_INCH, format="png", bbox_inches="tight")
            files.append(folder / name)
            progress.advance(1)
    progress.finish()
    return files


def draw_map(drawn: Drawn) -> "Figure":
    """True color beside the map, with its legend."""
    picture = true_color(drawn.image, MAX_SHOWN_PX)
    shown = drawn.read_map(*picture.shape[:2])
    palette = np.full((256, 3), 255, dtype=np.uint8)
    for one in drawn.classes:
        palette[one.number] = rgb(one.color)
    height, width = picture.shape[:2]
    # Tall images leave room for names beside each other, wide ones are put below each other.
    beside = width <= 1.8 * height
    size = _picture_size(height, width, beside)
    figure = _figure(*size)
    first, second = figure.subplots(1, 2) if beside else figure.subplots(2, 1)
    for axes, pixels, title in (
        (first, picture, _color_title(drawn.image)),
        (second, palette[shown], f"{len(drawn.classes)} classes"),
    ):
        axes.imshow(pixels, interpolation="nearest" if max(height, width) < 400 else "auto")
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set(visible=True, color=_GRID)
    handles = [_patch(one.color, f"{_numbered(one)}  {_share(one.share)}") for one in drawn.classes]
    if (shown == 0).any():
        handles.append(_patch("white", "no data", edge=_FAINT))
    _legend_right(figure, handles)
    return figure


def draw_choice(choice: KChoice) -> "Figure":
    """The error of each number of classes, and how deep it bends below the line of its ends."""
    figure = _figure(7.8, 7.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1.5, 1))
    _draw_errors(upper, choice)
    _draw_depths(lower, choice)
    reason = textwrap.fill(choice.reason, 98)
    upper.set_title("Choice of k", pad=14 + 13 * (1 + reason.count("\n")))
    upper.text(
        0, 1.04, reason, transform=upper.transAxes, va="bottom", fontsize=9.5, color=_FAINT,
    )  # fmt: skip
    for axes in (upper, lower):
        axes.axvline(choice.k, color=_ACCENT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        axes.grid(axis="y", color=_GRID)
        axes.set_axisbelow(True)
    last = len(next(iter(choice.errors.values())))
    lower.set_xticks(range(1, last + 1))
    # Room for what the curves are.
    lower.set_xlim(0.4, last + 3)
    lower.set_xlabel("classes k")
    return figure


def _draw_errors(axes: "Axes", choice: KChoice) -> None:
    """Each view's curve, both together, and the line that these bend away from."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    curves = [np.asarray(errors) for errors in choice.errors.values()]
    both = np.prod(curves, axis=0)
    places = np.arange(1, len(both) + 1)
    ends = [curve[-1] for curve in curves]
    for name, curve, color in zip(choice.errors, curves, _VIEWS, strict=True):
        axes.plot(places, curve, "-o", color=color, markersize=3.5, linewidth=1.4)
        # Curves may end in one place.
        shift = 0 if max(ends) > 1.3 * min(ends) else 7 if color == _VIEWS[0] else -7
        _label_end(axes, places, curve, f"{name} view", color, shift)
    axes.plot(places, both, "-o", color=_INK, markersize=4.5, linewidth=2)
    _label_end(axes, places, both, "both, multiplied", _INK)
    line = np.geomspace(both[0], both[-1], len(both))
    axes.plot(places, line, color=_FAINT, linewidth=1, linestyle=(0, (2, 2)))
    at = choice.k - 1
    axes.plot([choice.k] * 2, [line[at], both[at]], color=_ACCENT, linewidth=3, zorder=3)
    axes.plot([choice.k], [both[at]], "o", color=_ACCENT, markersize=9, zorder=4)
    axes.annotate(
        f"k = {choice.k}", (choice.k, both[at]), xytext=(-8, -6), textcoords="offset points",
        color=_ACCENT, fontweight="bold", ha="right", va="top",
    )  # fmt: skip
    axes.set_yscale("log")
    # Equal pixels leave next to nothing: then one mark for each power of ten is enough.
    marks = (1, 2, 5) if both[-1] > 1e-3 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=marks, numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", which="minor", length=0)
    axes.set_ylabel("variance left by k classes")


def _draw_depths(axes: "Axes", choice: KChoice) -> None:
    """A bar for each number that was tried; above it a dash for each sample that alone gives it."""
    colors = [_ACCENT if k == choice.k else _BAR for k in choice.candidates]
    axes.bar(choice.candidates, choice.scores, width=0.66, color=colors)
    step = 0.05 * max(choice.scores) or 0.01
    for k in sorted(set(choice.repeats)):
        top = max(0.0, choice.scores[choice.candidates.index(k)])
        for place in range(choice.repeats.count(k)):
            height = top + step * (place + 1.2)
            axes.plot([k - 0.2, k + 0.2], [height] * 2, color=_INK, linewidth=1.8)
    axes.plot(
        [], [], color=_INK, linewidth=1.8, label=f"one of {len(choice.repeats)} samples alone"
    )
    axes.legend(loc="upper right", handlelength=1, borderaxespad=0)
    axes.axhline(0, color=_FAINT, linewidth=0.8)
    axes.set_ylabel("depth below the line")


def _label_end(
    axes: "Axes",
    places: npt.NDArray[np.intp],
    curve: npt.NDArray[np.floating[Any]],
    text: str,
    color: str,
    shift: int = 0,
) -> None:
    """Say at its right end what a curve is."""
    axes.annotate(
        text, (places[-1], curve[-1]), xytext=(8, shift), textcoords="offset points", va="center",
        color=color, fontsize=9.5,
    )  # fmt: skip


def draw_spectra(drawn: Drawn) -> "Figure":
    """Mean spectrum of each class with a band of one standard deviation."""
    figure = _figure(9, 5)
    axes = figure.subplots()
    places, order, label = _axis(drawn.image)
    breaks = _breaks(places)
    for one in drawn.classes:
        mean, std = np.asarray(one.mean)[order], np.asarray(one.std)[order]
        for start, end in breaks:
            part = slice(start, end)
            axes.fill_between(
                places[part], (mean - std)[part], (mean + std)[part],
                color=one.color, alpha=0.16, linewidth=0,
            )  # fmt: skip
            axes.plot(places[part], mean[part], color="white", linewidth=2.6)
            axes.plot(
                places[part], mean[part], color=one.color, linewidth=1.6,
                marker="o" if end - start <= 20 else None, markersize=4,
            )  # fmt: skip
    axes.set_xlabel(label)
    axes.set_ylabel("value in the image's unit")
    axes.set_title("Mean spectra, with one standard deviation")
    axes.grid(color=_GRID)
    axes.set_axisbelow(True)
    axes.margins(x=0.01)
    handles = [_patch(one.color, _numbered(one)) for one in drawn.classes]
    _legend_right(figure, handles)
    return figure


def draw_features(drawn: Drawn, seed: int) -> "Figure":
    """Features in two dimensions by t-SNE, in the colors of their classes.

    References:
        van der Maaten and Hinton (2008), Visualizing data using t-SNE, Journal of Machine Learning
        Research 9, 2579-2605.
    """
    random = np.random.default_rng(seed)
    count = min(_TSNE_POINTS, len(drawn.sample))
    rows = np.sort(random.choice(len(drawn.sample), count, replace=False))
    places = _tsne(drawn.sample[rows], seed)
    labels = drawn.sample_labels[rows]
    figure = _figure(8.4, 6)
    axes = figure.subplots()
    for one in drawn.classes:
        members = labels == one.number
        axes.scatter(
            places[members, 0], places[members, 1], s=11, color=one.color, linewidth=0, alpha=0.85
        )
    for one in drawn.classes:
        members = labels == one.number
        if members.any():
            _number(axes, one, _middle(places[members]))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, color=_GRID)
    axes.set_title(f"Features ({drawn.features_name}) of {count} pixels by t-SNE")
    handles = [_patch(one.color, _numbered(one)) for one in drawn.classes]
    _legend_right(figure, handles)
    return figure


def draw_confusion(score: MapScore, classes: Sequence[MapClass]) -> "Figure":
    """Where the pixels of each known class went, as shares of that class."""
    counts = np.asarray(score.confusion, dtype=np.float64)
    matched = [one.matched for one in score.per_class if one.matched is not None]
    numbers = [*matched, *(one.number for one in classes if one.number not in matched)]
    shares = counts / counts.sum(axis=1, keepdims=True)
    shares = shares[:, [number - 1 for number in numbers]]
    labels = {one.number: one.label for one in classes}
    figure = _figure(2.6 + 0.62 * len(numbers), 2.0 + 0.5 * len(counts))
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(*shares.shape):
        if shares[row, column] >= 0.005:
            axes.text(
                column, row, f"{100 * shares[row, column]:.0f}", ha="center", va="center",
                fontsize=9, color="white" if shares[row, column] > 0.55 else _INK,
            )  # fmt: skip
    axes.set_xticks(
        range(len(numbers)), [_short(labels.get(number, str(number)), 20) for number in numbers],
        rotation=35, ha="right", rotation_mode="anchor",
    )  # fmt: skip
    axes.set_yticks(range(len(counts)), [_short(one.name) for one in score.per_class])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(-0.5, len(numbers)), minor=True)
    axes.set_yticks(np.arange(-0.5, len(counts)), minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel("class of the map")
    axes.set_ylabel("known class")
    axes.set_title(
        f"Percent of each known class\nOA {score.oa:.3f}   NMI {score.nmi:.3f}   "
        f"ARI {score.ari:.3f}",
        fontsize=11,
    )
    return figure


# Parts ------------------------------------------------------------------------------------------


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _patch(color: str, label: str, edge: str = "none") -> Any:  # noqa: ANN401 - matplotlib's own
    from matplotlib.patches import Patch

    return Patch(facecolor=color, edgecolor=edge, label=label)


def _legend_right(figure: "Figure", handles: Sequence[Any]) -> None:
    rows = max(1, int((float(figure.get_figheight()) - 0.4) / 0.23))
    figure.legend(
        handles=handles, loc="outside right upper", ncols=-(-len(handles) // rows),
        handlelength=1.1, handleheight=1.1, labelspacing=0.5,
    )  # fmt: skip


def _number(axes: "Axes", one: MapClass, place: npt.NDArray[np.floating[Any]]) -> None:
    """A class's number in its own color, readable on any."""
    axes.annotate(
        str(one.number), (float(place[0]), float(place[1])), ha="center", va="center",
        fontsize=8.5, fontweight="bold", color=_INK,
        bbox={"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": one.color,
              "linewidth": 1.6, "alpha": 0.9},
    )  # fmt: skip


def _middle(places: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """The point closest to the median: a place where the class really is."""
    away = ((places - np.median(places, axis=0)) ** 2).sum(axis=1)
    return np.asarray(places[away.argmin()])


def _tsne(features: FloatArray, seed: int) -> FloatArray:
    from sklearn.manifold import TSNE

    if len(features) < 5:
        return np.asarray(np.pad(features, ((0, 0), (0, 2)))[:, :2])
    perplexity = min(30.0, (len(features) - 1) / 3)
    # Principal components to begin with keep far groups far apart; equal features have none.
    begin = "pca" if features.shape[1] > 1 and features.std() > 0 else "random"
    found = TSNE(2, perplexity=perplexity, init=begin, random_state=seed, learning_rate="auto")
    return np.asarray(found.fit_transform(features), dtype=np.float32)


def _picture_size(height: int, width: int, beside: bool) -> tuple[float, float]:
    """Width and height of a figure of two pictures and a legend, in inches."""
    if beside:
        tall = float(np.clip(4.2 * height / width, 3.2, 8.0))
        return 2 * tall * width / height + 2.2, tall + 0.5
    wide = 8.0
    return wide + 2.4, 2 * max(1.2, wide * height / width) + 0.9


def _color_title(image: SpectralImage) -> str:
    return "True color" if image.default_bands is not None else "Three of its bands"


def _axis(image: SpectralImage) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp], str]:
    """Where each band stands, in which order bands are drawn, and what the axis says."""
    if image.has_wavelengths:
        at = np.array([1000 * (band.center_wavelength_um or 0) for band in image.bands])
        order = np.argsort(at, kind="stable")
        return at[order], order, "wavelength (nm)"
    count = len(image.bands)
    return np.arange(1.0, count + 1), np.arange(count), "band"


def _breaks(places: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
    """Stretches without a gap, where bands that see only water vapor were taken out."""
    gaps = np.diff(places)
    if len(gaps) < 20:
        return [(0, len(places))]
    cuts = np.flatnonzero(gaps > 3.5 * np.median(gaps)) + 1
    edges = [0, *cuts.tolist(), len(places)]
    return list(pairwise(edges))


def _numbered(one: MapClass) -> str:
    """What is needed to name a class: its number; and its name where it has one."""
    return f"{one.number}  {_short(one.name)}" if one.name else f"class {one.number}"


def _share(share: float) -> str:
    return "< 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def _short(text: str, most: int = _LABEL_WIDTH) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
