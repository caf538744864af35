from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexer.imagery.spectral_image import open_spectral_image
from indexer.mapping.blocks import survey
from indexer.mapping.choose_k import MAX_PIXELS, choose_k
from indexer.mapping.class_map import opened_map
from indexer.mapping.map_image import MapOptions, map_image
from indexer.mapping.views import sample_views
from indexer.progress import Silent

# OA and NMI at the true k, as published with the scenes' own baselines: K-means on z-scored
# pixels, MNF-10 with K-means.
PUBLISHED = {
    "salinas_a": ((0.770, 0.769), (0.756, 0.864)),
    "indian_pines_roi": ((0.661, 0.392), (0.689, 0.437)),
    "jasper_ridge": ((0.886, 0.720), (0.831, 0.660)),
}


@pytest.mark.parametrize("scene", PUBLISHED)
def test_the_number_of_known_classes_is_met_within_two(
    test_data: Callable[[str], Path], scene: str
) -> None:
    path = test_data("hyperspectral") / f"{scene}.npz"
    with np.load(path) as content:
        known = int(content["gt"].max())
    image = open_spectral_image(path)
    found = survey(image, Silent(), with_statistics=True)
    for seed in range(3):
        views = sample_views(image, found, MAX_PIXELS, seed, Silent())
        assert abs(choose_k(views, seed).k - known) <= 2


@pytest.mark.parametrize("scene", PUBLISHED)
def test_plain_methods_reach_their_known_scores_on_real_scenes(
    test_data: Callable[[str], Path], tmp_path: Path, scene: str
) -> None:
    image = test_data("hyperspectral") / f"{scene}.npz"
    with np.load(image) as content:
        k, shape = int(content["gt"].max()), content["gt"].shape
    report = map_image(image, tmp_path / "map.tif", MapOptions(k=k, labels=image))
    scores = {(one.features, one.method): one.score for one in report.scores}
    for features, (oa, nmi) in zip(("z-scored pixels", "MNF"), PUBLISHED[scene], strict=True):
        found = scores[features, "kmeans"]
        assert found.oa == pytest.approx(oa, abs=0.03)
        assert found.nmi == pytest.approx(nmi, abs=0.03)
    with opened_map(tmp_path / "map.tif") as raster:
        classes = raster.read(1)
    assert classes.shape == shape
    assert set(np.unique(classes).tolist()) == set(range(1, k + 1))
