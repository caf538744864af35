"""``python -m tests.soak --seconds 600``: ask, write and switch for a while, then report."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.soak.soaking import soak
from tests.soak.test_soak import complaints


def main() -> int:
    """Run a soak; the exit code is 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="parcelle-soak-") as folder:
        report = soak(seconds, Path(folder), lambda text: print(text, file=sys.stderr, flush=True))
    print(json.dumps(report.to_dict(), indent=2))
    found = complaints(report)
    for one in found:
        print(f"FAILED  {one}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
