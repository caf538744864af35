import hashlib
import importlib.metadata
import io
import socket
from collections.abc import Callable, Iterator
from http.client import IncompleteRead
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchgeo.models import CROMA, CROMABase_Weights, CROMALarge_Weights

from indexer.encoders import croma
from indexer.encoders.croma import ARCHITECTURES, IMAGE_PX, PATCH_PX, CromaEncoder
from indexer.encoders.weights import PARTS, Weights, is_at_hand, load_state, locate_weights
from indexer.errors import WeightsError
from indexer.sensors import Modality
from tests.synthetic import compute_position_bias_once

State = dict[str, Any]

LARGE = CROMALarge_Weights.CROMA_VIT
IMAGE = np.random.default_rng(0).random((1, 12, IMAGE_PX, IMAGE_PX), dtype=np.float32)
EVERYWHERE = [np.ones((1, 15, 15), dtype=np.float32)]


@pytest.fixture(scope="module", autouse=True)
def _quick_networks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        compute_position_bias_once(patch)
        yield


@pytest.fixture(scope="module")
def published(tiny_croma: str) -> CROMA:
    """A network of both modalities, such as the published files hold, with weights of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return CROMA(
            modalities=["sar", "optical"],
            patch_size=PATCH_PX,
            image_size=IMAGE_PX,
            **ARCHITECTURES[tiny_croma],
        ).eval()


@pytest.fixture(scope="module")
def expected(published: CROMA) -> np.ndarray[Any, Any]:
    """What the published network itself makes of the image."""
    with torch.inference_mode():
        radar = torch.zeros(1, 2, IMAGE_PX, IMAGE_PX)
        output = published(x_sar=radar, x_optical=torch.from_numpy(IMAGE))
    return np.asarray(output["optical_GAP"].numpy())


def parts_of(network: CROMA) -> State:
    """Layout of torchgeo's and of the authors' files: a state dict for each part."""
    names = ("s1_encoder", "s1_GAP_FFN", "s2_encoder", "s2_GAP_FFN", "joint_encoder")
    return {name: getattr(network, name).state_dict() for name in names}


def optical_parts_of(network: CROMA) -> State:
    parts = parts_of(network)
    return {name: parts[name] for name in ("s2_encoder", "s2_GAP_FFN")}


def flat_state_of(network: CROMA) -> State:
    """Layout of ``torch.save(network.state_dict())``; it holds the position bias, too."""
    return dict(network.state_dict())


def flat_optical_state_of(network: CROMA) -> State:
    state = flat_state_of(network)
    return {name: value for name, value in state.items() if name.startswith("s2_")}


LAYOUTS = (parts_of, optical_parts_of, flat_state_of, flat_optical_state_of)


def save(content: object, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def encode(name: str, weights: Weights) -> np.ndarray[Any, Any]:
    (rows,) = CromaEncoder(name, weights, device="cpu").encode(IMAGE, EVERYWHERE)
    return rows


def refusal(path: Path, encoder: str, modality: Modality = "optical") -> WeightsError:
    """The error with which a weight file is refused; it names the file."""
    weights = locate_weights(str(path), encoder)
    with pytest.raises(WeightsError) as caught:
        CromaEncoder(encoder, weights, device="cpu", modality=modality).load()
    assert str(path) in caught.value.message
    return caught.value


# A weight file in each layout


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "state_dict"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_holds_the_same_network(
    tmp_path: Path,
    tiny_croma: str,
    published: CROMA,
    expected: np.ndarray[Any, Any],
    layout: Callable[[CROMA], State],
    wrapped: bool,
) -> None:
    content = layout(published)
    path = save({"epoch": 7, "state_dict": content} if wrapped else content, tmp_path / "croma.pt")
    weights = locate_weights(str(path), tiny_croma)
    assert weights.kind == "file"
    assert weights.trained
    assert weights.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    np.testing.assert_allclose(encode(tiny_croma, weights), expected, atol=1e-5)


@pytest.mark.parametrize("layout", [parts_of, flat_state_of])
@pytest.mark.parametrize("modality", ["sar", "joint"])
def test_a_file_of_all_parts_holds_the_other_modalities(
    tmp_path: Path,
    tiny_croma: str,
    published: CROMA,
    modality: Modality,
    layout: Callable[[CROMA], State],
) -> None:
    path = save(layout(published), tmp_path / "croma.pt")
    weights = locate_weights(str(path), tiny_croma)
    image = np.random.default_rng(0).random((1, 14, IMAGE_PX, IMAGE_PX), dtype=np.float32)
    with torch.inference_mode():
        optical, radar = torch.split(torch.from_numpy(image), [12, 2], dim=1)
        expected = published(x_sar=radar, x_optical=optical)[f"{modality}_GAP"].numpy()
    encoder = CromaEncoder(tiny_croma, weights, device="cpu", modality=modality)
    (rows,) = encoder.encode(image[:, -len(encoder.bands) :], EVERYWHERE)
    np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_joint_embeddings_do_not_need_the_heads_of_the_others(
    tmp_path: Path, tiny_croma: str, published: CROMA
) -> None:
    parts = parts_of(published)
    del parts["s1_GAP_FFN"], parts["s2_GAP_FFN"]
    weights = locate_weights(str(save(parts, tmp_path / "croma.pt")), tiny_croma)
    CromaEncoder(tiny_croma, weights, device="cpu", modality="joint").load()


@pytest.mark.parametrize("layout", [parts_of, flat_state_of])
@pytest.mark.parametrize(
    ("modality", "part"), [(modality, part) for modality in PARTS for part in PARTS[modality]]
)
def test_a_part_that_is_missing_is_named(
    tmp_path: Path,
    tiny_croma: str,
    published: CROMA,
    modality: Modality,
    part: str,
    layout: Callable[[CROMA], State],
) -> None:
    content = {key: value for key, value in layout(published).items() if key.split(".")[0] != part}
    path = save(content, tmp_path / "croma.pt")
    error = refusal(path, tiny_croma, modality)
    assert error.kind == "weights-mismatch"
    assert f"holds no {modality} {tiny_croma}" in error.message
    assert f"it lacks {part}. Give" in error.message


def test_only_the_optical_parts_are_taken(tmp_path: Path, published: CROMA) -> None:
    path = save(parts_of(published), tmp_path / "croma.pt")
    state = load_state(path, "croma-large")
    assert {name.split(".")[0] for name in state} == {"s2_encoder", "s2_GAP_FFN"}
    assert len(state) == sum(len(part) for part in optical_parts_of(published).values())


def test_a_home_folder_may_be_written_as_a_tilde(
    tmp_path: Path, published: CROMA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = save(parts_of(published), tmp_path / "croma.pt")
    assert locate_weights("~/croma.pt", "croma-large").path == path


# Files that are refused


def test_a_missing_file_is_named_with_the_setting_that_named_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"missing\.pt, which is no file") as caught:
        locate_weights(str(tmp_path / "missing.pt"), "croma-large")
    assert caught.value.kind == "weights-not-found"
    assert "PARCELLE_CROMA_WEIGHTS" in caught.value.message
    assert "--weights" in caught.value.message


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.999])
def test_a_truncated_file_is_refused_by_name(
    tmp_path: Path, tiny_croma: str, published: CROMA, kept: float, zipped: bool
) -> None:
    buffer = io.BytesIO()
    torch.save(optical_parts_of(published), buffer, _use_new_zipfile_serialization=zipped)
    path = tmp_path / "croma.pt"
    path.write_bytes(buffer.getvalue()[: int(buffer.tell() * kept)])
    error = refusal(path, tiny_croma)
    assert error.kind == "weights-corrupt"
    assert "it is truncated" in error.message


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_are_refused_by_name(tmp_path: Path, tiny_croma: str, seed: int) -> None:
    path = tmp_path / "croma.pt"
    path.write_bytes(np.random.default_rng(seed).bytes(64))
    assert refusal(path, tiny_croma).kind == "weights-corrupt"


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, tiny_croma: str) -> None:
    trace = tmp_path / "trace"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (trace,)

    path = save({"s2_encoder": Payload(), "s2_GAP_FFN": {}}, tmp_path / "croma.pt")
    error = refusal(path, tiny_croma)
    assert error.kind == "weights-corrupt"
    assert "holds more than tensors" in error.message
    assert "can still be loaded" not in error.message
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the payload works where it is not refused"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"conv1.weight": torch.zeros(4), "fc.bias": torch.zeros(4)}, "conv1.weight, fc.bias"),
        ({"s1_encoder": {}, "s1_GAP_FFN": {}}, "s1_encoder, s1_GAP_FFN"),
        ({}, "found )"),
        ([torch.zeros(4)], "no dict"),
    ],
    ids=["another model", "radar only", "empty", "list"],
)
def test_a_file_without_an_optical_encoder_is_refused_with_what_it_holds(
    tmp_path: Path, tiny_croma: str, content: object, found: str
) -> None:
    error = refusal(save(content, tmp_path / "model.pt"), tiny_croma)
    assert error.kind == "weights-mismatch"
    assert f"holds no optical {tiny_croma}" in error.message
    assert found in error.message


def test_the_weights_of_a_wider_network_are_refused(
    tmp_path: Path, tiny_croma: str, published: CROMA, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(parts_of(published), tmp_path / "croma.pt")
    narrow = ARCHITECTURES[tiny_croma] | {"encoder_dim": 256}
    monkeypatch.setitem(croma.ARCHITECTURES, "croma-narrow", narrow)
    error = refusal(path, "croma-narrow")
    assert error.kind == "weights-mismatch"
    assert "not the weights of croma-narrow" in error.message
    assert "size mismatch" in error.message


@pytest.mark.parametrize("key", ["s2_encoder", "s2_GAP_FFN"])
def test_a_file_that_lacks_a_layer_is_refused(
    tmp_path: Path, tiny_croma: str, published: CROMA, key: str
) -> None:
    parts = optical_parts_of(published)
    parts[key] = dict(list(parts[key].items())[1:])
    error = refusal(save(parts, tmp_path / "croma.pt"), tiny_croma)
    assert error.kind == "weights-mismatch"
    assert "Missing key" in error.message


def test_a_file_with_a_layer_too_many_is_refused(
    tmp_path: Path, tiny_croma: str, published: CROMA
) -> None:
    parts = optical_parts_of(published)
    parts["s2_encoder"] = parts["s2_encoder"] | {"head.weight": torch.zeros(4)}
    error = refusal(save(parts, tmp_path / "croma.pt"), tiny_croma)
    assert error.kind == "weights-mismatch"
    assert "Unexpected key" in error.message


# The published file


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch keeps what it downloaded; empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def tiny_large(monkeypatch: pytest.MonkeyPatch, tiny_croma: str) -> str:
    """CROMA-Large, shrunk, so that the whole pretrained path may be walked."""
    monkeypatch.setitem(croma.ARCHITECTURES, "croma-large", ARCHITECTURES[tiny_croma])
    return "croma-large"


def publish(content: bytes, monkeypatch: pytest.MonkeyPatch) -> str:
    """Pretend that these bytes are published; returns the name of the file."""
    name = f"CROMA_large-{hashlib.sha256(content).hexdigest()[:8]}.pt"
    monkeypatch.setattr(LARGE.value, "url", f"https://weights.example/{name}")
    return name


def saved_bytes(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def never(*_: object, **__: object) -> None:
    raise AssertionError("nothing is to be downloaded")


def test_the_published_file_in_the_cache_is_checked_and_used(
    checkpoints: Path,
    tiny_large: str,
    published: CROMA,
    expected: np.ndarray[Any, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", never)
    content = saved_bytes(parts_of(published))
    path = checkpoints / publish(content, monkeypatch)
    checkpoints.mkdir(parents=True)
    path.write_bytes(content)

    weights = locate_weights("pretrained", tiny_large)

    assert weights == Weights("pretrained", hashlib.sha256(content).hexdigest(), path)
    assert weights.trained
    np.testing.assert_allclose(encode(tiny_large, weights), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("encoder", "published_weights"),
    [("croma-large", LARGE), ("croma-base", CROMABase_Weights.CROMA_VIT)],
)
def test_a_file_of_the_published_name_with_another_digest_is_refused(
    checkpoints: Path,
    encoder: str,
    published_weights: Any,  # noqa: ANN401 - a member of torchvision's enum, which is not typed
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", never)
    name = published_weights.url.rsplit("/", 1)[1]
    checkpoints.mkdir(parents=True)
    (checkpoints / name).write_bytes(b"damaged on its way")
    with pytest.raises(WeightsError, match="its SHA-256 begins with") as caught:
        locate_weights("pretrained", encoder)
    assert caught.value.kind == "weights-corrupt"
    digest = hashlib.sha256(b"damaged on its way").hexdigest()
    for part in (str(checkpoints / name), digest[:8], name.split("-")[1].removesuffix(".pt")):
        assert part in caught.value.message


def test_what_is_not_in_the_cache_is_downloaded_once_and_checked(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"weights"
    name = publish(content, monkeypatch)
    asked: list[tuple[str, str | None]] = []

    def download(url: str, to: str, hash_prefix: str | None = None, progress: bool = True) -> None:
        asked.append((url, hash_prefix))
        Path(to).write_bytes(content)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    digest = hashlib.sha256(content).hexdigest()
    for _ in range(2):
        weights = locate_weights("pretrained", "croma-large")
        assert weights == Weights("pretrained", digest, checkpoints / name)
    assert asked == [(f"https://weights.example/{name}", digest[:8])]


@pytest.mark.parametrize(
    "problem",
    [
        URLError("no route to host"),
        TimeoutError("timed out"),
        IncompleteRead(b"half", 4),
        OSError(28, "No space left on device"),
        RuntimeError('invalid hash value (expected "921e69ad", got "00000000")'),
    ],
    ids=lambda problem: type(problem).__name__,
)
def test_a_download_that_fails_says_where_from_where_to_and_which_setting(
    checkpoints: Path, problem: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        assert socket.getdefaulttimeout() is not None, "a silent firewall must not hold us for ever"
        raise problem

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(WeightsError) as caught:
        locate_weights("pretrained", "croma-large")
    assert caught.value.kind == "weights-not-found"
    target = checkpoints / LARGE.url.rsplit("/", 1)[1]
    parts = (LARGE.url, str(problem), str(target), "PARCELLE_CROMA_WEIGHTS", "--weights untrained")
    for part in parts:
        assert part in caught.value.message
    assert socket.getdefaulttimeout() is None
    assert list(checkpoints.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_a_weights_error(
    tmp_path: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", never)
    (tmp_path / "torch").write_text("a file where a folder should be", encoding="utf-8")
    with pytest.raises(WeightsError, match=str(checkpoints)) as caught:
        locate_weights("pretrained", "croma-large")
    assert caught.value.kind == "weights-not-found"


# Untrained


@pytest.fixture
def own_rng_state() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.mark.usefixtures("own_rng_state")
def test_untrained_weights_are_the_same_each_time(tiny_croma: str) -> None:
    weights = locate_weights("untrained", tiny_croma)
    outputs = []
    for seed in (11, 12):
        torch.manual_seed(seed)
        outputs.append(encode(tiny_croma, weights))
    np.testing.assert_array_equal(outputs[0], outputs[1])


@pytest.mark.usefixtures("own_rng_state")
def test_building_a_network_does_not_disturb_the_random_numbers_of_others(tiny_croma: str) -> None:
    torch.manual_seed(11)
    expected = torch.rand(4)
    torch.manual_seed(11)
    CromaEncoder(tiny_croma, locate_weights("untrained", tiny_croma), device="cpu").load()
    assert torch.equal(torch.rand(4), expected)


def test_untrained_weights_are_named_by_what_makes_them_reproducible() -> None:
    weights = locate_weights("untrained", "croma-large")
    assert weights.kind == "untrained"
    assert not weights.trained
    assert weights.path is None
    for part in ("seed 0", f"torch {torch.__version__}".split("+")[0], "torchgeo"):
        assert part in weights.digest
    assert importlib.metadata.version("torchgeo") in weights.digest


# At hand


def test_what_is_at_hand_is_known_without_a_network(
    tmp_path: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_at_hand("untrained")
    assert not is_at_hand("pretrained")
    assert not is_at_hand(str(tmp_path / "croma.pt"))
    (tmp_path / "croma.pt").touch()
    assert is_at_hand(str(tmp_path / "croma.pt"))
    checkpoints.mkdir(parents=True)
    (checkpoints / LARGE.url.rsplit("/", 1)[1]).touch()
    assert is_at_hand("pretrained")
