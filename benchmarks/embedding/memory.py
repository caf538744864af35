"""Peak memory of ``reindex`` for few and for many images, each in a process of its own.

    python -m benchmarks.embedding.memory croma 2000     # what a process of its own runs

What grows with the number of images does so behind any network, so that a small one will do:
``croma`` is one random layer of croma-base, ``numpy`` one layer without PyTorch, which takes little
time to start and little memory itself.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

from benchmarks.embedding.scenes import draw_small_images
from indexer.encoders.croma import ARCHITECTURES
from indexer.progress import Silent
from indexer.reindex import ReindexOptions, reindex
from indexer.settings import Settings
from tests.indexer.one_layer import one_layer_installed

Network = Literal["croma", "numpy"]


class MemoryRuns:
    """Two runs side by side, as time does not matter here; they go on while something else begins.

    Args:
        network: ``croma`` or ``numpy``.
        few: Images of the first run.
        many: Of the second.
    """

    def __init__(self, network: Network, few: int, many: int) -> None:
        self._network, self._images = network, [few, many]
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", __name__, network, str(images)], stdout=subprocess.PIPE
            )
            for images in (few, many)
        ]

    def result(self) -> dict[str, Any]:
        """Peak memory of both, when they are done, and how much more the larger takes."""
        told = [process.communicate()[0] for process in self._processes]
        if any(process.returncode for process in self._processes):
            raise RuntimeError("a process that measures memory failed")
        small, large = map(json.loads, told)
        return {
            "network": self._network,
            "images": self._images,
            "peak_mib": [small["peak_mib"], large["peak_mib"]],
            "gained_while_embedding_mib": [small["gained_mib"], large["gained_mib"]],
            "many_to_few": round(large["peak_mib"] / small["peak_mib"], 3),
        }


class _Gained(Silent):
    """What is held when the last image is embedded more than at the first."""

    first_mib: float | None = None
    last_mib = 0.0

    def advance(self, done: int) -> None:
        """A batch is stored."""
        self.last_mib = _of_process("VmRSS")
        self.first_mib = self.first_mib or self.last_mib


def run(network: Network, images: int) -> dict[str, float]:
    """Embed so many images, and say how much memory that took."""
    progress = _Gained()
    with (
        tempfile.TemporaryDirectory(prefix="parcelle-bench-") as name,
        _installed(network) as encoder,
    ):
        folder = Path(name)
        imagery = draw_small_images(folder / "images", images)
        settings = Settings(data_dir=folder / "data", database_url="")
        options = ReindexOptions(encoder=encoder, weights="untrained", precision="fp32")
        report = reindex(settings, [imagery], options, progress)
    if report.embedded != images:
        raise RuntimeError(f"{report.embedded} of {images} images were embedded")
    return {
        "peak_mib": round(_of_process("VmHWM"), 1),
        "gained_mib": round(progress.last_mib - (progress.first_mib or 0.0), 1),
    }


@contextmanager
def _installed(network: Network) -> Iterator[str]:
    """Let ``reindex`` know the network, under the name that it gives."""
    if network == "numpy":
        with one_layer_installed() as name:
            yield name
        return
    name = "one-layer-croma"
    with patch.dict(ARCHITECTURES, {name: ARCHITECTURES["croma-base"] | {"encoder_depth": 1}}):
        yield name


def _of_process(what: Literal["VmRSS", "VmHWM"]) -> float:
    """What this process holds, or the most that it ever held, in MiB.

    Not what ``getrusage`` tells: that counts what the parent held when this process began.

    Raises:
        OSError: Where there is no Linux.
    """
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise OSError(f"/proc/self/status does not tell {what}")
    return int(found[1]) / 1024


def main(arguments: Sequence[str]) -> None:
    """Run and print one JSON object."""
    network, images = arguments
    print(json.dumps(run("numpy" if network == "numpy" else "croma", int(images))))


if __name__ == "__main__":
    main(sys.argv[1:])
