"""How well the classes of unlabelled scenes are found, with learned features and without.

    python -m benchmarks.unlabelled_scenes SCENE.npz... [--recipe default] [--seeds 5] [--json]

A scene is a file that ``parcelle map`` reads as image and as labels. For each seed an encoder is
trained on the scene without its labels, a map is made with k chosen, and every way of making one
is scored at the number of classes that the truth has, over labelled pixels only: overall accuracy
(OA, classes matched by the Hungarian method) and normalized mutual information (NMI).
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

from indexer.imagery.spectral_image import open_spectral_image, read_labels
from indexer.mapping.map_image import MapOptions, MapReport, map_image
from indexer.training.pretrain import PretrainOptions, pretrain


@dataclass(frozen=True)
class Run:
    """One scene with one seed."""

    scene: str
    seed: int
    truth: int
    """Classes that the scene has."""
    training_s: float
    report: MapReport

    def scores(self) -> Iterator[tuple[str, float, float]]:
        """Way, OA and NMI of each way at the true number of classes."""
        for scored in self.report.scores:
            if scored.k == self.truth:
                yield f"{scored.features}, {scored.method}", scored.score.oa, scored.score.nmi


def run(scene: Path, seed: int, recipe: str, method: str, folder: Path) -> Run:
    """Train on a scene, map it, score the map."""
    file = folder / f"{scene.stem}-{seed}.pt"
    trained = pretrain([scene], file, PretrainOptions(recipe=recipe, seed=seed))
    labels, _ = read_labels(scene, open_spectral_image(scene).shape)
    options = MapOptions(
        encoder=f"simple-vit:{file}",
        method=method,  # type: ignore[arg-type]
        labels=scene,
        seed=seed,
    )
    report = map_image(scene, folder / f"{scene.stem}-{seed}.tif", options)
    classes = len(set(labels[labels > 0].tolist()))
    return Run(scene.stem, seed, classes, trained.seconds, report)


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Mean and spread over seeds, by scene and way."""
    scenes: dict[str, Any] = {}
    for name in dict.fromkeys(one.scene for one in runs):
        own = [one for one in runs if one.scene == name]
        ways: dict[str, list[tuple[float, float]]] = {}
        for one in own:
            for way, oa, nmi in one.scores():
                ways.setdefault(way, []).append((oa, nmi))
        scenes[name] = {
            "truth": own[0].truth,
            "k_chosen": [one.report.choice.k for one in own],
            "training_s": round(max(one.training_s for one in own), 1),
            "ways": {
                way: {
                    key: [round(mean(values), 4), round(pstdev(values), 4)]
                    for key, values in zip(("oa", "nmi"), zip(*found, strict=True), strict=True)
                }
                for way, found in ways.items()
            },
        }
    return scenes


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", nargs="+", type=Path)
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--method", default="kmeans")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for scene in asked.scenes:
            for seed in range(asked.seeds):
                runs.append(run(scene, seed, asked.recipe, asked.method, Path(folder)))
                print(f"{scene.stem}, seed {seed}: done", file=sys.stderr)
    found = summary(runs)
    if asked.json:
        print(json.dumps({"recipe": asked.recipe, "method": asked.method, "scenes": found}))
        return
    for name, scene in found.items():
        print(
            f"{name}: {scene['truth']} classes, k chosen {scene['k_chosen']}, "
            f"training at most {scene['training_s']} s"
        )
        for way, score in scene["ways"].items():
            (oa, oa_std), (nmi, nmi_std) = score["oa"], score["nmi"]
            print(f"  {way:32} OA {oa:.3f} +- {oa_std:.3f}  NMI {nmi:.3f} +- {nmi_std:.3f}")


if __name__ == "__main__":
    main()
