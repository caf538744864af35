from pathlib import Path

import pytest

from indexer.encoders.choice import check_encoder_choice, encoder_file, open_pixel_encoder
from indexer.errors import InvalidInputError, WeightsError


@pytest.mark.parametrize(
    ("word", "file"),
    [
        ("simple-vit:flight.pt", Path("flight.pt")),
        ("simple-vit:/far/away.pt", Path("/far/away.pt")),
        ("simple-vit:", None),
        ("simple-vit", None),
        ("croma-large", None),
    ],
)
def test_a_word_names_a_file_or_none(word: str, file: Path | None) -> None:
    assert encoder_file(word) == file


def test_a_home_folder_is_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert encoder_file("simple-vit:~/flight.pt") == tmp_path / "flight.pt"


def test_croma_takes_weights_and_normalization() -> None:
    check_encoder_choice("croma-large", "untrained", "dataset")
    check_encoder_choice("simple-vit:flight.pt")


@pytest.mark.parametrize(
    ("weights", "normalization", "named"),
    [("other.pt", None, "--weights other.pt"), (None, "dataset", "--normalization dataset")],
)
def test_a_file_that_says_all_of_itself_cannot_be_contradicted(
    weights: str | None, normalization: str | None, named: str
) -> None:
    with pytest.raises(InvalidInputError, match=f"{named}: flight.pt holds its own") as caught:
        check_encoder_choice("simple-vit:flight.pt", weights, normalization)
    assert caught.value.kind == "invalid-option"


def test_what_is_no_encoder_is_refused_with_those_that_are() -> None:
    with pytest.raises(InvalidInputError, match=r"croma-large.*simple-vit:FILE") as caught:
        check_encoder_choice("simple-vit:")
    assert caught.value.kind == "unknown-encoder"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert open_pixel_encoder("croma-large") is None
    with pytest.raises(WeightsError, match=r"gone\.pt") as caught:
        open_pixel_encoder(f"simple-vit:{tmp_path / 'gone.pt'}")
    assert caught.value.kind == "weights-not-found"
