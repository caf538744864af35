import pytest
import torch
from torchgeo.models.croma import get_2dalibi

from indexer.encoders.croma_network import HEAD_ROWS, _in_blocks, position_bias


@pytest.fixture(scope="module")
def bias() -> torch.Tensor:
    return position_bias(16)


def test_the_position_bias_is_that_of_torchgeo(bias: torch.Tensor) -> None:
    assert torch.equal(bias, get_2dalibi(16, 225))


def test_a_score_falls_with_the_distance_by_the_slope_of_its_head(bias: torch.Tensor) -> None:
    # From row 0, column 0 to row 3, column 4 it is 5 patches; the first of 16 heads loses
    # 2 ** (-8 / 16) per patch, the last 2 ** -8.
    far = 3 * 15 + 4
    assert bias[0, 0, 0, far].item() == pytest.approx(-5 * 2**-0.5)
    assert bias[0, 15, far, 0].item() == -5 / 256
    assert not bias.diagonal(dim1=-2, dim2=-1).any()


@pytest.mark.parametrize("count", [1, HEAD_ROWS, HEAD_ROWS + 1, 3 * HEAD_ROWS])
def test_rows_go_through_a_layer_in_blocks_of_one_size(count: int) -> None:
    sizes: list[int] = []

    def double(rows: torch.Tensor) -> torch.Tensor:
        sizes.append(len(rows))
        return rows * 2

    rows = torch.arange(count * 3.0).reshape(count, 3)
    assert torch.equal(_in_blocks(double, rows), rows * 2)
    assert sizes == [HEAD_ROWS] * -(-count // HEAD_ROWS)
