"""CQL2 filters of the command line."""

from pathlib import Path

import pytest

from tests.api.cli.conftest import Parcelle
from tests.retriever.planted import Seen, at_cosine, plant, settings_in, write_image


@pytest.fixture
def in_planted(parcelle: Parcelle, home: Path) -> Parcelle:
    """Run ``parcelle`` where ``b`` is green and ``c`` is not."""
    plant(
        settings_in(home),
        [
            Seen("a", at_cosine(1)),
            Seen("b", at_cosine(0.9), indices={"NDVI": 0.8}, attributes={"farm": "O'Brien"}),
            Seen("c", at_cosine(0.8), indices={"NDVI": 0.2}, attributes={"farm": "17"}),
        ],
    )
    return parcelle


def test_a_filter_chooses_matches(in_planted: Parcelle) -> None:
    ran = in_planted("similar", "a", "--filter", "NDVI > 0.5", "--format", "json")
    assert ran.exit_code == 0, ran.stderr
    assert [match["id"] for match in ran.json["matches"]] == ["b"]
    assert ran.json["query"]["filter"] == {"filter": "NDVI > 0.5"}
    assert "Only 1 parcels match" in in_planted("similar", "a", "--filter", "NDVI>0.5").stderr


def test_a_filter_joins_the_other_conditions(in_planted: Parcelle) -> None:
    both = ("--filter", "farm LIKE 'O''%' OR farm = '17'", "--datetime", "2023-05")
    found = in_planted("similar", "a", *both, "--format", "json").json["matches"]
    assert [match["id"] for match in found] == ["b", "c"]
    none = in_planted("similar", "a", *both, "--bbox", "50,10,51,11", "--format", "json").json
    assert none["matches"] == []


@pytest.mark.parametrize(
    ("text", "kind", "complaint"),
    [
        ("NDVI >", "invalid-filter", "Filter: at character 7 found the end, expected a property"),
        ("ndvi > 0.5", "unknown-property", 'Property "ndvi" is unknown; there are id, collection'),
        ("NDVI > '0.5'", "invalid-filter", '"NDVI" is a number; found "0.5".'),
    ],
)
def test_a_wrong_filter_is_explained(
    in_planted: Parcelle, text: str, kind: str, complaint: str
) -> None:
    ran = in_planted("similar", "a", "--filter", text)
    assert ran.exit_code == 2
    assert f"[{kind}]" in ran.stderr
    assert complaint in " ".join(ran.stderr.split())


def test_a_filter_is_heard_where_an_image_asks(in_demo: Parcelle, tmp_path: Path) -> None:
    write_image(tmp_path / "chip.tif", seed=1)
    late = ("--filter", "datetime >= DATE('2023-08-01') AND NDVI < 2", "--format", "json")
    ran = in_demo("similar", "--image", tmp_path / "chip.tif", "--baseline", "05.09", *late)
    assert ran.exit_code == 0, ran.stderr
    assert {match["datetime"][:7] for match in ran.json["matches"]} == {"2023-08"}
