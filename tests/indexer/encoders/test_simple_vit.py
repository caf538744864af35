import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from indexer.encoders.simple_vit import FORMAT, SimpleViTEncoder, embed_image
from indexer.errors import InvalidInputError, WeightsError
from indexer.imagery.spectral_image import open_spectral_image
from indexer.training.pretrain import PretrainOptions, pretrain
from indexer.training.recipes import RECIPES, PretrainRecipe
from indexer.training.windows import windows_of
from tests.indexer.training.cubes import in_one_thread, make_cube, save_cube

BANDS = 6


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    yield from in_one_thread()


@pytest.fixture(scope="module", params=list(RECIPES))
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("trained"), RECIPES[request.param])


def train(folder: Path, recipe: PretrainRecipe, steps: int = 3) -> Path:
    image = save_cube(folder / "flight.npz", make_cube(bands=BANDS))
    out = folder / "farm.pt"
    pretrain([image], out, PretrainOptions(recipe, steps=steps, batch_size=16, device="cpu"))
    return out


@pytest.fixture(scope="module")
def default_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("default"), RECIPES["default"])


def as_image(cube: Any) -> tuple[Any, Any]:  # noqa: ANN401 - arrays
    values = np.moveaxis(cube, 2, 0)
    return values, np.isfinite(values).all(axis=0)


def with_gap() -> Any:  # noqa: ANN401 - an array
    cube = make_cube(height=12, width=13, seed=5)
    cube[3:6, 4:9, 2] = np.nan
    return cube


def one_by_one(encoder: SimpleViTEncoder, values: Any, valid: Any) -> Any:  # noqa: ANN401
    """Features as they are defined: each window through the whole network, by itself."""
    channels = encoder.statistics.channels_of(values, valid)
    windows = windows_of(np.moveaxis(channels, 2, 0), encoder.window_px)
    half = encoder.window_px // 2
    rows = []
    for row, column in np.argwhere(valid):
        window = torch.from_numpy(windows[row, column].copy())[None]
        with torch.no_grad():
            embedding = encoder.network(window)[0].numpy()
        blocks = {"embedding": embedding, "center": window[0, :, half, half].numpy()}
        if len(encoder.recipe.features) == 1:
            rows.append(blocks[encoder.recipe.features[0]])
            continue
        scales = [encoder._scales[block] for block in encoder.recipe.features]
        scaled = [
            (blocks[block] - scale.mean) * np.sqrt(scale.share) / scale.rms
            for block, scale in zip(encoder.recipe.features, scales, strict=True)
        ]
        rows.append(np.concatenate(scaled))
    return np.array(rows)


def test_many_windows_at_once_give_what_each_gives_alone(file: Path) -> None:
    encoder = SimpleViTEncoder.load(file)
    values, valid = as_image(with_gap())
    features = encoder.embed_pixels(values, valid)
    assert features.shape == (valid.sum(), encoder.dimensions)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, one_by_one(encoder, values, valid), atol=2e-4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (3, 4)])
def test_images_smaller_than_a_window_are_embedded_whole(
    file: Path, shape: tuple[int, int]
) -> None:
    encoder = SimpleViTEncoder.load(file)
    values, valid = as_image(make_cube(*shape, bands=BANDS))
    features = encoder.embed_pixels(values, valid)
    np.testing.assert_allclose(features, one_by_one(encoder, values, valid), atol=2e-4)


def test_asked_rows_and_columns_are_embedded_with_the_others_as_context(file: Path) -> None:
    encoder = SimpleViTEncoder.load(file)
    values, valid = as_image(with_gap())
    everywhere = np.full((*valid.shape, encoder.dimensions), np.nan, dtype=np.float32)
    everywhere[valid] = encoder.embed_pixels(values, valid)
    rows, columns = slice(2, 7), slice(5, 11)
    part = encoder.embed_pixels(values, valid, rows=rows, columns=columns)
    expected = everywhere[rows, columns][valid[rows, columns]]
    np.testing.assert_allclose(part, expected, atol=1e-5)


