"""A SimpleViT of one's own: its file, and features of every pixel of an image.

Nothing here imports torch before a network is needed.
"""

import io
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import numpy.typing as npt

from indexer.encoders.weights import UNTRAINED_SEED, sha256_of
from indexer.errors import InvalidInputError, WeightsError
from indexer.imagery.spectral_bands import SpectralBand
from indexer.imagery.spectral_cube import SpectralImage
from indexer.progress import Progress, Silent
from indexer.training.recipes import PretrainRecipe
from indexer.training.statistics import SpectralStatistics, usable
from indexer.training.windows import reach, reflected

if TYPE_CHECKING:
    from torch import Tensor

    from indexer.encoders.simple_vit_network import SimpleViT

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]

FORMAT: Final = "parcelle-simple-vit/1"
NAME: Final = "simple-vit"

_MAX_FILE_BYTES = 2**30
MEMORY_MIB: Final = 256
"""What a block of rows may take while it is embedded, unless told otherwise."""

_CHUNK_WINDOWS = {"cpu": 128, "cuda": 16_384}
"""Windows in one forward pass: on a CPU, what its caches hold."""


@dataclass(frozen=True, eq=False)
class BlockScale:
    """How a block of features is centered and scaled: ``(block - mean) sqrt(share) / rms``."""

    mean: FloatArray
    """Shape ``(d,)``, over the training sample."""
    rms: float
    """Root of the mean squared length of the centered block over the training sample."""
    share: float
    """Of the squared length of all features, 0 to 1."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"mean": self.mean.tolist(), "rms": self.rms, "share": self.share}


Scales = Mapping[str, BlockScale]


class SimpleViTEncoder:
    """A trained SimpleViT, or a random one of the same shape.

    Args:
        path: The file that it came from.
        digest: SHA-256 of that file.
        content: What the file holds, checked.
        device: ``auto``, ``cpu`` or ``cuda``.
        untrained_seed: Seed of a random network in place of the trained one; None for the latter.
    """

    name: Final = NAME

    def __init__(
        self,
        path: Path,
        digest: str,
        content: Mapping[str, Any],
        device: str = "auto",
        untrained_seed: int | None = None,
    ) -> None:
        self.path = path
        self.file_digest = digest
        self.untrained_seed = untrained_seed
        self.recipe = PretrainRecipe.from_dict(content["recipe"])
        self.bands = tuple(SpectralBand(**band) for band in content["bands"])
        self.statistics = _statistics_in(content["statistics"])
        self._device = device
        self._content = content

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> Self:
        """Read a file that ``parcelle pretrain`` wrote.

        Args:
            path: The file.
            device: ``auto``, ``cpu`` or ``cuda``.

        Raises:
            WeightsError: If there is no such file (``weights-not-found``), it is damaged or holds
                more than numbers (``weights-corrupt``), or it is something else, or of another
                version of this format (``weights-mismatch``).
        """
        content = read_encoder_file(path)
        try:
            encoder = cls(path, sha256_of(path), content, device)
            encoder._check()
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise WeightsError(
                f"{path}: its parts do not fit together ({type(error).__name__}: "
                f"{str(error).strip().splitlines()[-1][:160] if str(error).strip() else ''}); "
                "it was changed after it was written. Make it again with parcelle pretrain.",
                kind="weights-mismatch",
            ) from error
        return encoder

    def untrained(self, seed: int = UNTRAINED_SEED) -> Self:
        """A random network of the same shape, bands and statistics: what training is held against.

        Its blocks are scaled as measured with the random network that the training began with.
        """
        return type(self)(self.path, self.file_digest, self._content, self._device, seed)

    @property
    def trained(self) -> bool:
        """False for random weights, also for a file that was written after 0 steps."""
        return self.untrained_seed is None and self._content["steps"] > 0

    @property
    def digest(self) -> str:
        """SHA-256 of the file; for a random network, what makes it reproducible beside that."""
        if self.untrained_seed is None:
            return self.file_digest
        return f"{self.file_digest}, untrained, seed {self.untrained_seed}"

    @property
    def recipe_name(self) -> str:
        """Name of the training's recipe."""
        return self.recipe.name

    @property
    def window_px(self) -> int:
        """Side of the window around a pixel."""
        return self.recipe.window_px

    @property
    def dimensions(self) -> int:
        """Length of a pixel's features."""
        return sum(self._block_lengths.values())

    @property
    def settings(self) -> dict[str, Any]:
        """What the training was, in JSON form: all of the file but numbers of the network."""
        left_out = ("network", "statistics", "scales", "untrained_scales", "losses", "bands")
        return {key: value for key, value in self._content.items() if key not in left_out}

    @property
    def losses(self) -> list[float]:
        """The loss of every training step."""
        return list(self._content["losses"])

    def identity(self) -> dict[str, Any]:
        """What makes vectors of this encoder comparable, in JSON form; for an embedding space."""
        return {
            "encoder": self.name,
            "weights": {"kind": "file" if self.trained else "untrained", "digest": self.digest},
            "bands": [band.name for band in self.bands],
            "normalization": "z-score",
            "recipe": self.recipe.name,
            "window_px": self.window_px,
            "dimensions": self.dimensions,
        }

    @cached_property
    def device(self) -> str:
        """``cpu`` or ``cuda``.

        Raises:
            InvalidInputError: If a GPU was asked for and there is none (``invalid-option``).
        """
        return choose_device(self._device)

    @property
    def _block_lengths(self) -> dict[str, int]:
        lengths = {
            "embedding": self.recipe.embedding_dimensions,
            "center": self.statistics.channels,
        }
        return {block: lengths[block] for block in self.recipe.features}

    @cached_property
    def _scales(self) -> Scales:
        trained = self.untrained_seed is None
        return scales_in(self._content["scales" if trained else "untrained_scales"])

    @cached_property
    def network(self) -> "SimpleViT":
        """The network, in memory from its first use on."""
        if self.untrained_seed is not None:
            network = random_network(self.statistics.channels, self.recipe, self.untrained_seed)
        else:
            network = random_network(self.statistics.channels, self.recipe, 0)
            network.load_state_dict(self._content["network"], strict=True)
        return network.eval().to(self.device)

    def _check(self) -> None:
        """Raise ValueError, RuntimeError or the like where the file's parts do not fit."""
        bands = (len(self.bands),)
        statistics = self.statistics
        if statistics.mean.shape != bands or statistics.std.shape != bands:
            raise ValueError("bands and statistics differ in number")
        if not (np.isfinite(statistics.mean).all() and (statistics.std > 0).all()):
            raise ValueError("statistics are no numbers")
        components = statistics.components
        if (components is None) != (self.recipe.components is None) or (
            components is not None and components.shape[1:] != bands
        ):
            raise ValueError("components do not fit the bands")
        limits = statistics.limits
        if (limits is None) != (self.recipe.clip_std is None) or (
            limits is not None and limits.shape != (2, *bands)
        ):
            raise ValueError("limits do not fit the bands")
        for key in ("scales", "untrained_scales"):
            for block, length in self._block_lengths.items():
                scale = scales_in(self._content[key])[block]
                fits = scale.mean.shape == (length,) and scale.rms > 0 and 0 <= scale.share <= 1
                if not fits:
                    raise ValueError(f"{key} of {block} do not fit")
        if not isinstance(self._content["steps"], int) or not isinstance(
            self._content["losses"], list
        ):
            raise ValueError("steps or losses are missing")
        _check_shapes(self._content["network"], statistics.channels, self.recipe)

    def embed_pixels(
        self,
        values: FloatArray,
        valid_mask: BoolArray,
        *,
        rows: slice | None = None,
        columns: slice | None = None,
        wanted: BoolArray | None = None,
        progress: Progress | None = None,
    ) -> FloatArray:
        """Features of every valid pixel, each from the window around it.

        The image is continued by reflection at its borders, so that every pixel has a window.
        Pixels of a window that are not valid are filled with the mean of each band.

        Args:
            values: Shape ``(band, y, x)``, bands as ``bands``, in the unit of the training images.
            valid_mask: Shape ``(y, x)``; pixels with a value that is not finite count as invalid.
            rows: Embed only pixels of these rows; the others are context.
            columns: The same for columns.
            wanted: Embed only pixels where it is True, shape ``(y, x)``.
            progress: Told of every pixel.

        Returns:
            Shape ``(n, dimensions)``, one row for each valid pixel, in row-major order.

        Raises:
            InvalidInputError: If the number of bands is another (``invalid-bands``).
        """
        if values.ndim != 3 or values.shape[1:] != valid_mask.shape:
            raise ValueError(f"values {values.shape} do not fit mask {valid_mask.shape}")
        if len(values) != len(self.bands):
            raise InvalidInputError(
                f"{self.path.name} was trained on {len(self.bands)} bands, but {len(values)} are "
                "given; select the same bands, or train on these.",
                kind="invalid-bands",
            )
        mask = usable(values, valid_mask)
        chosen = np.zeros_like(mask)
        area = (rows or slice(None), columns or slice(None))
        chosen[area] = mask[area]
        if wanted is not None:
            chosen &= wanted
        channels = self.statistics.channels_of(values, mask)
        return self._features(channels, np.argwhere(chosen), progress or Silent())

    def _features(self, channels: FloatArray, places: IntArray, progress: Progress) -> FloatArray:
        """Features of pixels at ``places`` ``(n, 2)`` of an image ``(y, x, channel)``."""
        import torch

        from indexer.encoders.simple_vit_network import in_one_thread

        result = np.empty((len(places), self.dimensions), dtype=np.float32)
        if not len(places):
            return result
        progress.start("embedding pixels", len(places))
        offset = 0
        scales = self._scales if len(self.recipe.features) > 1 else {}
        for block, length in self._block_lengths.items():
            part = result[:, offset : offset + length]
            if block == "center":
                part[:] = channels[places[:, 0], places[:, 1]]
            else:
                with torch.inference_mode(), in_one_thread():
                    self._embeddings(channels, places, part, progress)
            if block in scales:
                part -= scales[block].mean
                part *= math.sqrt(scales[block].share) / scales[block].rms
            offset += length
        progress.finish()
        return result

    def _embeddings(
        self, channels: FloatArray, places: IntArray, out: FloatArray, progress: Progress
    ) -> None:
        """Write the network's embedding of every place to ``out``."""
        import torch

        windows = self._token_windows(torch.from_numpy(channels))
        row, column = torch.from_numpy(places).T.to(windows.device)
        step = _CHUNK_WINDOWS[self.device]
        for start in range(0, len(places), step):
            chunk = slice(start, start + step)
            tokens = windows[row[chunk], column[chunk]]
            embeddings = self.network.read(tokens.flatten(1, 2))
            out[chunk] = embeddings.cpu().numpy()
            progress.advance(len(embeddings))

    def _token_windows(self, channels: "Tensor") -> "Tensor":
        """The tokens of the window around every pixel: a view of shape ``(y, x, w, w, dim)``.

        A token is made once for each pixel, not once for each window that holds the pixel.
        """
        import torch

        before, after = reach(self.window_px)
        height, width, depth = channels.shape
        flat = torch.split(channels.reshape(-1, depth), 65_536)
        tokens = torch.cat([self.network.embed(part.to(self.device)) for part in flat])
        rows = torch.from_numpy(reflected(height, before, after)).to(self.device)
        columns = torch.from_numpy(reflected(width, before, after)).to(self.device)
        padded = tokens.view(height, width, -1)[rows][:, columns]
        views = padded.unfold(0, self.window_px, 1).unfold(1, self.window_px, 1)
        return views.permute(0, 1, 3, 4, 2)


