"""What a network learns from windows without labels: disturbed views and the losses on them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexer.training.recipes import PretrainRecipe
from indexer.training.samples import TrainingSample

Network = Callable[[Tensor], Tensor]


def draw_views(
    sample: TrainingSample, recipe: PretrainRecipe, batch: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Anchors and their positives, shape ``(batch, channel, w, w)`` each.

    Everything is drawn on the CPU, so that a seed means the same on every device.
    """
    count = len(sample.anchors)
    if batch < count:
        anchors = sample.anchors[torch.randint(count, (batch,), generator=generator)]
    else:
        anchors = sample.anchors[torch.randperm(count, generator=generator)]
    shift = recipe.shift_px
    shape = (len(anchors), recipe.candidates, 2)
    moves = torch.randint(-shift, shift + 1, shape, generator=generator)
    first, second = sample.windows(anchors), sample.windows(sample.most_alike(anchors, moves))
    if recipe.anchor_augmented:
        first = disturb(first, recipe, generator)
    return first, disturb(second, recipe, generator)


def disturb(windows: Tensor, recipe: PretrainRecipe, generator: torch.Generator) -> Tensor:
    """Windows ``(n, channel, w, w)`` with another gain, noise, gaps and orientation."""
    n, channels, height, width = windows.shape

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def kept(share: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=generator) >= share

    if recipe.gain:
        windows = windows * (1 + recipe.gain * normal(n, 1, 1, 1))
    if recipe.noise:
        windows = windows + recipe.noise * normal(*windows.shape)
    if recipe.band_drop:
        windows = windows * kept(recipe.band_drop, n, channels, 1, 1)
    if recipe.spatial_drop:
        windows = windows * kept(recipe.spatial_drop, n, 1, height, width)
    if recipe.flips:
        # Of the whole batch at once; what matters is that two views differ.
        rows, columns, swap = kept(0.5, 3).tolist()
        windows = windows.flip(2) if rows else windows
        windows = windows.flip(3) if columns else windows
        windows = windows.mT if swap else windows
    return windows


def make_projector(recipe: PretrainRecipe) -> nn.Module:
    """Layers between embedding and loss, which are not kept after the training."""
    layers: list[nn.Module] = []
    width = recipe.embedding_dimensions
    for number, following in enumerate(recipe.projector):
        if number:
            layers += [nn.BatchNorm1d(width), nn.ReLU()]
        layers.append(nn.Linear(width, following))
        width = following
    return nn.Sequential(*layers)


def loss_of(first: Tensor, second: Tensor, recipe: PretrainRecipe) -> Tensor:
    """The recipe's loss on the embeddings of anchors and positives, shape ``(n, d)`` each."""
    if recipe.loss == "triplet":
        return triplet(first, second, recipe.margin)
    return vicreg(first, second, recipe.invariance, recipe.variance, recipe.covariance)


def triplet(anchors: Tensor, positives: Tensor, margin: float) -> Tensor:
    """Triplet loss whose negatives are the batch's anchors, moved on by one.

    References:
        Schroff, Kalenichenko and Philbin (2015), FaceNet, https://arxiv.org/abs/1503.03832.
    """
    return F.triplet_margin_loss(anchors, positives, anchors.roll(1, dims=0), margin=margin)


def vicreg(
    first: Tensor, second: Tensor, invariance: float, variance: float, covariance: float
) -> Tensor:
    """Views of one window agree, each dimension varies, and no two tell the same.

    The variance of both views is summed, where the authors write their mean, so that a weight of
    12.5 here is one of 25 there.

    References:
        Bardes, Ponce and LeCun (2022), VICReg, https://arxiv.org/abs/2105.04906.
    """
    return (
        invariance * F.mse_loss(first, second)
        + variance * (_hinge(first) + _hinge(second))
        + covariance * (_redundancy(first) + _redundancy(second))
    )


def _hinge(embeddings: Tensor) -> Tensor:
    """How much the standard deviation of each dimension is below 1, on average."""
    return F.relu(1 - (embeddings.var(dim=0) + 1e-4).sqrt()).mean()


def _redundancy(embeddings: Tensor) -> Tensor:
    """Squared covariances of different dimensions, summed, by dimension."""
    n, dimensions = embeddings.shape
    centered = embeddings - embeddings.mean(dim=0)
    covariances = centered.T @ centered / (n - 1)
    between = covariances - covariances.diag().diag()
    return between.square().sum() / dimensions