@pytest.mark.parametrize("height", [2, 5, 23, 24, 25])
def test_blocks_of_rows_give_what_the_whole_image_gives(
    file: Path, height: int, tmp_path: Path
) -> None:
    encoder = SimpleViTEncoder.load(file)
    cube = make_cube(height=height, seed=4)
    cube[height // 2, 3:9] = np.nan
    image = open_spectral_image(save_cube(tmp_path / "image.npz", cube))
    values, valid = as_image(cube)
    whole = encoder.embed_pixels(values, valid)
    # So little memory that a block is a few rows.
    blocks = list(embed_image(encoder, image, memory_mib=0.001))
    assert [block.row0 for block in blocks[1:]] == [block.row1 for block in blocks[:-1]]
    assert (blocks[0].row0, blocks[-1].row1) == (0, height)
    assert len(blocks) > 1 or height <= 5
    np.testing.assert_array_equal(np.concatenate([block.valid_mask for block in blocks]), valid)
    features = np.concatenate([block.features for block in blocks])
    np.testing.assert_allclose(features, whole, atol=1e-4)


def test_an_image_without_valid_pixels_has_no_features(default_file: Path) -> None:
    encoder = SimpleViTEncoder.load(default_file)
    values = np.full((BANDS, 4, 5), np.nan, dtype=np.float32)
    features = encoder.embed_pixels(values, np.ones((4, 5), dtype=bool))
    assert features.shape == (0, encoder.dimensions)


def test_each_block_of_features_has_its_share_over_the_training_image(default_file: Path) -> None:
    encoder = SimpleViTEncoder.load(default_file)
    values, valid = as_image(make_cube(bands=BANDS))
    for some in (encoder, encoder.untrained()):
        features = some.embed_pixels(values, valid)
        assert features.shape[1] == 64 + BANDS == some.dimensions
        lengths = []
        for block in (features[:, :64], features[:, 64:]):
            np.testing.assert_allclose(block.mean(axis=0), 0, atol=1e-3)
            lengths.append(np.square(block).sum(axis=1).mean())
        assert sum(lengths) == pytest.approx(1, rel=1e-3)
        assert lengths == pytest.approx(
            [some._scales[it].share for it in ("embedding", "center")], rel=1e-3
        )


def test_an_encoder_says_what_it_is(default_file: Path) -> None:
    encoder = SimpleViTEncoder.load(default_file)
    assert encoder.name == "simple-vit"
    assert encoder.trained
    assert encoder.window_px == 7
    assert encoder.recipe_name == "default"
    assert [band.name for band in encoder.bands] == [f"band {n}" for n in range(1, 7)]
    assert encoder.settings["images"] == ["flight"]
    assert len(encoder.losses) == encoder.settings["steps"] == 3


def test_an_untrained_encoder_is_another_space_and_says_so(default_file: Path) -> None:
    encoder = SimpleViTEncoder.load(default_file)
    values, valid = as_image(make_cube(bands=BANDS))
    first, again, other = (encoder.untrained(seed) for seed in (0, 0, 1))
    assert not first.trained
    assert first.identity()["weights"]["kind"] == "untrained"
    assert len({encoder.digest, first.digest, other.digest}) == 3
    assert first.digest == again.digest
    features = [some.embed_pixels(values, valid) for some in (first, again, other, encoder)]
    np.testing.assert_array_equal(features[0], features[1])
    assert not np.allclose(features[0], features[2])
    assert not np.allclose(features[0], features[3])


def test_a_file_of_no_steps_is_untrained(tmp_path: Path) -> None:
    encoder = SimpleViTEncoder.load(train(tmp_path, RECIPES["default"], steps=0))
    assert not encoder.trained


def test_an_image_of_other_bands_is_refused(default_file: Path) -> None:
    encoder = SimpleViTEncoder.load(default_file)
    values, valid = as_image(make_cube(bands=5))
    with pytest.raises(InvalidInputError, match="6 bands, but 5") as refused:
        encoder.embed_pixels(values, valid)
    assert refused.value.kind == "invalid-bands"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="parcelle pretrain") as refused:
        SimpleViTEncoder.load(tmp_path / "none.pt")
    assert refused.value.kind == "weights-not-found"


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused(keep: float, default_file: Path, tmp_path: Path) -> None:
    whole = default_file.read_bytes()
    path = tmp_path / "cut.pt"
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(WeightsError, match=r"cut\.pt") as refused:
        SimpleViTEncoder.load(path)
    assert refused.value.kind == "weights-corrupt"


class Code:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self._command,)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for name, save in (("torch.pt", torch.save), ("plain.pt", _pickle)):
        path = tmp_path / name
        save({"format": FORMAT, "network": Code(f"touch {ran}")}, path)
        with pytest.raises(WeightsError, match="more than tensors") as refused:
            SimpleViTEncoder.load(path)
        assert refused.value.kind == "weights-corrupt"
    assert not ran.exists()


def _pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def changed(file: Path, out: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = torch.load(file, weights_only=True)
    change(content)
    torch.save(content, out)
    return out


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda content: content.clear(), "no encoder"),
        (lambda content: content.update(format="parcelle-simple-vit/99"), "simple-vit/99"),
        (lambda content: content.pop("bands"), "bands"),
        (lambda content: content["bands"].pop(), "bands and statistics"),
        (lambda content: content["recipe"].update(dim=2**40), "dim"),
        (lambda content: content["recipe"].update(depth=3), "parameters"),
        (lambda content: content["recipe"].update(window_px="7"), "window_px"),
        (lambda content: content["network"].popitem(), "parameters"),
        (lambda content: content["network"]["norm.bias"].fill_(float("nan")), "no numbers"),
        (lambda content: content["statistics"]["std"].zero_(), "statistics"),
        (lambda content: content["statistics"].update(components=None), "components"),
        (lambda content: content["scales"].clear(), "embedding"),
        (lambda content: content["scales"]["center"].update(rms=0), "center"),
        (lambda content: content.update(steps="many"), "steps"),
    ],
)
def test_a_file_whose_parts_do_not_fit_is_refused(
    change: Callable[[dict[str, Any]], object], named: str, default_file: Path, tmp_path: Path
) -> None:
    path = changed(default_file, tmp_path / "changed.pt", change)
    with pytest.raises(WeightsError, match=named) as refused:
        SimpleViTEncoder.load(path)
    assert refused.value.kind == "weights-mismatch"


def test_tensors_of_something_else_are_no_encoder(tmp_path: Path) -> None:
    path = tmp_path / "list.pt"
    torch.save([torch.zeros(3)], path)
    with pytest.raises(WeightsError, match="list") as refused:
        SimpleViTEncoder.load(path)
    assert refused.value.kind == "weights-mismatch"


def test_a_recipe_with_one_block_has_the_networks_own_features(tmp_path: Path) -> None:
    recipe = replace(RECIPES["default"], features=("center",))
    encoder = SimpleViTEncoder.load(train(tmp_path, recipe))
    values, valid = as_image(make_cube(bands=BANDS))
    channels = encoder.statistics.channels_of(values, valid)
    np.testing.assert_array_equal(encoder.embed_pixels(values, valid), channels[valid])
