"""A training that dies by SIGKILL after a checkpoint.

python -m tests.indexer.training.killed_pretrain IMAGE OUT STEPS EVERY LAST
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from indexer.training import contrast, pretrain
from indexer.training.pretrain import PretrainOptions


def main(image: str, out: str, steps: int, every: int, last: int) -> None:
    """Train until step ``last`` is made, then die."""
    torch.set_num_threads(1)
    calls = 0

    def draw_views(*arguments: Any) -> Any:  # noqa: ANN401 - as the real one
        nonlocal calls
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
        calls += 1
        return contrast.draw_views(*arguments)

    setattr(pretrain, "draw_views", draw_views)  # noqa: B010 - mypy forbids the assignment
    options = PretrainOptions(steps=steps, batch_size=16, checkpoint_every=every, device="cpu")
    pretrain.pretrain([image], Path(out), options)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))