@dataclass(frozen=True, eq=False)
class EmbeddedRows:
    """Features of some whole rows of an image."""

    row0: int
    row1: int
    """First row, and the one after the last."""
    valid_mask: BoolArray
    """Shape ``(row1 - row0, x)``."""
    features: FloatArray
    """Shape ``(n, d)``: of each valid pixel, in row-major order."""


def embed_image(
    encoder: SimpleViTEncoder,
    image: SpectralImage,
    progress: Progress | None = None,
    memory_mib: float = MEMORY_MIB,
) -> Iterator[EmbeddedRows]:
    """Features of an image of any size, some rows at a time.

    They are those of ``embed_pixels`` on the whole image, up to rounding: rows are read with the
    margin that their windows need.

    Args:
        encoder: Trained on the bands that the image has, in the same order.
        image: The image, as ``select_bands`` gives it.
        progress: Told of every row.
        memory_mib: What a block may take, in MiB; a block has at least a few rows.

    Yields:
        Blocks of rows from the top; together they cover every row.
    """
    progress = progress or Silent()
    height, width = image.shape
    before, after = reach(encoder.window_px)
    rows = max(before + 1, int(memory_mib * 2**20 / (width * _bytes_per_px(encoder))))
    progress.start("embedding rows", height)
    for row0 in range(0, height, rows):
        row1 = min(row0 + rows, height)
        first, last = max(0, row0 - before), min(height, row1 + after)
        chip = image.read(first, 0, last - first, width)
        inner = slice(row0 - first, row1 - first)
        mask = usable(chip.reflectance, chip.valid_mask)
        features = encoder.embed_pixels(chip.reflectance, mask, rows=inner)
        yield EmbeddedRows(row0, row1, mask[inner], features)
        progress.advance(row1 - row0)
    progress.finish()


