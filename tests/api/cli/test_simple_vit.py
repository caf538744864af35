"""An encoder of one's own on the command line: learned, indexed with, asked with."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.api.cli.conftest import Parcelle
from tests.indexer.flight import FIELD_PX, flight, train, write_fields, write_flight


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_flight(folder / "flight.tif")
    write_fields(folder / "fields.geojson")
    train(folder / "flight.tif", folder / "own.pt")
    return folder


@pytest.fixture
def indexed(parcelle: Parcelle, place: Path) -> Parcelle:
    ran = parcelle(
        "reindex",
        place / "flight.tif",
        "--encoder",
        f"simple-vit:{place / 'own.pt'}",
        "--windows",
        FIELD_PX,
    )
    assert ran.exit_code == 0, ran.stderr
    assert "embedded 16 observations" in ran.stdout
    assert "(simple-vit, trained weights, image pooling, optical, fp32)" in ran.stdout
    return parcelle


def test_an_image_asks_in_the_encoders_own_bands(
    indexed: Parcelle, place: Path, tmp_path: Path
) -> None:
    field = flight(seed=3)[:, :FIELD_PX, FIELD_PX : 2 * FIELD_PX]
    question = write_flight(tmp_path / "question.tif", field)
    ran = indexed("similar", "--image", question, "-k", "1", "--format", "json")
    assert ran.exit_code == 0, ran.stderr
    (match,) = ran.json["matches"]
    row, column = (int(part[1:]) // FIELD_PX for part in match["id"].split("-")[2:])
    # Maize grows where row and column add up to 1, 4...
    assert (row + column) % 3 == 1


def test_an_image_of_other_bands_is_refused_by_what_it_lacks(
    indexed: Parcelle, tmp_path: Path
) -> None:
    np.savez(tmp_path / "other.npz", cube=np.moveaxis(flight(), 0, 2))
    ran = indexed("similar", "--image", tmp_path / "other.npz")
    assert ran.exit_code == 1
    assert "other.npz" in ran.stderr
    assert "wavelengths" in ran.stderr


def test_a_state_says_that_there_are_no_indices(indexed: Parcelle) -> None:
    ran = indexed("state", f"flight-{FIELD_PX}px-r00000-c00000")
    assert ran.exit_code == 0
    assert "No spectral index is measured" in ran.stderr


def test_the_vectors_can_be_exported(indexed: Parcelle, tmp_path: Path) -> None:
    ran = indexed("export", tmp_path / "out.npy")
    assert ran.exit_code == 0
    vectors = np.load(tmp_path / "out.npy")
    assert vectors.shape == (16, 512)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_index_can_be_rebuilt_and_is_sound(indexed: Parcelle) -> None:
    assert indexed("generations", "rebuild").exit_code == 0
    assert indexed("check").exit_code == 0


def test_check_looks_at_the_encoders_file(indexed: Parcelle, place: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.pt"
    shutil.copy(place / "own.pt", moved)
    asked = ("--encoder", f"simple-vit:{moved}", "--windows", FIELD_PX)
    assert indexed("reindex", place / "flight.tif", *asked).exit_code == 0
    sound = indexed("check")
    assert (sound.exit_code, f"{moved}, as the index" in sound.stdout) == (0, True)
    moved.write_bytes(moved.read_bytes() + b"!")
    replaced = indexed("check")
    assert (replaced.exit_code, f"{moved} is another file" in replaced.stdout) == (1, True)
    moved.unlink()
    gone = indexed("check")
    assert (gone.exit_code, f"{moved} is not there" in gone.stdout) == (1, True)


def test_windows_and_parcels_are_wrong_usage(parcelle: Parcelle, place: Path) -> None:
    ran = parcelle(
        "reindex", place / "flight.tif", "--windows", "20", "--parcels", place / "fields.geojson"
    )
    assert ran.exit_code == 2
    assert "--windows" in ran.stderr


def test_a_file_that_is_not_there_is_named(parcelle: Parcelle, place: Path) -> None:
    ran = parcelle("reindex", place / "flight.tif", "--encoder", "simple-vit:gone.pt")
    assert ran.exit_code == 1
    assert "gone.pt" in ran.stderr
    assert "CROMA" not in ran.stderr
