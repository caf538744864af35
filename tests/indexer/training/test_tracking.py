import json
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from indexer.errors import InvalidInputError
from indexer.training.pretrain import PretrainOptions, pretrain
from indexer.training.tracking import check_tracker, wandb_mode
from tests.indexer.training.cubes import make_cube, save_cube

SHORT = PretrainOptions(steps=4, batch_size=16, device="cpu")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return save_cube(tmp_path / "flight.npz", make_cube())


def test_tensorboard_holds_the_loss_of_every_step(image: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    options = replace(SHORT, track="tensorboard", track_dir=tmp_path / "runs")
    report = pretrain([image], tmp_path / "farm.pt", options)
    events = EventAccumulator(str(tmp_path / "runs" / "farm"))
    events.Reload()
    scalars = events.Scalars("loss")
    assert [event.step for event in scalars] == [1, 2, 3, 4]
    assert [event.value for event in scalars] == pytest.approx(report.losses)
    assert len(events.Scalars("learning_rate")) == 4


def test_weights_and_biases_keeps_the_loss_without_a_network(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    options = replace(SHORT, track="wandb", track_dir=tmp_path / "runs")
    report = pretrain([image], tmp_path / "farm.pt", options)
    (log,) = (tmp_path / "runs").glob("wandb/offline-run-*/run-*.wandb")
    assert logged_losses(log) == pytest.approx(report.losses)


def logged_losses(log: Path) -> list[float]:
    """The losses in a file of Weights & Biases, which it would send later."""
    from wandb.proto import wandb_internal_pb2

    losses = []
    for data in log_records(log.read_bytes()[7:]):
        record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
        record.ParseFromString(data)
        for item in record.history.item:
            if item.key == "loss" or list(item.nested_key) == ["loss"]:
                losses.append(json.loads(item.value_json))
    return losses


def log_records(content: bytes, block: int = 32_768) -> Iterator[bytes]:
    """Records of a log in LevelDB's format, https://github.com/google/leveldb, log_format.md.

    Wandb puts 7 bytes of its own before the first; they count for the place of the blocks.
    """
    at, parts = 7, b""
    while at + 7 <= len(content) + 7:
        if block - at % block < 7:
            at += block - at % block
            continue
        length, kind = struct.unpack_from("<HB", content, at - 7 + 4)
        parts += content[at : at + length]
        at += 7 + length
        # Full and last parts end a record; first and middle ones go on.
        if kind in (1, 4):
            yield parts
            parts = b""


def test_weights_and_biases_goes_online_only_with_a_key_or_when_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert wandb_mode() == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "not a real one")
    assert wandb_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode() == "disabled"


@pytest.mark.parametrize("kind", ["wandb", "tensorboard"])
def test_a_tracker_that_is_not_installed_is_refused_with_its_extra(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What an import finds where a package is missing.
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(InvalidInputError, match=rf"parcelle\[{kind}\]"):
        check_tracker(kind)