def _bytes_per_px(encoder: SimpleViTEncoder) -> int:
    """What a pixel takes while it is read and embedded."""
    # As stored, as float32 and as float64 in between; then channels, tokens and features.
    reading = 24 * len(encoder.bands)
    return reading + 4 * (
        2 * encoder.statistics.channels + 3 * encoder.recipe.dim + encoder.dimensions
    )


def choose_device(device: str) -> str:
    """``cpu`` or ``cuda``, for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InvalidInputError: If a GPU was asked for and there is none, or the word is another
            (``invalid-option``).
    """
    import torch

    if device not in ("auto", "cpu", "cuda"):
        raise InvalidInputError(
            f"--device {device}: use one of auto, cpu, cuda.", kind="invalid-option"
        )
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InvalidInputError(
            "--device cuda: PyTorch sees no GPU here; use --device cpu or auto.",
            kind="invalid-option",
        )
    return device


def random_network(channels: int, recipe: PretrainRecipe, seed: int) -> "SimpleViT":
    """The network of a recipe with random weights; the same seed gives the same ones."""
    import torch

    from indexer.encoders.simple_vit_network import SimpleViT

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SimpleViT(channels, recipe)


def _check_shapes(state: Mapping[str, "Tensor"], channels: int, recipe: PretrainRecipe) -> None:
    """Raise ValueError if parameters are not those of a recipe's network."""
    import torch

    from indexer.encoders.simple_vit_network import SimpleViT

    # Without memory: what a file says of its network's size is not to be believed.
    with torch.device("meta"):
        expected = SimpleViT(channels, recipe).state_dict()
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if found != {name: tuple(tensor.shape) for name, tensor in expected.items()}:
        raise ValueError("the network's parameters are not those of the recipe")
    if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
        raise ValueError("the network's parameters are no numbers")


