import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.blocks import Block, BlockWork, Piece, in_blocks, in_pieces
from indexer.catalog.writing import Known
from indexer.chipping import ChipPlan, Part, Target, View, Window
from indexer.embedder import Embedded, Embedder, embed_ahead
from indexer.encoders.croma import CromaEncoder
from indexer.encoders.weights import locate_weights
from indexer.errors import WeightsError
from indexer.findings import Findings
from indexer.imagery.sources import find_sources
from indexer.inputs import EmbeddingOptions, resolve_inputs
from indexer.parcels.parcel import Parcel
from indexer.pipeline import Inputs, Opened, each_image, in_batches, recipe_of, tile_works
from indexer.preparing import Preparation, Prepared
from indexer.progress import Silent
from tests.indexer.field_scenes import write_field_scene, write_fields
from tests.indexer.one_layer import NAME, OneLayerEncoder

SIZE_PX = 220


def always(_prepared: Prepared, _known: Known | None) -> bool:
    return True


def when_unknown(_prepared: Prepared, known: Known | None) -> bool:
    return known is None


def tile(number: int, *parcels: str, views: tuple[View, ...] = ()) -> ChipPlan:
    """The tile of that number in a row of tiles, and the parcels in it."""
    targets = tuple(Target(Parcel("test", parcel_id, None), None) for parcel_id in parcels)
    return ChipPlan(0, 88 * number, 120, 120, targets, views)


def across(parcel_id: str, *numbers: int) -> View:
    """A parcel in several tiles of that row."""
    windows = [Window(0, 88 * number, 120, 120) for number in numbers]
    target = Target(Parcel("test", parcel_id, None), None)
    return View(target, windows[0], tuple(Part(window, window) for window in windows))


def parcels_of(plan: list[ChipPlan]) -> list[str]:
    targets = [target for one in plan for target in one.targets]
    targets += [view.target for one in plan for view in one.views]
    return [target.parcel.parcel_id for target in targets]


# Cutting


def test_a_parcel_in_several_tiles_takes_all_of_them_to_the_piece_of_its_first() -> None:
    plan = [tile(0, "a"), tile(1, "b", views=(across("long", 1, 2, 3),)), tile(2), tile(3, "d")]
    (first, done), (second, rest) = in_pieces(plan, 2)
    assert [one.window.column for one in first] == [0, 88, 176, 264]
    assert parcels_of(first) == ["a", "b", "long"]
    # The third tile shows nothing but the parcel that is done with the first piece.
    assert [one.window.column for one in second] == [264]
    assert parcels_of(second) == ["d"]
    assert (done, rest) == (2, 2)


@given(st.integers(0, 40), st.integers(1, 9), st.data())
def test_pieces_hold_every_parcel_once_and_all_of_its_tiles(
    count: int, size: int, data: st.DataObject
) -> None:
    plan: list[ChipPlan] = []
    for number in range(count):
        views: tuple[View, ...] = ()
        if data.draw(st.booleans()):
            last = data.draw(st.integers(number + 1, number + 12))
            views = (across(f"view-{number}", *range(number, last + 1)),)
        plan.append(tile(number, f"parcel-{number}", views=views))
    pieces = list(in_pieces(plan, size))
    assert sum(done for _, done in pieces) == count
    assert sorted(one for piece, _ in pieces for one in parcels_of(piece)) == sorted(
        parcels_of(plan)
    )
    for piece, _ in pieces:
        windows = [one.window for one in piece]
        assert windows == sorted(set(windows))
        needed = {part.tile for one in piece for view in one.views for part in view.parts}
        assert needed <= set(windows)


def test_images_of_few_tiles_share_a_block(tmp_path: Path) -> None:
    (source,), _ = find_sources([write_field_scene(tmp_path / "a.tif", 130, 0)])
    pieces = [Piece(source, (), {}, steps) for steps in (1, 1, 2, 5, 1)]
    blocks = list(in_blocks(pieces, 4))
    assert [[piece.steps for piece in block] for block in blocks] == [[1, 1, 2], [5], [1]]


# Working


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    """Two scenes and their fields."""
    for seed in range(2):
        write_field_scene(tmp_path / "images" / f"scene-{seed}.tif", SIZE_PX, seed)
    options = EmbeddingOptions(parcels=write_fields(tmp_path / "fields.geojson", SIZE_PX))
    return resolve_inputs([tmp_path / "images"], options, Findings())


def one_layer() -> CromaEncoder:
    encoder = OneLayerEncoder(NAME, locate_weights("untrained", NAME))
    return encoder  # type: ignore[return-value]


