"""``parcelle reindex`` that stands still at a step until somebody lets it go on; a program."""

import json
import sys
from dataclasses import asdict

from api.cli import main
from tests.indexer.killed_reindex import Moment, Plan, install
from tests.indexer.one_layer import one_layer_installed


def arguments_of(plan: Plan) -> list[str]:
    """What Python is told to run it; the environment names the database."""
    return ["-m", "tests.indexer.paused_reindex", json.dumps(asdict(plan))]


def _main(text: str) -> None:
    fields = json.loads(text)
    plan = Plan(**{**fields, "moment": Moment(**fields["moment"])})
    install(plan)
    with one_layer_installed() as encoder:
        chosen = ["--encoder", encoder, "--weights", "untrained", "--precision", "fp32"]
        main(["reindex", plan.images, *chosen, "--device", "cpu", "--batch-size", "1"])


if __name__ == "__main__":
    _main(sys.argv[1])
