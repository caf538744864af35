from pathlib import Path

import pytest

from tests.api.cli.conftest import Parcelle
from tests.retriever.planted import Seen, at_cosine, plant, settings_in


@pytest.fixture
def planted(parcelle: Parcelle, home: Path) -> Parcelle:
    """Run ``parcelle`` where five parcels are, and a sixth since the publication."""
    settings = settings_in(home)
    plant(
        settings,
        [
            Seen(f"p{number}", at_cosine(1 - 0.1 * number), crop_name="maize" if number else None)
            for number in range(5)
        ],
    )
    plant(settings, [Seen("new", at_cosine(0.05), crop_name="maize")], publish=False)
    return parcelle


@pytest.mark.parametrize("output", ["json", "geojson"])
def test_an_answer_explains_itself_where_it_is_asked_to(planted: Parcelle, output: str) -> None:
    asked = ("similar", "p0", "--crop", "maize", "--recall", "0.99", "--format", output)
    assert "explanation" not in planted(*asked).json
    ran = planted(*asked, "--explain")
    assert ran.exit_code == 0, ran.stderr
    explanation = ran.json["explanation"]
    assert explanation["recall"] == 0.99
    assert (explanation["rows"], explanation["allowed"]) == (5, 4)
    assert explanation["since_publication"] == {"rows": 1, "removed": 0}
    assert explanation["search_ms"] > 0


def test_a_table_is_followed_by_the_plan_in_words(planted: Parcelle) -> None:
    ran = planted("similar", "p0", "--crop", "maize", "--explain")
    assert ran.exit_code == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[-5].endswith("with 5 vectors, 1 added and 0 removed since.")
    assert lines[-4] == "Recall 0.95 sought, 1.000 measured."
    assert lines[-3] == "A condition (crop) leaves at most 4 vectors."
    assert lines[-2].startswith("4 vectors allowed; ")
    assert "explanation" not in planted("similar", "p0").stdout


@pytest.mark.parametrize("recall", ["0", "0.999", "-1", "nan"])
def test_a_recall_that_nobody_measured_is_refused(planted: Parcelle, recall: str) -> None:
    ran = planted("similar", "p0", "--recall", recall)
    assert ran.exit_code == 2
    assert "[invalid-recall]" in ran.stderr