def work_of(inputs: Inputs, changed: Callable[[Prepared, Known | None], bool]) -> BlockWork:
    encoder = one_layer()
    preparation = Preparation(recipe_of(encoder, inputs), inputs.pooling, encoder.patches_per_side)
    work = BlockWork.of(inputs, preparation, 2, changed, encoder, "cpu")
    # As it travels.
    return pickle.loads(pickle.dumps(work))  # type: ignore[no-any-return]


def blocks_of(inputs: Inputs, size: int) -> list[Block]:
    def pieces(opened: Opened) -> Iterator[Piece]:
        for plan, steps in in_pieces(opened.plan, size):
            yield Piece(opened.image.source, plan, {}, steps)

    found = each_image(inputs, Findings(), Silent(), "Cutting", pieces)
    return [pickle.loads(pickle.dumps(Block(one))) for one in in_blocks(found, size)]


def test_blocks_give_what_a_run_of_one_process_gives(inputs: Inputs) -> None:
    work = work_of(inputs, always)
    found: dict[tuple[str, str], Embedded] = {}
    for block in blocks_of(inputs, 2):
        result = pickle.loads(pickle.dumps(work.run(one_layer(), block)))
        assert not any(piece.error or piece.unchanged for piece in result.pieces)
        for one in result.embedded:
            found[one.prepared.parcel.parcel_id, one.prepared.seen.scene] = one
    take = partial(
        tile_works,
        preparation=work.preparation,
        findings=Findings(),
        progress=Silent(),
        wanted=lambda prepared: prepared,
        input_of=work.preparation.input_of,
    )
    works = each_image(inputs, Findings(), Silent(), "Embedding", take)
    expected = [
        one for done, _ in embed_ahead(Embedder(one_layer()), in_batches(works, 2)) for one in done
    ]
    assert len(found) == len(expected) > 2 * 25
    for one in expected:
        same = found[one.prepared.parcel.parcel_id, one.prepared.seen.scene]
        assert same.prepared.fingerprint == one.prepared.fingerprint
        assert same.prepared.state == one.prepared.state
        assert (same.embedding is None) == (one.embedding is None)
        if one.embedding is not None and same.embedding is not None:
            np.testing.assert_array_equal(same.embedding, one.embedding)


def test_what_the_catalog_knows_is_sent_back_as_unchanged(inputs: Inputs) -> None:
    known = Known(7, "of these pixels", "of these pixels", 3, "a.tif", None)
    block = blocks_of(inputs, 2)[0]
    piece = replace(block.pieces[0], known={"long": known, "field-001": known})
    result = work_of(inputs, when_unknown).run(one_layer(), Block((piece,), sampled=1))
    (met,) = result.pieces
    assert {one.parcel.parcel_id: one.known for one in met.unchanged} == piece.known
    names = {one.prepared.parcel.parcel_id for one in result.embedded}
    assert "wide" in names
    assert not names & {"long", "field-001"}
    assert len(result.sample) == 1
    # Weights of patches have done their work.
    assert all(one.prepared.parts == () for one in result.embedded)


def test_an_image_that_cannot_be_opened_is_told_and_the_next_one_embedded(inputs: Inputs) -> None:
    lost = replace(inputs.sources[0], path=Path("lost.tif"), files=((None, Path("lost.tif")),))  # type: ignore[type-var]
    pieces = [piece for block in blocks_of(inputs, 100) for piece in block.pieces]
    block = Block((replace(pieces[0], source=lost), pieces[1]))
    result = work_of(inputs, always).run(one_layer(), block)
    broken, whole = result.pieces
    assert broken.error is not None
    assert "lost.tif" in broken.error.message
    assert whole.error is None
    assert {one.prepared.seen.scene for one in result.embedded} == {"scene-1"}


# The encoder elsewhere


def test_a_machine_opens_the_same_croma_by_its_file_and_none_other(
    inputs: Inputs, tiny_croma: str, tmp_path: Path
) -> None:
    file = tmp_path / "weights.pt"
    file.write_bytes(b"one")
    encoder = CromaEncoder(tiny_croma, locate_weights(str(file), tiny_croma), "cpu", "bf16", "sar")
    preparation = Preparation(recipe_of(encoder, inputs), inputs.pooling, 15)
    work = BlockWork.of(inputs, preparation, 2, always, encoder, "auto")
    work = pickle.loads(pickle.dumps(work))
    there = work.open_encoder()
    assert (there.weights, there.precision) == (encoder.weights, "bf16")
    assert isinstance(there, CromaEncoder)
    assert (there.name, there.modality, there.loaded) == (tiny_croma, "sar", False)
    file.write_bytes(b"two")
    with pytest.raises(WeightsError, match=r"weights\.pt: not the same") as caught:
        work.open_encoder()
    assert caught.value.kind == "weights-mismatch"
