"""Embedding every pixel of an image in batches, beside one window at a time, in the same run.

    python -m benchmarks.sliding_windows
    taskset --cpu-list 0,1 python -m benchmarks.sliding_windows --threads 2 --json

One window at a time is the loop of the student report that the SimpleViT comes from: cut a window,
hand it to the network, keep its embedding. It is run with the report's own network and with the one
that is measured, in turns with the batches, so that a disturbance of the machine meets all; each
loop embeds ``--loop-windows`` pixels. What can be done once for the whole image (z-scores,
components) is done before the loop begins, but counts for the batches.
The network has the recipe's shape with random weights, and the image is drawn: neither changes how
long it takes.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from indexer.encoders.simple_vit import SimpleViTEncoder
from indexer.training.pretrain import PretrainOptions, pretrain
from indexer.training.recipes import DEFAULT_RECIPE, RECIPES
from indexer.training.windows import windows_of

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", choices=list(RECIPES), default=DEFAULT_RECIPE)
    parser.add_argument("--side", type=int, default=100, help="Of the image, in pixels.")
    parser.add_argument("--bands", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loop-windows", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    values = _draw(options.side, options.bands)
    encoder = _encoder(values, options.recipe)
    report = _encoder(values, "report")
    batched, alone, report_alone = [], [], []
    for _ in range(options.rounds):
        batched.append(batched_per_second(encoder, values))
        alone.append(alone_per_second(encoder, values, options.loop_windows))
        report_alone.append(alone_per_second(report, values, options.loop_windows))
    result = {
        "recipe": options.recipe,
        "threads": options.threads,
        "pixels": options.side**2,
        "bands": options.bands,
        "windows_per_second": round(statistics.median(batched)),
        "one_at_a_time_per_second": round(statistics.median(alone)),
        "report_one_at_a_time_per_second": round(statistics.median(report_alone)),
        "ratio_same_network": round(statistics.median(batched) / statistics.median(alone), 1),
        "ratio_to_report": round(statistics.median(batched) / statistics.median(report_alone), 1),
    }
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print(
            "{recipe}: {windows_per_second} windows/s in batches ({threads} threads, {bands} "
            "bands)\none at a time: {one_at_a_time_per_second} with the same network "
            "({ratio_same_network} times fewer), {report_one_at_a_time_per_second} with the "
            "report's ({ratio_to_report} times fewer)".format(**result)
        )


def batched_per_second(encoder: SimpleViTEncoder, values: FloatArray) -> float:
    """Windows a second, from bands to features of every pixel."""
    began = time.perf_counter()
    features = encoder.embed_pixels(values, np.ones(values.shape[1:], dtype=bool))
    return len(features) / (time.perf_counter() - began)


def alone_per_second(encoder: SimpleViTEncoder, values: FloatArray, count: int) -> float:
    """Windows a second, one after the other through the whole network."""
    channels = encoder.statistics.channels_of(values, np.ones(values.shape[1:], dtype=bool))
    windows = windows_of(np.moveaxis(channels, 2, 0), encoder.window_px)
    network = encoder.network
    width = values.shape[2]
    began = time.perf_counter()
    with torch.inference_mode():
        for number in range(count):
            window = torch.from_numpy(windows[number // width, number % width].copy())
            network(window[None])[0].numpy()
    return count / (time.perf_counter() - began)


def _draw(side: int, bands: int) -> FloatArray:
    random = np.random.default_rng(0)
    return random.normal(1000, 100, size=(bands, side, side)).astype(np.float32)


def _encoder(values: FloatArray, recipe: str) -> SimpleViTEncoder:
    with tempfile.TemporaryDirectory() as folder:
        image, file = Path(folder) / "drawn.npz", Path(folder) / "drawn.pt"
        np.savez(image, cube=np.moveaxis(values, 0, 2)[:40, :40])
        # Drawn noise has no window that is bright as a whole.
        taken = replace(RECIPES[recipe], min_mean_z=None)
        pretrain([image], file, PretrainOptions(taken, steps=0, device="cpu"))
        return SimpleViTEncoder.load(file, device="cpu")


if __name__ == "__main__":
    main()