def scales_in(content: Mapping[str, Any]) -> dict[str, BlockScale]:
    """Scales from their JSON form."""
    return {
        block: BlockScale(
            np.asarray(scale["mean"], dtype=np.float32), float(scale["rms"]), float(scale["share"])
        )
        for block, scale in content.items()
    }


def _statistics_in(content: Mapping[str, Any]) -> SpectralStatistics:
    components, limits = content["components"], content["limits"]
    return SpectralStatistics(
        mean=content["mean"].double().numpy(),
        std=content["std"].double().numpy(),
        components=None if components is None else components.float().numpy(),
        limits=None if limits is None else limits.double().numpy(),
    )


def read_encoder_file(path: Path) -> dict[str, Any]:
    """What a file of ``parcelle pretrain`` holds, its format checked.

    Raises:
        WeightsError: See ``SimpleViTEncoder.load``.
    """
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such file. Make one with parcelle pretrain IMAGE --out {path.name}.",
            kind="weights-not-found",
        )
    content = read_tensors(path)
    found = content.get("format")
    if found != FORMAT:
        is_ours = isinstance(found, str) and found.startswith(FORMAT.split("/")[0] + "/")
        what = f"is of format {found}" if is_ours else "is no encoder of parcelle pretrain"
        raise WeightsError(
            f"{path}: {what}; this version reads {FORMAT}. "
            + ("Use the version that wrote it, or train again." if is_ours else "Give another."),
            kind="weights-mismatch",
        )
    return content


def read_tensors(path: Path) -> dict[str, Any]:
    """A dict of tensors and plain values, without running whatever code a file may hold.

    Raises:
        WeightsError: If the file is damaged, too large, or holds anything else
            (``weights-corrupt``).
    """
    import torch

    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ValueError("too large")
        content = torch.load(path, map_location="cpu", weights_only=True)
    # Damaged bytes raise errors of many sorts, see load_state.
    except Exception as error:
        raise WeightsError(
            f"{path}: cannot be read as a PyTorch file ({type(error).__name__}); it is truncated, "
            "of another format, or holds more than tensors. Make it again with parcelle pretrain.",
            kind="weights-corrupt",
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(
            f"{path}: holds no encoder, but {type(content).__name__}. Give another file.",
            kind="weights-mismatch",
        )
    return content


def write_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write a dict of tensors and plain values: aside, then renamed; the same bytes each time."""
    import torch

    # Through memory: torch.save puts the name of a file that it writes into the file.
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    # Not a temporary file of Python's, which nobody but its owner may read.
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def scale_of(block: FloatArray, share: float) -> BlockScale:
    """Mean and RMS of a block of features ``(n, d)`` over the pixels of a sample."""
    mean = block.mean(axis=0, dtype=np.float64)
    rms = math.sqrt(np.square(block - mean).sum(axis=1).mean())
    return BlockScale(mean.astype(np.float32), rms or 1.0, share)
