import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import ImageryError, NotFoundError
from indexer.imagery.spectral_image import read_labels
from tests.indexer.imagery.envi_files import write_envi
from tests.synthetic import write_geotiff

LABELS = np.array([[0, 1, 2], [2, 0, 7]], dtype=np.uint8)
SHAPE = (2, 3)


def refusal(path: Path, shape: tuple[int, int] = SHAPE) -> ImageryError:
    with pytest.raises(ImageryError) as caught:
        read_labels(path, shape)
    assert str(path) in caught.value.message
    return caught.value


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
def test_classes_are_read_from_a_geotiff(tmp_path: Path, dtype: str) -> None:
    path = write_geotiff(tmp_path / "gt.tif", LABELS[None].astype(dtype))
    labels, names = read_labels(path, SHAPE)
    np.testing.assert_array_equal(labels, LABELS)
    assert labels.dtype == np.int32
    assert names == {}


def test_nodata_is_no_label(tmp_path: Path) -> None:
    stack = LABELS[None].astype(np.int16)
    stack[0, 0, 2] = -1
    path = write_geotiff(tmp_path / "gt.tif", stack, nodata=-1)
    assert read_labels(path, SHAPE)[0].tolist() == [[0, 1, 0], [2, 0, 7]]


def test_an_envi_classification_names_its_classes(tmp_path: Path) -> None:
    fields = {
        "file type": "ENVI Classification",
        "classes": "3",
        "class names": "{Unclassified, winter wheat,\n maize}",
    }
    header = write_envi(tmp_path / "gt.hdr", LABELS[None], fields=fields)
    for path in (header, tmp_path / "gt.img"):
        labels, names = read_labels(path, SHAPE)
        np.testing.assert_array_equal(labels, LABELS)
        assert names == {1: "winter wheat", 2: "maize"}


def test_an_npz_holds_labels_and_names_beside_its_cube(tmp_path: Path) -> None:
    path = tmp_path / "scene.npz"
    np.savez(
        path,
        cube=np.ones((2, 3, 4)),
        gt=LABELS,
        purity=np.ones(SHAPE),
        label_names=np.array(["wheat", "maize"]),
    )
    labels, names = read_labels(path, SHAPE)
    np.testing.assert_array_equal(labels, LABELS)
    assert names == {1: "wheat", 2: "maize"}
    np.savez(tmp_path / "alone.npz", anything=LABELS)
    np.testing.assert_array_equal(read_labels(tmp_path / "alone.npz", SHAPE)[0], LABELS)


def test_an_npy_is_named_by_its_sidecar(tmp_path: Path) -> None:
    np.save(tmp_path / "gt.npy", np.where(LABELS == 0, np.nan, LABELS))
    (tmp_path / "gt.json").write_text(json.dumps({"label_names": ["wheat", "maize"]}))
    labels, names = read_labels(str(tmp_path / "gt.npy"), SHAPE)
    np.testing.assert_array_equal(labels, LABELS)
    assert names == {1: "wheat", 2: "maize"}


@pytest.mark.parametrize(
    ("scene", "classes", "labeled"),
    # As the data's own description counts them.
    [("salinas_a", 6, 5348), ("indian_pines_roi", 4, 3569), ("jasper_ridge", 4, 10_000)],
)
def test_labels_of_real_scenes_are_read(
    test_data: Callable[[str], Path], scene: str, classes: int, labeled: int
) -> None:
    path = test_data("hyperspectral") / f"{scene}.npz"
    with np.load(path) as stored:
        shape = stored["gt"].shape
    labels, names = read_labels(path, shape)
    assert np.count_nonzero(labels) == labeled
    assert set(np.unique(labels)) - {0} == set(names) == set(range(1, classes + 1))


def test_labels_of_another_shape_are_refused_with_both(tmp_path: Path) -> None:
    paths = [
        write_geotiff(tmp_path / "a.tif", LABELS[None]),
        write_envi(tmp_path / "b.hdr", LABELS[None]),
        tmp_path / "c.npy",
    ]
    np.save(tmp_path / "c.npy", LABELS)
    for path in paths:
        error = refusal(path, (4, 5))
        assert error.kind == "grids-differ"
        assert "2 x 3" in error.message
        assert "4 x 5" in error.message
        assert "exchanged" in refusal(path, (3, 2)).message


@pytest.mark.parametrize(
    "labels",
    [LABELS - 1.0, LABELS + 0.5, LABELS * 1e6, LABELS + 1j, LABELS.astype(str)],
    ids=["below zero", "fractions", "measurements", "complex", "texts"],
)
def test_what_is_no_class_is_refused(tmp_path: Path, labels: np.ndarray) -> None:
    np.save(tmp_path / "gt.npy", labels)
    assert refusal(tmp_path / "gt.npy").kind == "labels-invalid"


def test_several_layers_are_no_labels(tmp_path: Path) -> None:
    stack = np.stack([LABELS, LABELS])
    assert refusal(write_geotiff(tmp_path / "a.tif", stack)).kind == "labels-invalid"
    assert refusal(write_envi(tmp_path / "b.hdr", stack)).kind == "labels-invalid"
    np.save(tmp_path / "c.npy", stack)
    assert refusal(tmp_path / "c.npy").kind == "labels-invalid"


def test_names_that_are_no_texts_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "gt.npz", gt=LABELS, label_names=np.array([1, 2]))
    assert refusal(tmp_path / "gt.npz").kind == "labels-invalid"


def test_other_formats_and_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "gt.shp").write_bytes(b"")
    assert refusal(tmp_path / "gt.shp").kind == "unreadable"
    for name in ("gone.tif", "gone.hdr", "gone.npy", "gone.csv"):
        with pytest.raises(NotFoundError):
            read_labels(tmp_path / name, SHAPE)
