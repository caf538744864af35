"""Recipes: every number and choice that decides what a training learns, under a name."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, Final, Literal, Self, get_args, get_origin

from indexer.errors import InvalidInputError

Readout = Literal["mean", "center+mean"]
Block = Literal["embedding", "center"]

DEFAULT_RECIPE: Final = "default"


@dataclass(frozen=True)
class PretrainRecipe:
    """A training, from standardized bands to the features of a pixel.

    Every recipe begins with a z-score per band over the valid pixels of the training images.
    """

    name: str

    clip_std: float | None
    """Values further than so many standard deviations from a band's mean are cut to there, so that
    a dead pixel neither hides its band nor becomes a class of its own; None leaves them."""
    components: int | None
    """Principal components that the network sees, at an overall standard deviation of 1; None
    shows it the z-scored bands themselves."""
    whitening: float
    """What is done to the components' amplitudes: 0 keeps their ratios, 0.5 takes square roots of
    them, 1 makes all alike. In between, subtle differences count and noise does not rule."""

    window_px: int
    """Side of the square window around a pixel; an even one reaches further up and left."""
    dim: int
    """Length of a token. There is one token for each pixel of the window (patch 1)."""
    depth: int
    heads: int
    dim_head: int
    mlp_dim: int
    input_norm: bool
    """LayerNorm over a pixel's bands before the embedding; it removes brightness."""
    readout: Readout
    """What the window's tokens become: their mean, or the center token beside the mean."""
    head: int | None
    """Length of a linear layer after the readout; None leaves it out."""

    min_mean_z: float | None
    """Train only on windows whose z-scored mean is above this; None takes all."""

    anchor_augmented: bool
    """Whether the anchor is disturbed like its positive, or stays as it is."""
    shift_px: int
    """The positive lies so many rows and columns off its anchor at most."""
    candidates: int
    """Of so many places drawn there, the positive is the one whose pixel is most like the
    anchor's: neighbors, but rarely across a border."""
    gain: float
    """Standard deviation of the factor (1 + gain) on a whole window."""
    noise: float
    """Standard deviation of the noise on every value; the input has one of about 1."""
    band_drop: float
    """Probability that a channel of the window is set to 0."""
    spatial_drop: float
    """Probability that a pixel of the window is set to 0."""
    flips: bool
    """Whether views are flipped up-down, left-right and transposed, each half of the time."""

    loss: Literal["triplet", "vicreg"]
    margin: float
    """Of the triplet loss."""
    invariance: float
    variance: float
    covariance: float
    """Weights of VICReg's three terms."""
    projector: tuple[int, ...]
    """Widths of the layers between the embedding and VICReg; empty for the embedding itself."""

    optimizer: Literal["adam", "adamw"]
    learning_rate: float
    weight_decay: float
    schedule: Literal["constant", "onecycle"]
    batch_size: int
    steps: int
    """Most steps that are made."""
    stop_below: float | None
    """The training ends once the mean loss of its last ``STOP_WINDOW`` steps is below this."""

    features: tuple[Block, ...]
    """Blocks of a pixel's features: the network's embedding, the center pixel's channels. Where
    there are several, each is centered and brought to the RMS that its share gives it."""
    clear_silhouette: float | None
    """Silhouette of the pixels' own groups at which embedding and center pixel count the same.
    Above it the pixel itself tells more, below it its surroundings do; None: always the same."""

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem:
            raise InvalidInputError(f"recipe {self.name}: {problem}.", kind="invalid-option")

    @property
    def embedding_dimensions(self) -> int:
        """Length of the network's output."""
        return self.head or self.dim * (2 if self.readout == "center+mean" else 1)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Read the JSON form.

        Raises:
            InvalidInputError: If a field is missing, unknown, or of a value that cannot be
                (``invalid-option``).
        """
        names = {field.name for field in fields(cls)}
        if set(settings) != names:
            odd = ", ".join(sorted(map(str, names ^ set(settings)))[:5])
            raise InvalidInputError(f"recipe: missing or unknown: {odd}.", kind="invalid-option")
        values: dict[str, Any] = {
            key: tuple(it) if isinstance(it, list) else it for key, it in settings.items()
        }
        return cls(**values)


STOP_WINDOW: Final = 50
"""Steps whose mean loss decides on an early stop."""

_RANGES: Final[dict[str, tuple[float, float]]] = {
    "clip_std": (0.1, 1e6),
    "components": (1, 1024),
    "whitening": (0, 1),
    "window_px": (1, 64),
    "dim": (8, 1024),
    "depth": (1, 24),
    "heads": (1, 64),
    "dim_head": (1, 256),
    "mlp_dim": (1, 8192),
    "head": (1, 4096),
    "min_mean_z": (-100, 100),
    "shift_px": (0, 64),
    "candidates": (1, 1024),
    "gain": (0, 10),
    "noise": (0, 10),
    "band_drop": (0, 0.99),
    "spatial_drop": (0, 0.99),
    "margin": (0, 1e6),
    "invariance": (0, 1e6),
    "variance": (0, 1e6),
    "covariance": (0, 1e6),
    "learning_rate": (1e-9, 10),
    "weight_decay": (0, 10),
    "batch_size": (2, 65_536),
    "steps": (0, 10_000_000),
    "stop_below": (0, 1e6),
    "clear_silhouette": (-1, 1),
}


def _problem(recipe: PretrainRecipe) -> str | None:
    """What is wrong with a recipe, which may come from a file; None if nothing is."""
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if not _fits(field.type, value):
            return f"{field.name} is {value!r:.40}"
        low, high = _RANGES.get(field.name, (0, 0))
        if field.name in _RANGES and value is not None and not low <= value <= high:
            return f"{field.name} is {value!r:.40}, not within {low:g} and {high:g}"
    if recipe.dim % 4:
        return f"dim is {recipe.dim}, which 4 does not divide (sines and cosines, x and y)"
    if any(not 1 <= width <= 4096 for width in recipe.projector):
        return f"projector is {recipe.projector}, with a width not within 1 and 4096"
    if not recipe.features or len(set(recipe.features)) != len(recipe.features):
        return f"features is {recipe.features!r}, which is empty or repeats a block"
    if recipe.components is None and recipe.whitening:
        return "whitening is for components, but none are asked for"
    if recipe.min_mean_z is not None and recipe.components is not None:
        return "min_mean_z needs z-scored bands, but components are asked for"
    return None


def _fits(kind: Any, value: Any) -> bool:  # noqa: ANN401 - annotations and values of every sort
    """Whether a value is of an annotation that a recipe's fields have."""
    if get_origin(kind) is Literal:
        return any(value is not True and value == choice for choice in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(get_args(kind)[0], one) for one in value)
    if get_args(kind):
        return any(_fits(one, value) for one in get_args(kind))
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


