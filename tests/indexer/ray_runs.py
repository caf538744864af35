"""A Ray cluster of this computer alone, and reindexes on it: two programs."""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from indexer import ray_cluster, reindex
from indexer.encoders import choice
from indexer.encoders.base import Images
from indexer.errors import ParcelleError
from indexer.settings import Settings
from tests.indexer.farm import options
from tests.indexer.one_layer import OneLayerEncoder, one_layer_installed

FloatArray = npt.NDArray[np.float32]

ROOT = Path(__file__).parents[2]

ENVIRONMENT = {
    # As Ray does on systems whose firewalls would ask: everything listens at 127.0.0.1 alone.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Or it would leave one in the home folder.
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}

TILES_OF_A_BLOCK = 3
"""So few that parcels in several tiles reach from one block into others."""

HOSTILE_LEVEL = 0.95
"""Mean of a normalized image that no process survives."""

_LIVES = 2


class MortalEncoder(OneLayerEncoder):
    """Kills its process at its third pass, or at an image that is much too bright.

    The former as often as there are files ``death-*`` beside the file of its weights.
    """

    passes = 0

    def pool(self, images: Images, pooling_weights: Sequence[FloatArray]) -> list[FloatArray]:
        """As ``OneLayerEncoder.pool``, if it comes to that."""
        self.passes += 1
        hostile = any(float(np.mean(image)) > HOSTILE_LEVEL for image in images)
        if hostile or (self.passes > _LIVES and _take_one(Path(str(self.weights.path)).parent)):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().pool(images, pooling_weights)


def _take_one(folder: Path) -> bool:
    """Whether a death was left, and nobody else took it."""
    for death in folder.glob("death-*"):
        try:
            death.unlink()
        except FileNotFoundError:
            continue
        return True
    return False


class Head:
    """A cluster with two processors, which takes some seconds to come up."""

    def __init__(self) -> None:
        # Sockets lie in it, whose paths must be short.
        self._folder = tempfile.TemporaryDirectory(prefix="ray-")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.indexer.ray_runs", "head", self._folder.name],
            cwd=ROOT,
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # It ends with its standard input; its processes die with it, however it ends.
        self._process.communicate()
        self._folder.cleanup()

    @cached_property
    def address(self) -> str:
        """``HOST:PORT``, as soon as it answers there."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def left(self) -> list[str]:
        """Processes of the cluster that are still there."""
        found: list[str] = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            # Processes come and go.
            with suppress(OSError):
                found += [line for line in [path.read_text()] if self._folder.name in line]
        return found


def run_on_ray(runs: Sequence[Mapping[str, Any]]) -> subprocess.CompletedProcess[str]:
    """Reindex several times, one after the other, in one other process.

    Args:
        runs: Of each the ``data_dir``, the ``imagery``, and ``options``.

    Returns:
        Its standard output is a JSON list of the reports, or of the kinds and messages of errors.
    """
    return subprocess.run(
        [sys.executable, "-m", "tests.indexer.ray_runs", "drive", json.dumps(runs)],
        cwd=ROOT,
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


def _head(folder: str) -> None:
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100_000_000,
        _temp_dir=folder,
    )
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
    ray.shutdown()


def _drive(text: str) -> None:
    reports: list[dict[str, Any]] = []
    with one_layer_installed():
        for module, name, value in (
            # Two workers on two processors.
            (ray_cluster, "CPUS_OF_A_WORKER", 1),
            (ray_cluster, "TILES_OF_A_BLOCK", TILES_OF_A_BLOCK),
            (choice, "CromaEncoder", MortalEncoder),
        ):
            setattr(module, name, value)
        for run in json.loads(text):
            settings = Settings(data_dir=Path(run["data_dir"]), database_url="")
            chosen = run["options"] | {"parcels": Path(run["options"]["parcels"])}
            try:
                report = reindex.reindex(settings, run["imagery"], options(**chosen))
                reports.append(report.to_dict())
            except ParcelleError as error:
                reports.append({"kind": error.kind, "message": error.message})
    print(json.dumps(reports))


if __name__ == "__main__":
    {"head": _head, "drive": _drive}[sys.argv[1]](sys.argv[2])
