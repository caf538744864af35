import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from indexer.encoders.simple_vit import SimpleViTEncoder
from indexer.errors import ImageryError, InvalidInputError, ParcelleError, WeightsError
from indexer.training.pretrain import PretrainOptions, partial_of, pretrain
from indexer.training.recipes import RECIPES
from tests.indexer.imagery.envi_files import write_envi
from tests.indexer.training.cubes import make_cube, save_cube

ROOT = Path(__file__).parents[3]
SHORT = PretrainOptions(steps=6, batch_size=16, device="cpu")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return save_cube(tmp_path / "flight.npz", make_cube())


def test_a_seed_gives_the_same_file_and_another_seed_another(image: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    first = pretrain([image], tmp_path / "first.pt", SHORT)
    again = pretrain([image], tmp_path / "again.pt", SHORT)
    other = pretrain([image], tmp_path / "other.pt", replace(SHORT, seed=1))
    assert first.digest == again.digest != other.digest
    assert (tmp_path / "first.pt").read_bytes() == (tmp_path / "again.pt").read_bytes()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("recipe", RECIPES)
def test_training_lowers_the_loss(recipe: str, image: Path, tmp_path: Path) -> None:
    options = replace(SHORT, recipe=recipe, steps=60)
    report = pretrain([image], tmp_path / "out.pt", options)
    assert np.mean(report.losses[-10:]) < np.mean(report.losses[:10])
    assert report.trained


def test_the_file_holds_tensors_and_plain_values_without_paths(image: Path, tmp_path: Path) -> None:
    report = pretrain([image], tmp_path / "out.pt", SHORT)
    content = torch.load(tmp_path / "out.pt", weights_only=True)
    tensors = {name: content.pop(name) for name in ("network", "statistics")}
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors["network"].values())
    text = json.dumps(content)
    assert str(tmp_path) not in text
    assert content["images"] == ["flight"]
    assert content["losses"] == report.losses
    assert content["recipe"] == report.recipe
    assert content["versions"]["torch"] == torch.__version__.split("+")[0]
    assert [band["name"] for band in content["bands"]] == [f"band {n}" for n in range(1, 7)]


def test_the_reports_recipe_stops_once_its_loss_is_low(image: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPES["report"], stop_below=1000.0)
    report = pretrain([image], tmp_path / "out.pt", replace(SHORT, recipe=recipe, steps=80))
    assert report.steps == 50


def test_a_killed_training_resumes_to_what_an_undisturbed_one_gives(
    image: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed.pt"
    ran = subprocess.run(
        [sys.executable, "-m", "tests.indexer.training.killed_pretrain", str(image), str(out),
         "12", "4", "10"],
        cwd=ROOT, check=False, capture_output=True,
    )  # fmt: skip
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert not out.exists()
    options = replace(SHORT, steps=12, checkpoint_every=4)
    resumed = pretrain([image], out, replace(options, resume=True))
    assert resumed.resumed_at == 8
    undisturbed = pretrain([image], tmp_path / "undisturbed.pt", options)
    assert resumed.losses == undisturbed.losses
    assert resumed.digest == undisturbed.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "flight.npz", "killed.pt", "undisturbed.pt",
    ]  # fmt: skip


class Interrupted(Exception):
    """The training is stopped from outside."""


