"""Blocks of tiles for other machines: what they are given, what they do, what they send back."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from indexer.catalog.writing import Known
from indexer.chipping import ChipPlan, Window
from indexer.embedder import Embedded, Embedder, embed_ahead
from indexer.encoders.croma import CromaEncoder
from indexer.encoders.pixel_encoder import PixelEncoder
from indexer.encoders.weights import Weights, locate_weights
from indexer.errors import ImageryError, WeightsError
from indexer.findings import Findings
from indexer.imagery.rasters import held_open
from indexer.imagery.sources import Source
from indexer.pipeline import Inputs, Opened, TileWork, in_batches, tile_works
from indexer.preparing import Preparation, Prepared
from indexer.progress import Silent
from indexer.sensors import Modality

TILES_OF_A_BLOCK: Final = 64
"""Tiles that are sent at once: a quarter of a minute of work without a GPU."""

RunEncoder = CromaEncoder | PixelEncoder
Changed = Callable[[Prepared, Known | None], bool]
"""Tells whether an observation is to be embedded, by what the catalog holds of it."""


@dataclass(frozen=True)
class Piece:
    """Some tiles of one image."""

    source: Source
    plan: Sequence[ChipPlan]
    """Neighbors, and those that parcels of theirs reach into, in order."""
    known: Mapping[str, Known]
    """What the catalog holds of their parcels in this scene, by parcel id."""
    steps: int
    """Tiles of the image's plan that are done with it."""


@dataclass(frozen=True)
class Block:
    """Pieces that are worked on together."""

    pieces: tuple[Piece, ...]
    sampled: int = 0
    """Tiles that are to be sent back for the comparison with fp32."""

    @property
    def steps(self) -> int:
        """Tiles that are done with it."""
        return sum(piece.steps for piece in self.pieces)


@dataclass
class PieceResult:
    """What was met on the way through a piece."""

    source: Source
    findings: Findings = field(default_factory=Findings)
    unchanged: list[Prepared] = field(default_factory=list)
    error: ImageryError | None = None
    """Why the image could not be opened, or not be read to the piece's end."""


@dataclass
class BlockResult:
    """What became of a block."""

    pieces: list[PieceResult] = field(default_factory=list)
    embedded: list[Embedded] = field(default_factory=list)
    """Those of all pieces, in order."""
    sample: list[TileWork] = field(default_factory=list)
    passes: int = 0
    network_seconds: float = 0.0


@dataclass(frozen=True)
class BlockWork:
    """How the blocks of a run are worked on; it can be pickled."""

    inputs: Inputs
    """Without parcels and sources, which come with the blocks."""
    preparation: Preparation
    batch_size: int
    changed: Changed
    folder: str
    """Where relative paths begin."""
    open_encoder: Callable[[], RunEncoder]
    """Finds the encoder on the machine that calls it; it is loaded at its first use.

    Raises:
        WeightsError: If the machine lacks it, or has another.
    """

    @classmethod
    def of(
        cls,
        inputs: Inputs,
        preparation: Preparation,
        batch_size: int,
        changed: Changed,
        encoder: RunEncoder,
        device: str,
    ) -> "BlockWork":
        """The work of a run.

        Args:
            inputs: What it reads.
            preparation: How it prepares chips.
            batch_size: Forward passes at once.
            changed: A function of a module.
            encoder: The run's; its network does not travel.
            device: ``auto``, ``cpu`` or ``cuda``, chosen by each machine for itself.
        """
        light = replace(inputs, sources=(), finder=None, named=frozenset())
        opening = _opening(encoder, device)
        return cls(light, preparation, batch_size, changed, os.getcwd(), opening)

    def run(self, encoder: RunEncoder, block: Block) -> BlockResult:
        """Read, prepare and embed a block; images that cannot be read are told in the result."""
        result, embedder = BlockResult(), Embedder(encoder)
        works = _sampled(self._works(block, result), result.sample, block.sampled)
        for embedded, _ in embed_ahead(embedder, in_batches(works, self.batch_size)):
            result.embedded += [replace(one, prepared=_light(one.prepared)) for one in embedded]
        result.passes, result.network_seconds = embedder.passes, embedder.seconds
        return result

    def _works(self, block: Block, result: BlockResult) -> Iterator[TileWork]:
        for piece in block.pieces:
            met = PieceResult(piece.source)
            result.pieces.append(met)
            try:
                yield from self._works_of(piece, met)
            except ImageryError as error:
                met.error = error

    def _works_of(self, piece: Piece, met: PieceResult) -> Iterator[TileWork]:
        def wanted(prepared: list[Prepared]) -> list[Prepared]:
            chosen: list[Prepared] = []
            for one in prepared:
                known = piece.known.get(one.parcel.parcel_id)
                one = replace(one, known=known)
                if self.changed(one, known):
                    chosen.append(one)
                else:
                    met.unchanged.append(_light(one))
            return chosen

        opened = Opened(self.inputs.open(piece.source), list(piece.plan), met.findings)
        with held_open():
            yield from tile_works(
                opened,
                self.preparation,
                met.findings,
                Silent(),
                wanted,
                self.preparation.input_of,
            )


