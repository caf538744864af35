"""Uploads in a process of their own: what it may not, and that losing it loses one image only."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio

from indexer.errors import ImageryError
from indexer.imagery.decoding import DecodingWorker, NotDecodedNowError
from indexer.imagery.reader import ReadingOptions
from indexer.imagery.uploads import read_upload
from indexer.sensors import PROFILES
from tests.indexer.imagery.test_uploads import NAME, OPTIONS, written
from tests.retriever.planted import write_image

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

CONFINED = """
import json, os, socket, sys
from pathlib import Path
from indexer.imagery.confinement import confine
from indexer.imagery.decoder import _libraries

secret, own = Path(sys.argv[1]), Path(sys.argv[2])
got = confine(memory_bytes=1 << 30, file_bytes=1000, readable=_libraries(), writable=own)
found = {"files": got.files, "network": got.network}

def tried(what):
    try:
        what()
    except BaseException as error:
        return type(error).__name__
    return "done"

found["read"] = tried(secret.read_bytes)
found["list"] = tried(lambda: os.listdir(secret.parent))
found["write"] = tried(lambda: (secret.parent / "new").write_bytes(b"x"))
found["own"] = tried(lambda: (own / "new").write_bytes(b"x"))
found["much"] = tried(lambda: (own / "much").write_bytes(b"x" * 2000))
found["connect"] = tried(lambda: socket.create_connection(("127.0.0.1", int(sys.argv[3])), 5))
found["memory"] = tried(lambda: bytearray(2 << 30))
found["many"] = tried(lambda: [os.dup(0) for _ in range(100)])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def worker() -> Iterator[DecodingWorker]:
    """One that is asked for images that are fine, or refused by name."""
    worker = DecodingWorker()
    yield worker
    worker.close()


@pytest.fixture
def lost() -> Iterator[Callable[..., DecodingWorker]]:
    """Workers with limits of their own."""
    made: list[DecodingWorker] = []

    def make(**limits: float) -> DecodingWorker:
        made.append(DecodingWorker(**limits))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("image") / NAME
    write_image(path, seed=1)
    return path.read_bytes()


def refusal(worker: DecodingWorker, content: bytes, name: str = NAME) -> ImageryError:
    with pytest.raises(ImageryError) as caught:
        worker.decode(content, name, OPTIONS)
    assert "/" not in caught.value.message, "a path of the server is told"
    return caught.value


def pid_of(worker: DecodingWorker) -> int:
    pid = worker.pid
    assert pid is not None
    return pid


def bomb(path: Path, tile_px: int, layers: int) -> bytes:
    """A small image whose one tile unpacks to ``2 * layers * tile_px ** 2`` bytes."""
    profile = {"tiled": True, "blockxsize": tile_px, "blockysize": tile_px, "interleave": "pixel"}
    written(path, count=layers, compress="zstd", zstd_level=1, sparse_ok=False, **profile)
    with rasterio.open(path, "r+") as file:
        file.descriptions = PROFILES["l2a"][:layers]
        file.write(np.ones((layers, 16, 16), np.uint16))
    return path.read_bytes()


# What comes out ------------------------------------------------------------------------------


def test_a_chip_is_the_same_as_read_in_this_process(worker: DecodingWorker, image: bytes) -> None:
    far, near = worker.decode(image, NAME, OPTIONS), read_upload(image, NAME, OPTIONS)
    np.testing.assert_array_equal(far.reflectance, near.reflectance)
    np.testing.assert_array_equal(far.valid_mask, near.valid_mask)
    assert far.valid_mask.dtype == np.bool_
    for name in ("bands", "transform", "scene", "source", "acquired_at", "processing_baseline"):
        assert getattr(far, name) == getattr(near, name)
    assert (far.stated_offset, far.layer_bands) == (near.stated_offset, near.layer_bands)
    assert far.crs is None