class StopsAfter:
    """A progress that stops a training after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def start(self, task: str, total: int, unit: str | None = None) -> None: ...

    def expect(self, total: int) -> None: ...

    def rename(self, task: str) -> None:
        self.left -= 1
        if self.left < 0:
            raise Interrupted

    def advance(self, done: int) -> None: ...

    def finish(self) -> None: ...


@pytest.fixture
def unfinished(image: Path, tmp_path: Path) -> Path:
    """Output of a training that left a checkpoint after 2 steps."""
    out = tmp_path / "out.pt"
    with pytest.raises(Interrupted):
        pretrain([image], out, replace(SHORT, checkpoint_every=2), StopsAfter(3))
    assert partial_of(out).is_file()
    return out


RESUME = replace(SHORT, checkpoint_every=2, resume=True)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (replace(RESUME, recipe="report"), "recipe"),
        (replace(RESUME, steps=7), r"recipe \(steps 6, here 7\)"),
        (replace(RESUME, seed=1), "seed"),
    ],
)
def test_a_training_is_not_resumed_with_other_options(
    options: PretrainOptions, named: str, image: Path, unfinished: Path
) -> None:
    with pytest.raises(WeightsError, match=named) as refused:
        pretrain([image], unfinished, options)
    assert refused.value.kind == "weights-mismatch"
    assert partial_of(unfinished).is_file()


def test_a_training_is_not_resumed_with_other_images(
    image: Path, unfinished: Path, tmp_path: Path
) -> None:
    other = save_cube(tmp_path / "other.npz", make_cube(seed=1))
    with pytest.raises(WeightsError, match="other images"):
        pretrain([other], unfinished, RESUME)
    save_cube(image, make_cube(seed=1))
    with pytest.raises(WeightsError, match="images' values"):
        pretrain([image], unfinished, RESUME)


def test_a_damaged_checkpoint_is_named(image: Path, unfinished: Path) -> None:
    partial = partial_of(unfinished)
    partial.write_bytes(partial.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="partial") as refused:
        pretrain([image], unfinished, RESUME)
    assert refused.value.kind == "weights-corrupt"


def test_a_finished_encoder_is_no_checkpoint(image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pt"
    pretrain([image], out, SHORT)
    out.rename(partial_of(out))
    with pytest.raises(WeightsError, match="unfinished") as refused:
        pretrain([image], out, RESUME)
    assert refused.value.kind == "weights-mismatch"


def test_with_nothing_to_resume_a_training_begins_and_says_so(image: Path, tmp_path: Path) -> None:
    report = pretrain([image], tmp_path / "out.pt", RESUME)
    assert report.resumed_at is None
    assert any("anew" in note for note in report.notes)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4])
def test_any_number_of_steps_can_be_made(steps: int, image: Path, tmp_path: Path) -> None:
    report = pretrain([image], tmp_path / "out.pt", replace(SHORT, steps=steps))
    assert report.steps == len(report.losses) == steps
    assert report.trained == SimpleViTEncoder.load(tmp_path / "out.pt").trained == (steps > 0)
    assert any("untrained" in note for note in report.notes) == (steps == 0)


def test_fewer_windows_than_a_batch_are_trained_on_and_told(tmp_path: Path) -> None:
    small = save_cube(tmp_path / "small.npz", make_cube(height=2, width=3))
    report = pretrain([small], tmp_path / "out.pt", replace(SHORT, batch_size=None))
    assert report.windows == 6
    assert any("6 windows" in note for note in report.notes)


def test_several_images_are_trained_on_together(image: Path, tmp_path: Path) -> None:
    folder = tmp_path / "flights"
    folder.mkdir()
    for number in range(2):
        save_cube(folder / f"flight_{number}.npz", make_cube(height=8, seed=number))
    report = pretrain([image, folder, folder / "*_1.npz"], tmp_path / "out.pt", SHORT)
    assert report.images == ["flight", "flight_0", "flight_1"]
    assert report.windows == (20 + 8 + 8) * 24


def test_images_of_other_bands_are_refused(image: Path, tmp_path: Path) -> None:
    other = save_cube(tmp_path / "other.npz", make_cube(bands=5))
    with pytest.raises(ImageryError, match=r"other\.npz") as refused:
        pretrain([image, other], tmp_path / "out.pt", SHORT)
    assert refused.value.kind in ("band-count", "missing-band", "no-wavelengths")


def gap_everywhere() -> Any:  # noqa: ANN401 - an array
    return np.full((9, 9, 3), np.nan, dtype=np.float32)


@pytest.mark.parametrize(
    ("cube", "kind"),
    [
        (make_cube(bands=1), "one-band"),
        (gap_everywhere(), "no-valid-pixels"),
        (np.full((9, 9, 3), 5, dtype=np.float32), "no-contrast"),
        (make_cube(height=1, width=1), "no-contrast"),
    ],
)
def test_an_image_that_teaches_nothing_is_refused(cube: Any, kind: str, tmp_path: Path) -> None:  # noqa: ANN401
    image = save_cube(tmp_path / "image.npz", cube)
    with pytest.raises(ImageryError, match="image") as refused:
        pretrain([image], tmp_path / "out.pt", SHORT)
    assert refused.value.kind == kind
    assert not (tmp_path / "out.pt").exists()


def test_a_band_without_any_data_is_left_out_and_told(tmp_path: Path) -> None:
    cube = make_cube(bands=5)
    cube[:, :, 2] = np.nan
    report = pretrain([save_cube(tmp_path / "gap.npz", cube)], tmp_path / "out.pt", SHORT)
    assert report.bands == 4
    assert any("without any data" in note for note in report.notes)
    encoder = SimpleViTEncoder.load(tmp_path / "out.pt")
    assert [band.name for band in encoder.bands] == ["band 1", "band 2", "band 4", "band 5"]


def test_an_image_without_valid_pixels_is_named_among_others(image: Path, tmp_path: Path) -> None:
    blank = save_cube(tmp_path / "blank.npz", np.full_like(make_cube(), np.nan))
    with pytest.raises(ImageryError, match="blank") as refused:
        pretrain([image, blank], tmp_path / "out.pt", SHORT)
    assert refused.value.kind == "no-valid-pixels"


def test_an_encoder_may_be_read_by_whom_the_umask_allows(image: Path, tmp_path: Path) -> None:
    pretrain([image], tmp_path / "out.pt", replace(SHORT, steps=0))
    (tmp_path / "plain").touch()
    modes = {(tmp_path / name).stat().st_mode for name in ("out.pt", "plain")}
    assert len(modes) == 1


def test_values_that_are_no_numbers_are_no_valid_pixels(tmp_path: Path) -> None:
    cube = make_cube()
    cube[3, 4, 1], cube[5, 6, 2] = np.inf, np.nan
    report = pretrain([save_cube(tmp_path / "holes.npz", cube)], tmp_path / "out.pt", SHORT)
    assert report.windows == 20 * 24 - 2
    assert np.isfinite(report.losses).all()


@pytest.mark.parametrize("out", ["nowhere/out.pt", ".", "flight.npz/out.pt"])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    out: str, image: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match="--out") as refused:
        pretrain(["no-such-image.npz"], tmp_path / out, SHORT)
    assert refused.value.kind == "invalid-option"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (lambda file: replace(SHORT, plots=file), "--plots"),
        (lambda file: replace(SHORT, track="tensorboard", track_dir=file), "--track-dir"),
    ],
)
def test_a_folder_that_cannot_be_is_refused_before_any_work(
    options: Callable[[Path], PretrainOptions], named: str, image: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match=named) as refused:
        pretrain([image], tmp_path / "out.pt", options(image))
    assert refused.value.kind == "invalid-option"
    assert not (tmp_path / "out.pt").exists()


def test_an_image_that_is_named_by_header_and_by_data_counts_once(tmp_path: Path) -> None:
    cube = make_cube()
    header = write_envi(tmp_path / "flight.hdr", cube.transpose(2, 0, 1))
    report = pretrain(
        [header, header.with_suffix(".img")], tmp_path / "out.pt", replace(SHORT, steps=0)
    )
    assert report.images == ["flight"]
    assert report.windows == 20 * 24


def test_only_an_encoder_is_replaced(image: Path, tmp_path: Path) -> None:
    before = image.read_bytes()
    with pytest.raises(InvalidInputError, match=r"--out .*is no encoder") as refused:
        pretrain([image], image, SHORT)
    assert refused.value.kind == "invalid-option"
    assert image.read_bytes() == before
    out = tmp_path / "out.pt"
    out.touch()
    untrained = pretrain([image], out, replace(SHORT, steps=0))
    assert pretrain([image], out, SHORT).digest != untrained.digest


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (replace(SHORT, recipe="best"), "best"),
        (replace(SHORT, batch_size=1), "batch_size"),
        (replace(SHORT, steps=-1), "steps"),
        (replace(SHORT, seed=-1), "--seed"),
        (replace(SHORT, checkpoint_every=-1), "--checkpoint-every"),
        (replace(SHORT, device="tpu"), "--device"),
        (replace(SHORT, track="paper"), "--track"),
    ],
)
def test_an_option_that_cannot_be_is_named(
    options: PretrainOptions, named: str, image: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match=named):
        pretrain([image], tmp_path / "out.pt", options)


def test_nothing_to_train_on_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(ParcelleError, match="nowhere") as refused:
        pretrain([tmp_path / "nowhere"], tmp_path / "out.pt", SHORT)
    assert refused.value.kind in ("no-imagery", "file-not-found")


def test_the_loss_curve_is_drawn(image: Path, tmp_path: Path) -> None:
    options = replace(SHORT, steps=30, plots=tmp_path / "plots")
    pretrain([image], tmp_path / "out.pt", options)
    assert (tmp_path / "plots" / "loss.png").read_bytes().startswith(b"\x89PNG")