def _sampled(works: Iterable[TileWork], sample: list[TileWork], most: int) -> Iterator[TileWork]:
    """Keep the first of those that go through the network."""
    for work in works:
        if work.jobs and len(sample) < most:
            sample.append(work)
        yield work


def _light(prepared: Prepared) -> Prepared:
    """Without the weights of its patches: nobody needs them after it was embedded."""
    return replace(prepared, parts=())


# Cutting --------------------------------------------------------------------------------------


def in_pieces(plan: Iterable[ChipPlan], size: int) -> Iterator[tuple[list[ChipPlan], int]]:
    """Cut a plan into pieces that need nothing of each other.

    A parcel in several tiles belongs to the piece of its first; the others are added there.

    Args:
        plan: The tiles of an image, in order.
        size: How many of them make a piece.

    Yields:
        The tiles of a piece in order, and how many of the plan's are done with it.
    """
    piece: list[ChipPlan] = []
    for tile in plan:
        piece.append(tile)
        if len(piece) == size:
            yield _whole(piece), size
            piece = []
    if piece:
        yield _whole(piece), len(piece)


def _whole(piece: Sequence[ChipPlan]) -> list[ChipPlan]:
    """With the tiles that its parcels reach into; without those that only others reach into."""
    tiles = {tile.window: tile for tile in piece if tile.targets or tile.views}
    for tile in piece:
        for view in tile.views:
            for part in view.parts:
                tiles.setdefault(part.tile, _empty(part.tile))
    return [tiles[window] for window in sorted(tiles)]


def _empty(tile: Window) -> ChipPlan:
    return ChipPlan(tile.row, tile.column, tile.height, tile.width, ())


def in_blocks(pieces: Iterable[Piece], size: int) -> Iterator[tuple[Piece, ...]]:
    """Group pieces so that images of few tiles share a block of ``size`` tiles or more."""
    block: list[Piece] = []
    for piece in pieces:
        block.append(piece)
        if sum(one.steps for one in block) >= size:
            yield tuple(block)
            block = []
    if block:
        yield tuple(block)


# The encoder elsewhere ------------------------------------------------------------------------


def _opening(encoder: RunEncoder, device: str) -> Callable[[], RunEncoder]:
    """What finds the same encoder on another machine."""
    if isinstance(encoder, PixelEncoder):
        path = encoder.network.path.absolute()
        return partial(_open_pixel_encoder, path, device, encoder.weights)
    return partial(
        _open_croma,
        type(encoder),
        encoder.name,
        encoder.weights,
        device,
        encoder.precision,
        encoder.modality,
    )


def _open_croma(
    kind: type[CromaEncoder],
    name: str,
    weights: Weights,
    device: str,
    precision: str,
    modality: Modality,
) -> CromaEncoder:
    choice = str(weights.path) if weights.kind == "file" else weights.kind
    found = locate_weights(choice, name)
    _check_same(found, weights)
    return kind(name, found, device, precision, modality)


def _open_pixel_encoder(path: Path, device: str, weights: Weights) -> PixelEncoder:
    encoder = PixelEncoder.open(path, device)
    _check_same(encoder.weights, weights)
    return encoder


def _check_same(found: Weights, wanted: Weights) -> None:
    """Refuse to mix the vectors of two networks.

    Raises:
        WeightsError: ``weights-mismatch``.
    """
    if found.digest != wanted.digest:
        what = "untrained weights" if found.path is None else str(found.path)
        raise WeightsError(
            f"{what}: not the same on {os.uname().nodename} ({found.digest[:60]}) as where the run "
            f"was started ({wanted.digest[:60]}); bring the same file, or the same libraries, to "
            "every machine.",
            kind="weights-mismatch",
        )
