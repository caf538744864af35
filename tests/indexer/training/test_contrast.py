import math
from dataclasses import replace

import pytest
import torch

from indexer.training.contrast import disturb, draw_views, make_projector, triplet, vicreg
from indexer.training.recipes import RECIPES
from indexer.training.samples import TrainingSample

QUIET = replace(
    RECIPES["default"], gain=0.0, noise=0.0, band_drop=0.0, spatial_drop=0.0, flips=False
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_triplet_loss_pushes_an_anchor_from_its_neighbor_in_the_batch() -> None:
    anchors = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    positives = torch.tensor([[0.0, 2.0], [3.0, 4.0]])
    # Distances to positives 2 and 0, to the other anchor 5: max(0, 2 - 5 + m), max(0, 0 - 5 + m).
    assert triplet(anchors, positives, margin=1.0).item() == 0
    assert triplet(anchors, positives, margin=7.0).item() == pytest.approx((4 + 2) / 2, abs=1e-4)


def test_vicreg_of_views_that_agree_and_vary_alone_is_nothing() -> None:
    # Standard deviation sqrt(4 * 4 / 3) > 1 in each dimension, covariance 0.
    views = torch.tensor([[2.0, 2.0], [2.0, -2.0], [-2.0, 2.0], [-2.0, -2.0]])
    assert vicreg(views, views, 25.0, 12.5, 1.0).item() == pytest.approx(0, abs=1e-6)


def test_each_term_of_vicreg_is_what_it_is_defined_to_be() -> None:
    views = torch.tensor([[2.0, 2.0], [2.0, -2.0], [-2.0, 2.0], [-2.0, -2.0]])
    assert vicreg(views, views + 3, 1.0, 0.0, 0.0).item() == pytest.approx(9)
    alike = torch.zeros(4, 2)
    # Variance 0 becomes sqrt(1e-4) = 0.01, in both views.
    assert vicreg(alike, alike, 0.0, 1.0, 0.0).item() == pytest.approx(2 * 0.99)
    same = torch.tensor([[2.0, 2.0], [-2.0, -2.0]])
    # Covariance 8 off the diagonal, twice, over 2 dimensions; in both views.
    assert vicreg(same, same, 0.0, 0.0, 1.0).item() == pytest.approx(2 * 2 * 8**2 / 2)


def test_a_projector_of_no_layers_hands_the_embedding_on() -> None:
    embedding = torch.randn(4, 20, generator=seeded())
    assert torch.equal(make_projector(RECIPES["report"])(embedding), embedding)


def test_a_view_without_disturbance_is_the_window() -> None:
    windows = torch.randn(5, 3, 7, 7, generator=seeded())
    assert torch.equal(disturb(windows, QUIET, seeded()), windows)


def test_a_gain_is_one_factor_for_a_whole_window() -> None:
    windows = torch.rand(200, 3, 7, 7, generator=seeded()) + 1
    factors = disturb(windows, replace(QUIET, gain=0.1), seeded()) / windows
    flat = factors.flatten(1)
    torch.testing.assert_close(flat, flat[:, :1].expand_as(flat))
    assert flat[:, 0].std().item() == pytest.approx(0.1, rel=0.2)


def test_noise_is_of_the_recipes_size_on_every_value() -> None:
    added = disturb(torch.zeros(100, 3, 7, 7), replace(QUIET, noise=0.3), seeded())
    assert added.std().item() == pytest.approx(0.3, rel=0.05)
    assert (added != 0).all()


def test_dropped_bands_and_pixels_are_zero_as_a_whole() -> None:
    ones = torch.ones(400, 5, 7, 7)
    bands = disturb(ones, replace(QUIET, band_drop=0.25), seeded())
    assert set(bands.mean(dim=(2, 3)).flatten().tolist()) == {0.0, 1.0}
    assert 1 - bands.mean().item() == pytest.approx(0.25, abs=0.03)
    pixels = disturb(ones, replace(QUIET, spatial_drop=0.25), seeded())
    assert set(pixels.mean(dim=1).flatten().tolist()) == {0.0, 1.0}
    assert 1 - pixels.mean().item() == pytest.approx(0.25, abs=0.03)


def test_flips_give_all_eight_orientations_of_a_square() -> None:
    window = torch.arange(9.0).reshape(1, 1, 3, 3)
    generator = seeded()
    flipping = replace(QUIET, flips=True)
    seen = {tuple(disturb(window, flipping, generator).flatten().tolist()) for _ in range(200)}
    assert len(seen) == 8


def one_tile(valid: torch.Tensor) -> TrainingSample:
    """A tile whose channel is the number of the pixel, with a margin of 4."""
    side = len(valid)
    channels = torch.arange(float(side * side)).reshape(1, side, side, 1)
    return TrainingSample(channels, valid[None], margin_px=4, window_px=3)


def test_a_positive_lies_within_the_shift_of_its_anchor_on_a_valid_pixel() -> None:
    valid = torch.rand(20, 20, generator=seeded()) > 0.5
    sample = one_tile(valid)
    recipe = replace(QUIET, window_px=3)
    first, second = draw_views(sample, recipe, 50, seeded())
    numbers = [views[:, 0, 1, 1].long() for views in (first, second)]
    rows, columns = ([number.div(20, rounding_mode="floor") for number in numbers],
                     [number % 20 for number in numbers])  # fmt: skip
    far = torch.stack([(rows[1] - rows[0]).abs(), (columns[1] - columns[0]).abs()])
    assert far.max().item() == 2
    assert valid[rows[0], columns[0]].all()
    assert valid[rows[1], columns[1]].all()
    assert rows[0].min().item() >= 4
    assert rows[0].max().item() < 16


def test_the_reports_anchor_stays_as_it_is_and_its_positive_is_noisy() -> None:
    sample = one_tile(torch.ones(20, 20, dtype=torch.bool))
    first, second = draw_views(sample, replace(RECIPES["report"], window_px=3), 30, seeded())
    assert torch.equal(first, first.round())
    difference = second - first
    assert 0 < difference.abs().max().item() < 1
    assert math.isclose(difference.std().item(), 0.1, rel_tol=0.2)


def test_fewer_windows_than_a_batch_are_all_taken_once() -> None:
    valid = torch.zeros(20, 20, dtype=torch.bool)
    valid[8, 8:11] = True
    first, _ = draw_views(one_tile(valid), replace(QUIET, window_px=3), 100, seeded())
    assert sorted(first[:, 0, 1, 1].tolist()) == [168, 169, 170]
