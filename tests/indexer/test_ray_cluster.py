import sys
from pathlib import Path

import pytest

from indexer.blocks import BlockWork
from indexer.encoders.croma import CromaEncoder
from indexer.encoders.weights import locate_weights
from indexer.errors import InvalidInputError
from indexer.findings import Findings
from indexer.inputs import EmbeddingOptions, resolve_inputs
from indexer.pipeline import recipe_of
from indexer.preparing import Preparation
from indexer.ray_cluster import RayCluster
from tests.indexer.farm import write_image


@pytest.fixture
def work(tmp_path: Path) -> BlockWork:
    """The work of a run over one image."""
    inputs = resolve_inputs([write_image(tmp_path / "a.tif")], EmbeddingOptions(), Findings())
    encoder = CromaEncoder("croma-base", locate_weights("untrained", "croma-base"))
    preparation = Preparation(recipe_of(encoder, inputs), inputs.pooling, 15)
    return BlockWork.of(inputs, preparation, 2, lambda _prepared, _known: True, encoder, "cpu")


def test_a_missing_ray_is_told_with_the_extra_that_brings_it(
    work: BlockWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InvalidInputError, match=r"pip install 'parcelle\[ray\]'") as caught:
        RayCluster("auto", work)
    assert caught.value.kind == "invalid-option"
