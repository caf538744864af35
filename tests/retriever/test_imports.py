import os
import subprocess
import sys
from pathlib import Path

from tests.retriever.planted import Seen, at_cosine, plant, settings_in

QUESTIONS = """
import sys
from indexer.settings import Settings
from retriever.queries import Interval, ParcelFilter
from retriever.search import ParcelSearcher

searcher = ParcelSearcher.open(Settings())
matches = searcher.similar_by_id("a", where=ParcelFilter(interval=Interval.parse("2023")))
assert [match.parcel_id for match in matches.matches] == ["b"], matches
assert searcher.similar_by_vector([1.0] + 511 * [0.0], k=1).matches[0].parcel_id == "a"
assert matches.to_geojson()["numberReturned"] == 1
assert len(searcher.state("a").observations) == 1
assert len(searcher.generations()) == 1
assert not {"torch", "torchgeo", "langchain_core"} & set(sys.modules)

from retriever.tools import TOOLS

assert not {"langchain_core", "mcp"} & set(sys.modules)

from retriever.toolkit import ParcelToolkit

for tool in ParcelToolkit(searcher).get_tools():
    compared = {"parcel_ids": ["a", "b"]}
    asked = {"search_parcels": {}, "compare_parcels": compared}.get(tool.name, {"parcel_id": "a"})
    assert tool.invoke(asked)
assert not {"torch", "torchgeo"} & set(sys.modules)
searcher.close()
"""


def test_questions_load_no_torch_and_only_the_tools_load_langchain(tmp_path: Path) -> None:
    chosen = settings_in(tmp_path)
    plant(chosen, [Seen("a", at_cosine(1)), Seen("b", at_cosine(0.5))])
    answered = subprocess.run(
        [sys.executable, "-W", "error", "-c", QUESTIONS],
        env=os.environ | {"PARCELLE_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answered.returncode == 0, answered.stderr