def test_what_the_sender_says_of_bands_and_baseline_counts(
    worker: DecodingWorker, tmp_path: Path
) -> None:
    path = tmp_path / "plain.tif"
    written(path, count=2)
    with rasterio.open(path, "r+") as file:
        file.write(np.full((2, 16, 16), 2000, np.uint16))
    options = ReadingOptions(bands=("B04", "B08"), baseline="04.00", wanted=("B08", "B04"))
    chip = worker.decode(path.read_bytes(), "plain.tif", options)
    assert chip.bands == ("B08", "B04")
    # (2000 - 1000) / 10000 since baseline 04.00.
    np.testing.assert_allclose(chip.reflectance, 0.1)


def test_a_refusal_says_the_same_as_in_this_process(worker: DecodingWorker) -> None:
    error = refusal(worker, b"not an image")
    with pytest.raises(ImageryError) as near:
        read_upload(b"not an image", NAME, OPTIONS)
    assert (error.kind, error.message) == (near.value.kind, near.value.message)


def test_images_are_decoded_by_one_process(worker: DecodingWorker, image: bytes) -> None:
    worker.decode(image, NAME, OPTIONS)
    first = pid_of(worker)
    refusal(worker, b"not an image")
    worker.decode(image, NAME, OPTIONS)
    assert worker.pid == first


# What is lost, and what goes on --------------------------------------------------------------


def test_a_tile_that_unpacks_to_more_than_the_memory_is_too_large_and_the_next_is_read(
    lost: Callable[..., DecodingWorker], image: bytes, tmp_path: Path
) -> None:
    # 12 bands of 4,720 x 4,720 px of 2 bytes: 535 MB, which no header that is checked gives away.
    content = bomb(tmp_path / "bomb.tif", 4_720, 12)
    assert len(content) < 1 << 20
    worker = lost(memory_bytes=512 << 20)
    error = refusal(worker, content)
    assert error.kind == "too-large"
    assert "more memory" in error.message
    assert worker.decode(image, NAME, OPTIONS).shape


