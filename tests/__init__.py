"""The tests, and the programs that they start."""

import os

if "PARCELLE_TEST_SCHEMAS" in os.environ:
    from tests.schemas import join_the_suite

    join_the_suite()
