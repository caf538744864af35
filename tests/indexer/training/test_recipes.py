from dataclasses import replace

import pytest
import torch

from indexer.encoders.simple_vit import random_network
from indexer.errors import InvalidInputError
from indexer.training.contrast import make_projector
from indexer.training.recipes import RECIPES, PretrainRecipe, recipe_named


def test_the_reports_recipe_is_the_reports_configuration() -> None:
    assert RECIPES["report"].to_dict() == {
        "name": "report",
        "clip_std": None,
        "components": None,
        "whitening": 0.0,
        "window_px": 8,
        "dim": 20,
        "depth": 5,
        "heads": 3,
        "dim_head": 64,
        "mlp_dim": 5,
        "input_norm": True,
        "readout": "mean",
        "head": 20,
        "min_mean_z": 0.1,
        "anchor_augmented": False,
        "shift_px": 0,
        "candidates": 1,
        "gain": 0.0,
        "noise": 0.1,
        "band_drop": 0.0,
        "spatial_drop": 0.0,
        "flips": False,
        "loss": "triplet",
        "margin": 1.0,
        "invariance": 0.0,
        "variance": 0.0,
        "covariance": 0.0,
        "projector": [],
        "optimizer": "adam",
        "learning_rate": 3e-4,
        "weight_decay": 0.0,
        "schedule": "constant",
        "batch_size": 64,
        "steps": 300,
        "stop_below": 0.003,
        "features": ["embedding"],
        "clear_silhouette": None,
    }


def test_the_reports_network_has_the_reports_shapes() -> None:
    network = random_network(204, RECIPES["report"], seed=0)
    windows = torch.zeros(3, 204, 8, 8)
    tokens = network.embed(windows.flatten(2).mT)
    assert tokens.shape == (3, 64, 20)
    assert network.positions.shape == (64, 20)
    assert len(network.blocks) == 5
    shapes = {name: tuple(it.shape) for name, it in network.blocks[0].named_parameters()}
    assert shapes["attention.to_qkv.weight"] == (3 * 3 * 64, 20)
    assert shapes["attention.to_out.weight"] == (20, 3 * 64)
    assert shapes["mlp.1.weight"] == (5, 20)
    assert shapes["mlp.3.weight"] == (20, 5)
    assert network(windows).shape == (3, 20)


def test_the_default_network_puts_the_center_token_beside_the_mean() -> None:
    recipe = RECIPES["default"]
    network = random_network(20, recipe, seed=0)
    assert network(torch.zeros(3, 20, 7, 7)).shape == (3, 2 * 32)
    assert recipe.embedding_dimensions == 64
    assert make_projector(recipe)(torch.zeros(3, 64)).shape == (3, 64)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_the_same_after_its_json_form(name: str) -> None:
    recipe = recipe_named(name)
    assert PretrainRecipe.from_dict(recipe.to_dict()) == recipe


def test_an_unknown_recipe_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidInputError, match="default, report") as refused:
        recipe_named("rapport")
    assert refused.value.kind == "invalid-option"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"dim": 30}, "dim is 30"),
        ({"dim": 2**20}, "dim is 1048576"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"loss": "simclr"}, "loss is 'simclr'"),
        ({"depth": 2.5}, "depth is 2.5"),
        ({"flips": 1}, "flips is 1"),
        ({"noise": float("nan")}, "noise is nan"),
        ({"features": ()}, "features"),
        ({"features": ("center", "center")}, "features"),
        ({"projector": (0,)}, "projector"),
        ({"min_mean_z": 0.1}, "min_mean_z"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(change: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        replace(RECIPES["default"], **change)  # type: ignore[arg-type]


def test_a_recipe_with_a_field_too_many_or_too_few_is_refused() -> None:
    settings = RECIPES["default"].to_dict()
    with pytest.raises(InvalidInputError, match="speed"):
        PretrainRecipe.from_dict(settings | {"speed": 1})
    del settings["noise"]
    with pytest.raises(InvalidInputError, match="noise"):
        PretrainRecipe.from_dict(settings)
