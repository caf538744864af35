"""How well each precision agrees with fp32 on your own images.

    python -m benchmarks.precision_agreement scenes/ --windows 60
    python -m benchmarks.precision_agreement chips/ --bands l2a --weights CROMA_large.pt --json

Images are cut into windows, or taken whole where they are chips; each is embedded in every
precision that this processor has. Weights decide about agreement: random ones (the default here)
are named so.
"""

import argparse
import json
import sys
from functools import partial
from typing import Any

import numpy as np

from indexer.embedding_space import notes_for
from indexer.encoders.agreement import compare_embeddings
from indexer.encoders.choice import open_croma
from indexer.errors import InvalidInputError
from indexer.findings import Findings
from indexer.inputs import EmbeddingOptions, resolve_inputs
from indexer.pipeline import each_image, recipe_of, tile_works
from indexer.preparing import Preparation
from indexer.progress import Silent


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Embed all windows in all precisions and compare."""
    reference = open_croma(options.encoder, options.weights, "cpu", "fp32")
    findings = Findings()
    chosen = EmbeddingOptions(
        windows=options.windows, bands=options.bands, baseline=options.baseline
    )
    inputs = resolve_inputs(options.imagery, chosen, findings)
    recipe = recipe_of(reference, inputs)
    preparation = Preparation(recipe, inputs.pooling, reference.patches_per_side)
    take = partial(
        tile_works,
        preparation=preparation,
        findings=findings,
        progress=Silent(),
        wanted=list,
        input_of=preparation.input_of,
    )
    works = each_image(inputs, findings, Silent(), "Reading", take)
    images = [work.image for work in works if work.jobs]
    step = max(1, len(images) // options.most)
    images = images[::step][: options.most]
    whole = [np.ones((1, 15, 15), np.float32)] * len(images)
    found: dict[str, Any] = {
        "encoder": options.encoder,
        "notes": list(notes_for(recipe.to_dict())),
        "images": findings.read,
        "windows": len(images),
        "skipped": len(findings.skipped),
        "precisions": {},
    }
    expected = np.concatenate(reference.encode(images, whole))
    for precision in ("bf16", "int8"):
        print(f"Embedding in {precision}", file=sys.stderr)
        encoder = reference.in_precision(precision)
        try:
            embeddings = np.concatenate(encoder.encode(images, whole))
        except InvalidInputError as error:
            found["precisions"][precision] = {"refused": error.message}
            continue
        found["precisions"][precision] = {
            "as_they_are": compare_embeddings(embeddings, expected).to_dict(),
            # What is searched is projected, which takes the mean away.
            "centered": compare_embeddings(
                embeddings - expected.mean(axis=0), expected - expected.mean(axis=0)
            ).to_dict(),
        }
    return found


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.precision_agreement",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("imagery", nargs="+")
    parser.add_argument("--windows", type=int, help="side of windows in pixels")
    parser.add_argument("--bands")
    parser.add_argument("--baseline")
    parser.add_argument("--encoder", default="croma-large")
    parser.add_argument("--weights", default="untrained")
    parser.add_argument("--most", type=int, default=400, help="windows to embed at most")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for note in found["notes"]:
        print(note)
    print(f"{found['windows']} windows of {found['images']} images, {found['encoder']}")
    for precision, agreement in found["precisions"].items():
        for form, figures in agreement.items():
            print(precision, form, figures)


if __name__ == "__main__":
    main()
