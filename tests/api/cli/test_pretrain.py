import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.encoders.simple_vit import SimpleViTEncoder
from tests.api.cli.conftest import Parcelle
from tests.indexer.training.cubes import in_one_thread, make_cube, save_cube

QUICK = ("--steps", "4", "--batch-size", "16", "--device", "cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    yield from in_one_thread()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return save_cube(tmp_path / "flight.npz", make_cube())


def test_pretrain_writes_an_encoder_and_says_what_it_learned(
    parcelle: Parcelle, image: Path, tmp_path: Path
) -> None:
    out = tmp_path / "farm.pt"
    ran = parcelle("pretrain", image, "--out", out, *QUICK, "--plots", tmp_path / "plots")
    assert ran.exit_code == 0, ran.stderr
    encoder = SimpleViTEncoder.load(out)
    assert encoder.digest[:12] in ran.stdout
    assert "4 steps on 480 windows of 1 image with 6 bands" in ran.stdout
    assert "Loss" in ran.stdout
    assert "loss" in ran.stderr
    assert (tmp_path / "plots" / "loss.png").is_file()


def test_pretrain_prints_one_json_object_with_the_loss_curve(
    parcelle: Parcelle, image: Path, tmp_path: Path
) -> None:
    out = tmp_path / "farm.pt"
    ran = parcelle("pretrain", image, "--out", out, *QUICK, "--recipe", "report", "--json")
    assert ran.exit_code == 0, ran.stderr
    assert len(ran.json["losses"]) == 4
    assert ran.json["recipe"]["name"] == "report"
    assert ran.json["digest"] == SimpleViTEncoder.load(out).digest


def test_an_untrained_encoder_is_named_as_such(
    parcelle: Parcelle, image: Path, tmp_path: Path
) -> None:
    ran = parcelle("pretrain", image, "--out", tmp_path / "farm.pt", "--steps", "0")
    assert ran.exit_code == 0, ran.stderr
    assert "UNTRAINED" in ran.stdout
    assert "untrained" in ran.stderr


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (("--recipe", "best"), 2, "best"),
        (("--steps", "-1"), 2, "steps"),
        (("--out", "nowhere/farm.pt"), 2, "nowhere"),
        (("--bands", "l2a"), 2, "--bands"),
    ],
)
def test_pretrain_refuses_what_cannot_be(
    words: tuple[str, ...], code: int, named: str, parcelle: Parcelle, image: Path, tmp_path: Path
) -> None:
    out = () if "--out" in words else ("--out", tmp_path / "farm.pt")
    ran = parcelle("pretrain", image, *out, *words)
    assert ran.exit_code == code
    assert named in ran.stderr


def test_an_image_that_teaches_nothing_is_a_failure(parcelle: Parcelle, tmp_path: Path) -> None:
    image = save_cube(tmp_path / "gray.npz", make_cube(bands=1))
    ran = parcelle("pretrain", image, "--out", tmp_path / "farm.pt")
    assert ran.exit_code == 1
    assert "[one-band]" in ran.stderr


def test_an_interrupted_training_says_where_it_can_go_on(
    parcelle: Parcelle, image: Path, tmp_path: Path
) -> None:
    partial = tmp_path / "farm.pt.partial"
    done = threading.Event()

    def interrupt() -> None:
        while not partial.exists() and not done.is_set():
            time.sleep(0.01)
        if not done.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    # Where tests run in the background of a shell, the signal is ignored from the beginning.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    watcher = threading.Thread(target=interrupt)
    watcher.start()
    try:
        words = ("--steps", "2000", "--batch-size", "16", "--device", "cpu")
        out = ("--out", tmp_path / "farm.pt")
        ran = parcelle("pretrain", image, *out, *words, "--checkpoint-every", "1")
    finally:
        done.set()
        watcher.join()
        signal.signal(signal.SIGINT, before)
    assert ran.exit_code == 130
    assert "farm.pt.partial keeps the training up to a checkpoint; --resume" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert [path.name for path in tmp_path.glob("*farm*")] == ["farm.pt.partial"]
