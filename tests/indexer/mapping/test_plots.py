from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.errors import InvalidInputError
from indexer.mapping import plots
from indexer.mapping.choose_k import choose_k
from indexer.mapping.colors import COLORS, class_color, rgb
from indexer.mapping.map_image import MapOptions, map_image
from indexer.mapping.methods import MAX_CLASSES
from tests.indexer.mapping.planted import planted_classes


@pytest.fixture(autouse=True)
def few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places few features in the plane: hundreds take seconds."""
    monkeypatch.setattr(plots, "_TSNE_POINTS", 90)


def test_every_plot_is_drawn_where_there_is_something_to_show(
    planted: Path, tmp_path: Path
) -> None:
    truth = tmp_path / "truth.npy"
    np.save(truth, planted_classes())
    folder = tmp_path / "deep" / "plots"
    options = MapOptions(
        labels=truth, plots=folder, names={1: "a name with $dollars$ and ¶", 2: "x" * 100}
    )
    report = map_image(planted, tmp_path / "map.tif", options)
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "map.png", "spectra.png", "choice_of_k.png", "features.png", "confusion.png",
    }  # fmt: skip
    assert {str(folder / name) for name in names} <= set(report.files)
    for name in names:
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 300
            assert np.asarray(picture.convert("L")).std() > 5


def test_the_map_is_drawn_in_the_colors_of_its_classes(planted: Path, tmp_path: Path) -> None:
    map_image(planted, tmp_path / "map.tif", MapOptions(k=3, plots=tmp_path / "plots"))
    with Image.open(tmp_path / "plots" / "map.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    drawn = [(pixels == rgb(class_color(number))).all(axis=2).sum() for number in (1, 2, 3)]
    # As large as the classes are: 324, 240 and 144 pixels.
    assert drawn[0] / drawn[2] == pytest.approx(324 / 144, rel=0.1)
    assert drawn[1] / drawn[2] == pytest.approx(240 / 144, rel=0.1)


@pytest.mark.parametrize("colors", [2, 3])
def test_a_choice_among_few_is_drawn(tmp_path: Path, colors: int) -> None:
    # Equal pixels leave no error, whose logarithm is kept finite.
    rows = np.repeat(np.eye(colors, dtype=np.float32), 20, axis=0)
    choice = choose_k({"signal": rows, "noise": rows})
    plots.draw_choice(choice).savefig(tmp_path / "choice.png")
    with Image.open(tmp_path / "choice.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5


def test_a_given_k_leaves_no_choice_to_draw(planted: Path, tmp_path: Path) -> None:
    map_image(planted, tmp_path / "map.tif", MapOptions(k=3, plots=tmp_path / "plots"))
    assert not (tmp_path / "plots" / "choice_of_k.png").exists()


def test_plots_go_to_no_file(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="--plots"):
        map_image(planted, tmp_path / "map.tif", MapOptions(k=3, plots=planted))


def test_every_class_has_a_color_of_its_own() -> None:
    assert len(set(COLORS)) == len(COLORS) == MAX_CLASSES
    colors = np.array([rgb(class_color(number)) for number in range(1, 13)], dtype=float)
    apart = np.linalg.norm(colors[:, None] - colors[None], axis=2)
    assert apart[~np.eye(12, dtype=bool)].min() > 50