_REPORT = PretrainRecipe(
    name="report",
    clip_std=None,
    components=None,
    whitening=0.0,
    window_px=8,
    dim=20,
    depth=5,
    heads=3,
    dim_head=64,
    mlp_dim=5,
    input_norm=True,
    readout="mean",
    head=20,
    min_mean_z=0.1,
    anchor_augmented=False,
    shift_px=0,
    candidates=1,
    gain=0.0,
    noise=0.1,
    band_drop=0.0,
    spatial_drop=0.0,
    flips=False,
    loss="triplet",
    margin=1.0,
    invariance=0.0,
    variance=0.0,
    covariance=0.0,
    projector=(),
    optimizer="adam",
    learning_rate=3e-4,
    weight_decay=0.0,
    schedule="constant",
    batch_size=64,
    steps=300,
    stop_below=0.003,
    features=("embedding",),
    clear_silhouette=None,
)

_DEFAULT = PretrainRecipe(
    name="default",
    clip_std=4.0,
    components=20,
    whitening=0.5,
    window_px=7,
    dim=32,
    depth=2,
    heads=2,
    dim_head=16,
    mlp_dim=64,
    input_norm=False,
    readout="center+mean",
    head=None,
    min_mean_z=None,
    anchor_augmented=True,
    shift_px=2,
    candidates=8,
    gain=0.1,
    noise=0.1,
    band_drop=0.1,
    spatial_drop=0.2,
    flips=True,
    loss="vicreg",
    margin=0.0,
    invariance=25.0,
    variance=12.5,
    covariance=1.0,
    projector=(128, 64),
    optimizer="adamw",
    learning_rate=1e-3,
    weight_decay=1e-2,
    schedule="onecycle",
    batch_size=192,
    steps=300,
    stop_below=None,
    features=("embedding", "center"),
    clear_silhouette=0.5,
)

RECIPES: Final[Mapping[str, PretrainRecipe]] = MappingProxyType(
    {recipe.name: recipe for recipe in (_DEFAULT, _REPORT)}
)


def recipe_named(name: str) -> PretrainRecipe:
    """The recipe of a name.

    Raises:
        InvalidInputError: If there is none (``invalid-option``).
    """
    try:
        return RECIPES[name]
    except KeyError:
        raise InvalidInputError(
            f"--recipe {name}: unknown; use one of {', '.join(RECIPES)}.", kind="invalid-option"
        ) from None
