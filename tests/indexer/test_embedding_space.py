import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.embedding_space import (
    UNTRAINED_NOTE,
    PixelRecipe,
    Recipe,
    bands_in,
    describe_space,
    notes_for,
    recipe_digest,
    space_digest,
)
from indexer.encoders.weights import Weights
from indexer.imagery.spectral_bands import SpectralBand
from indexer.normalization import Normalization
from indexer.projection import VECTOR_DIMENSIONS, Projection
from indexer.sensors import PROFILES

RECIPE = Recipe(
    encoder="croma-large",
    weights=Weights("pretrained", "0123abcd", Path("cache/CROMA_large.pt")),
    bands=PROFILES["l2a"],
    normalization=Normalization.ssl4eo(),
    pooling="parcel",
    image_px=120,
    dimensions=1024,
)


PIXELS = PixelRecipe(
    encoder="simple-vit",
    weights=Weights("file", "0123abcd", Path("own.pt")),
    bands=(SpectralBand("551.2 nm", 0.5512, 0.01), SpectralBand("band 2", None)),
    pooling="parcel",
    training="default",
    window_px=7,
    most_windows=16_384,
    dimensions=84,
)


def projection(value: float) -> Projection:
    return Projection(
        "orthonormal",
        np.zeros(VECTOR_DIMENSIONS, np.float32),
        np.full((VECTOR_DIMENSIONS, VECTOR_DIMENSIONS), value, np.float32),
    )


@pytest.mark.parametrize(
    "change",
    [
        {"encoder": "croma-base"},
        {"weights": Weights("pretrained", "0123abce", None)},
        {"weights": Weights("untrained", "0123abcd", None)},
        {"bands": PROFILES["l2a"][::-1]},
        {"normalization": replace(Normalization.ssl4eo(), std=(1.0,) * 12)},
        {"normalization": replace(Normalization.ssl4eo(), name="dataset")},
        {"pooling": "image"},
        {"image_px": 96},
        {"dimensions": 768},
        {"precision": "bf16"},
        {"modality": "joint"},
        {"tile_px": 60},
        {"stride_px": 60},
    ],
    ids=lambda change: "-".join(change),
)
def test_whatever_gives_a_vector_its_meaning_changes_the_digest(change: dict[str, Any]) -> None:
    assert replace(RECIPE, **change).digest != RECIPE.digest


def test_where_a_trained_file_lies_and_how_it_was_named_does_not_change_the_digest() -> None:
    same_file = Weights("file", "0123abcd", Path("elsewhere.pt"))
    assert replace(RECIPE, weights=same_file).digest == RECIPE.digest


def test_the_digest_is_that_of_the_canonical_json() -> None:
    text = json.dumps(RECIPE.to_dict(), sort_keys=True, separators=(",", ":"))
    assert RECIPE.digest == hashlib.sha256(text.encode()).hexdigest()


def test_a_recipe_read_back_from_json_has_the_same_digest() -> None:
    stored = json.loads(json.dumps(RECIPE.to_dict()))
    assert recipe_digest(stored) == RECIPE.digest
    shuffled = dict(reversed(stored.items()))
    assert recipe_digest(shuffled) == RECIPE.digest


def test_another_projection_is_another_space() -> None:
    recipe = RECIPE.to_dict()
    assert space_digest(recipe, projection(0.5)) == space_digest(recipe, projection(0.5))
    assert space_digest(recipe, projection(0.5)) != space_digest(recipe, projection(0.25))


def test_another_recipe_is_another_space_under_the_same_projection() -> None:
    other = replace(RECIPE, pooling="image").to_dict()
    assert space_digest(RECIPE.to_dict(), projection(1)) != space_digest(other, projection(1))


def test_answers_name_the_space_by_twelve_digits_and_what_matters() -> None:
    assert describe_space(RECIPE.to_dict(), "f" * 64) == {
        "id": "f" * 12,
        "encoder": "croma-large",
        "weights": "trained",
        "normalization": "ssl4eo",
        "pooling": "parcel",
        "modality": "optical",
        "precision": "fp32",
    }


def test_a_space_without_projection_has_no_id_yet() -> None:
    assert describe_space(RECIPE.to_dict(), None)["id"] is None


def test_answers_from_untrained_weights_say_so() -> None:
    untrained = replace(RECIPE, weights=Weights("untrained", "seed 0", None)).to_dict()
    assert notes_for(untrained) == (UNTRAINED_NOTE,)
    assert "untrained" in UNTRAINED_NOTE
    assert describe_space(untrained, None)["weights"] == "untrained"


def test_answers_from_trained_weights_need_no_note() -> None:
    assert notes_for(RECIPE.to_dict()) == ()


# Of a network of one's own


@pytest.mark.parametrize(
    "change",
    [
        {"weights": Weights("file", "0123abce", None)},
        {"weights": Weights("untrained", "0123abcd", None)},
        {"bands": PIXELS.bands[::-1]},
        {"pooling": "image"},
        {"window_px": 8},
        {"most_windows": 4096},
        {"dimensions": 20},
        {"precision": "bf16"},
    ],
    ids=lambda change: "-".join(change),
)
def test_whatever_gives_a_pixels_features_their_meaning_changes_the_digest(
    change: dict[str, Any],
) -> None:
    assert replace(PIXELS, **change).digest != PIXELS.digest


def test_where_an_encoder_of_ones_own_lies_does_not_change_the_digest() -> None:
    moved = replace(PIXELS, weights=Weights("file", "0123abcd", Path("elsewhere.pt")))
    assert moved.digest == PIXELS.digest


def test_the_bands_to_ask_with_are_read_back_from_json() -> None:
    stored = json.loads(json.dumps(PIXELS.to_dict()))
    assert bands_in(stored) == PIXELS.bands
    assert bands_in(RECIPE.to_dict()) is None


def test_an_encoder_of_ones_own_is_described_like_any_other() -> None:
    assert describe_space(PIXELS.to_dict(), "f" * 64) == {
        "id": "f" * 12,
        "encoder": "simple-vit",
        "weights": "trained",
        "normalization": "z-score",
        "pooling": "parcel",
        "modality": "optical",
        "precision": "fp32",
    }