@pytest.mark.parametrize("ending", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_process_that_ends_over_an_image_costs_that_image_alone(
    lost: Callable[..., DecodingWorker], image: bytes, ending: signal.Signals
) -> None:
    worker = lost()
    worker.decode(image, NAME, OPTIONS)
    first = pid_of(worker)
    # Held, so that the signal finds it over the image.
    os.kill(first, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(refusal, worker, image)
        time.sleep(0.2)
        os.kill(first, ending)
        os.kill(first, signal.SIGCONT)
        error = asking.result(30)
    assert error.kind == "upload-undecodable"
    assert "gdal_translate" in error.message
    assert worker.decode(image, NAME, OPTIONS).shape
    assert worker.pid != first


def test_a_process_that_ended_while_idle_is_replaced_without_a_word(
    lost: Callable[..., DecodingWorker], image: bytes
) -> None:
    worker = lost()
    worker.decode(image, NAME, OPTIONS)
    first = pid_of(worker)
    os.kill(first, signal.SIGSEGV)
    while Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    assert worker.decode(image, NAME, OPTIONS).shape
    assert worker.pid != first


def test_a_process_that_hangs_is_given_up_and_replaced(
    lost: Callable[..., DecodingWorker], image: bytes
) -> None:
    worker = lost(timeout_s=1)
    worker.decode(image, NAME, OPTIONS)
    first = pid_of(worker)
    os.kill(first, signal.SIGSTOP)
    # More than a pipe holds, so that sending it hangs as well.
    error = refusal(worker, image + b"\0" * (4 << 20))
    assert error.kind == "upload-undecodable"
    assert "longer than 1 s" in error.message
    assert worker.decode(image, NAME, OPTIONS).shape
    assert worker.pid != first


def test_half_an_answer_is_never_taken_for_that_about_the_next_image(
    lost: Callable[..., DecodingWorker], image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = lost()
    first = worker.decode(image, NAME, OPTIONS)

    def refuse(*_: object) -> bytes:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("indexer.imagery.decoding._receive", refuse)
        with pytest.raises(MemoryError):
            worker.decode(image, "another.tif", OPTIONS)
    assert worker.pid is None
    assert worker.decode(image, NAME, OPTIONS).scene == first.scene


def test_a_worn_out_process_is_replaced(
    lost: Callable[..., DecodingWorker], image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.imagery.decoding.IMAGES_A_PROCESS", 2)
    worker = lost()
    pids = []
    for _ in range(4):
        worker.decode(image, NAME, OPTIONS)
        pids.append(worker.pid)
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_nothing_is_left_of_it(
    lost: Callable[..., DecodingWorker],
    image: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    worker = lost(timeout_s=1)
    worker.decode(image, NAME, OPTIONS)
    assert [path.name[:18] for path in tmp_path.iterdir()] == ["parcelle-decoding-"]
    os.kill(pid_of(worker), signal.SIGSTOP)
    refusal(worker, image)
    assert list(tmp_path.iterdir()) == []
    worker.decode(image, NAME, OPTIONS)
    worker.close()
    assert list(tmp_path.iterdir()) == []


def test_a_process_whose_server_is_gone_ends_by_itself(image: bytes, tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from indexer.imagery.decoding import DecodingWorker\n"
        "from indexer.imagery.reader import ReadingOptions\n"
        "worker = DecodingWorker()\n"
        "worker.decode(sys.stdin.buffer.read(), 'a.tif', ReadingOptions())\n"
        "print(worker.pid, flush=True)\n"
        "os._exit(9)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], input=image, capture_output=True, timeout=60, check=False
    )
    assert ran.returncode == 9, ran.stderr
    place = Path(f"/proc/{int(ran.stdout)}/stat")
    until = time.monotonic() + 30
    while place.exists() and place.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < until
        time.sleep(0.02)


# How many ------------------------------------------------------------------------------------


def test_uploads_beyond_those_that_may_wait_are_refused_at_once_and_the_others_are_read(
    lost: Callable[..., DecodingWorker], image: bytes
) -> None:
    worker = lost(most_waiting=2)
    worker.decode(image, NAME, OPTIONS)
    os.kill(pid_of(worker), signal.SIGSTOP)
    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(worker.decode, image, NAME, OPTIONS) for _ in range(3)]
        while worker.taken_on < 3:
            time.sleep(0.01)
        with pytest.raises(NotDecodedNowError, match="2 images wait"):
            worker.decode(image, NAME, OPTIONS)
        os.kill(pid_of(worker), signal.SIGCONT)
        assert {one.result(30).shape for one in asking} == {(120, 120)}
    assert worker.taken_on == 0


def test_a_process_that_cannot_be_started_is_told_as_such(
    lost: Callable[..., DecodingWorker],
    image: bytes,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = lost()
    with monkeypatch.context() as patch:
        patch.setattr("sys.executable", "/nowhere/python")
        with pytest.raises(NotDecodedNowError, match="log says why") as caught:
            worker.decode(image, NAME, OPTIONS)
    assert "nowhere" not in str(caught.value)
    assert "No process can be started to read an upload" in caplog.text
    assert worker.decode(image, NAME, OPTIONS).shape


# What it holds -------------------------------------------------------------------------------


@linux
def test_it_knows_no_secret_and_inherits_no_file(
    lost: Callable[..., DecodingWorker],
    image: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (
        "PARCELLE_API_KEYS",
        "PARCELLE_DATABASE_URL",
        "PGPASSWORD",
        "AWS_SECRET_ACCESS_KEY",
    ):
        monkeypatch.setenv(name, "sesame")
    worker = lost()
    with (tmp_path / "database").open("w+b") as held:
        os.set_inheritable(held.fileno(), True)
        worker.decode(image, NAME, OPTIONS)
        process = Path(f"/proc/{worker.pid}")
        opened = [os.readlink(one) for one in (process / "fd").iterdir()]
    assert b"sesame" not in (process / "environ").read_bytes()
    assert b"sesame" not in (process / "cmdline").read_bytes()
    assert str(tmp_path / "database") not in opened
    limits = (process / "limits").read_text()
    assert "Max core file size        0                    0" in limits
    assert f"Max address space         {2 << 30}           {2 << 30}" in limits
    assert "NoNewPrivs:\t1" in (process / "status").read_text()


@linux
def test_a_confined_process_reaches_no_file_no_network_and_no_more_memory(tmp_path: Path) -> None:
    secret, own = tmp_path / "data" / "parcelle.db", tmp_path / "own"
    secret.parent.mkdir()
    own.mkdir()
    secret.write_bytes(b"the catalog")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        ran = subprocess.run(
            [sys.executable, "-c", CONFINED, str(secret), str(own), port],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            capture_output=True,
            timeout=60,
            check=True,
        )
    found = json.loads(ran.stdout)
    assert (found["own"], found["much"], found["memory"], found["many"]) == (
        "done",
        "OSError",
        "MemoryError",
        "OSError",
    )
    if not found["files"]:
        pytest.skip("this kernel has no Landlock: files are kept from it by their rights alone")
    assert {found[one] for one in ("read", "list", "write")} == {"PermissionError"}
    assert found["connect"] in {"PermissionError", "OSError", "ConnectionRefusedError"}


@linux
def test_a_process_that_computes_without_end_is_ended_by_the_kernel() -> None:
    code = "from indexer.imagery.confinement import limit_cpu\nlimit_cpu(0.1)\nwhile True: pass\n"
    ran = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert ran.returncode == -signal.SIGXCPU


# What it answers -----------------------------------------------------------------------------


def answering(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: bytes) -> None:
    """Have a program answer in place of the real one, as if a file had taken it over."""
    package = tmp_path / "indexer" / "imagery"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    ready = struct.pack(">IQ", 2, 0) + b"{}"
    (package / "decoder.py").write_text(
        "import os\n"
        f"os.write(1, {ready!r})\n"
        "os.read(0, 1)\n"
        f"os.write(1, {answer!r})\n"
        "while os.read(0, 1 << 20):\n    pass\n"
    )
    real = "indexer.imagery.decoding._environment"
    monkeypatch.setattr(real, lambda folder: {"PYTHONPATH": str(tmp_path)})


def message(head: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">IQ", len(head), len(content)) + head + content


HEAD = (
    b'{"bands": ["B04"], "shape": %s, "transform": [1, 0, 0, 0, 1, 0], "scene": "x", "scl": false,'
    b'"acquired_at": null, "processing_baseline": null, "stated_offset": null, "layer_bands": null}'
)


@pytest.mark.parametrize(
    "answer",
    [
        struct.pack(">IQ", 2**32 - 1, 0),
        struct.pack(">IQ", 2, 2**62),
        message(b"not JSON"),
        message(b"[]"),
        message(b"{}"),
        message(b"\x80\x04\x95\x00."),
        message(b'{"error": {"kind": "parcel-not-found", "message": "x"}}'),
        message(b'{"error": 1}'),
        message(HEAD % b"[1, 1]", b"12345678"),
        message(HEAD % b"[1000000000, 1000000000]", b"1234"),
        message(HEAD % b"[-1, -5]", b"12345" * 5),
        message(HEAD % b"[0, 0]"),
        message((HEAD % b"[1, 1]").replace(b'"B04"', b'"B04", "B08"'), b"123456789"),
        message((HEAD % b"[1, 1]").replace(b"[1, 0, 0,", b"[1e999, 0, 0,"), b"12345"),
    ],
)
def test_an_answer_that_is_no_chip_of_its_size_is_not_taken(
    lost: Callable[..., DecodingWorker],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    answer: bytes,
) -> None:
    answering(monkeypatch, tmp_path, answer)
    worker = lost(timeout_s=5)
    with pytest.raises(ImageryError) as caught:
        worker.decode(b"x", NAME, ReadingOptions(wanted=("B04",)))
    assert caught.value.kind == "upload-undecodable"
    assert worker.pid is None


def test_the_fake_answer_of_these_tests_is_taken_where_it_is_right(
    lost: Callable[..., DecodingWorker], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answering(monkeypatch, tmp_path, message(HEAD % b"[1, 1]", struct.pack("<fB", 0.5, 2)))
    chip = lost().decode(b"x", NAME, ReadingOptions(wanted=("B04",)))
    assert chip.reflectance.tolist() == [[[0.5]]]
    assert chip.valid_mask.tolist() == [[True]]
