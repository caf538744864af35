"""Images from strangers, decoded in a process that can be lost.

GDAL and the libraries below it read hundreds of formats in C; a file made for it may crash them, or
have them compute or ask for memory without end. So an upload is decoded by a process of its own
(``indexer.imagery.decoder``), which holds nothing of worth: no key, no password, no connection, no
folder but an empty one, and only so much memory and time. What it answers is numbers of a stated
shape and a few words, never objects of Python.
"""

import json
import logging
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from affine import Affine

from indexer.errors import ImageryError
from indexer.imagery.chip import Chip
from indexer.imagery.decoder import SIZES
from indexer.imagery.reader import MAX_CHIP_PX, ReadingOptions
from indexer.imagery.spectral_bands import SpectralBand
from indexer.imagery.uploads import MAX_SPECTRAL_LAYERS, MAX_SPECTRAL_VALUES, upload_name

DEFAULT_MEMORY_BYTES: Final = 2 << 30
DEFAULT_TIMEOUT_S: Final = 20.0

MAX_WAITING: Final = 8
"""Uploads that may wait for their turn, each in a thread."""

IMAGES_A_PROCESS: Final = 200
"""Whatever a library may lose or a file may have changed in it is gone after so many."""

_START_TIMEOUT_S: Final = 60
_MAX_HEAD_BYTES: Final = 1 << 20
_MAX_TOLD_BYTES: Final = 2_000
_CHUNK_BYTES: Final = 1 << 20
# What the operating system's loader needs; all else stays with the server.
_PASSED_ON: Final = ("LD_LIBRARY_PATH",)

_log = logging.getLogger(__name__)


class NotDecodedNowError(Exception):
    """The image may be fine, but cannot be decoded at the moment; its text says why."""


class _LostError(Exception):
    """The process ended, or does not answer in time."""


class _TooSlowError(_LostError):
    """It does not answer in time."""


class DecodingWorker:
    """Decodes uploads in one process, in turns; it is started at the first and kept for the next.

    A process that ends, does not answer in time, or has decoded ``IMAGES_A_PROCESS`` images is
    replaced. May be asked by several threads.

    Args:
        memory_bytes: Address space of the process.
        timeout_s: Seconds that one image may take, and processor seconds as well.
        most_bytes: Largest image.
        most_waiting: Uploads that may wait for their turn.
    """

    def __init__(
        self,
        *,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        most_bytes: int = 64 << 20,
        most_waiting: int = MAX_WAITING,
    ) -> None:
        self._setup = {
            "memory_bytes": memory_bytes,
            "timeout_s": timeout_s,
            "file_bytes": most_bytes,
        }
        self._timeout_s = timeout_s
        self._most_waiting = most_waiting
        self._taken_on = 0
        self._counting = threading.Lock()
        self._turn = threading.Lock()
        self._process: _Process | None = None

    @property
    def pid(self) -> int | None:
        """Of the process; None where none runs."""
        process = self._process
        return None if process is None else process.pid

    @property
    def taken_on(self) -> int:
        """Uploads that are being decoded or wait for it."""
        return self._taken_on

    def decode(
        self,
        content: bytes,
        name: str,
        options: ReadingOptions,
        wanted: tuple[SpectralBand, ...] | None = None,
    ) -> Chip:
        """Read an image that came over the network, as ``uploads.read_upload`` would.

        Returns:
            A chip without ``crs``: no question needs it, and its text would be parsed here.

        Raises:
            ImageryError: As ``read_upload``; ``upload-undecodable`` if the process was lost over
                it, ``too-large`` if it takes more memory than there is.
            NotDecodedNowError: If too many wait already, or no process can be started.
        """
        asked = {
            "name": name,
            "bands": options.bands,
            "baseline": options.baseline,
            "wanted": options.wanted,
            "spectral": None if wanted is None else [asdict(band) for band in wanted],
        }
        count = len(options.wanted) if wanted is None else len(wanted)
        with self._place():
            if not self._turn.acquire(timeout=self._timeout_s):
                raise NotDecodedNowError(
                    f"Other images took longer than {self._timeout_s:g} s; send it again."
                )
            try:
                return self._decoded(content, asked, count)
            finally:
                self._turn.release()

    def close(self) -> None:
        """End the process; the next image starts another."""
        with self._turn:
            self._end()

    @contextmanager
    def _place(self) -> Iterator[None]:
        """A place among those that wait, if there is one."""
        with self._counting:
            if self._taken_on > self._most_waiting:
                raise NotDecodedNowError(
                    f"{self._most_waiting} images wait to be read already; send it again in a "
                    "moment."
                )
            self._taken_on += 1
        try:
            yield
        finally:
            with self._counting:
                self._taken_on -= 1

    def _decoded(self, content: bytes, asked: Mapping[str, Any], bands: int) -> Chip:
        process = self._ready()
        name = f"{upload_name(asked['name'])}.tif"
        try:
            head, pixels = process.ask(asked, content, self._timeout_s)
            if "unexpected" in head:
                _log.warning("An upload that makes no sense: %s", head["unexpected"])
                raise _undecodable(name, "its content makes no sense")
            if "error" in head:
                raise _error(name, head["error"])
            return _chip(name, head, pixels, bands)
        except _TooSlowError:
            self._end()
            raise _undecodable(name, f"it takes longer than {self._timeout_s:g} s") from None
        except _LostError:
            cause = process.end()
            self._end()
            _log.warning("The process that reads uploads was lost (%s)", cause)
            raise _undecodable(name, "the process that reads it was lost over it") from None
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            self._end()
            _log.warning("The process that reads uploads answered nonsense: %r", error)
            raise _undecodable(name, "the process that reads it was lost over it") from None
        except ImageryError:
            raise
        except BaseException:
            # What it has not said yet must never be taken for its answer about the next image.
            self._end()
            raise

    def _ready(self) -> "_Process":
        """The process, or a new one where it is worn out or ended while nobody asked it."""
        if self._process is not None and not self._process.may_be_asked:
            self._end()
        if self._process is None:
            try:
                self._process = _Process.start(self._setup)
            except (OSError, _LostError) as error:
                _log.error("No process can be started to read an upload: %s", error)
                raise NotDecodedNowError(
                    "Images cannot be read just now; the service's log says why. Try again later."
                ) from None
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None


class _Process:
    """The running program, and the one folder that it may write to."""

    @classmethod
    def start(cls, setup: Mapping[str, Any]) -> "_Process":
        """Start it, and wait until it has given up what it does not need."""
        process = cls(setup)
        try:
            head, _ = process.receive(time.monotonic() + _START_TIMEOUT_S)
            _log.debug("A process for uploads: %s", head)
        except (_LostError, ValueError):
            cause = process.end()
            raise _LostError(f"{cause}; {process.last_words}") from None
        return process

    def __init__(self, setup: Mapping[str, Any]) -> None:
        self._asked = 0
        self.last_words = ""
        self._folder = tempfile.TemporaryDirectory(prefix="parcelle-decoding-")
        # What libraries print about a file may name anything, and goes nowhere but here.
        self._printed: BinaryIO = tempfile.TemporaryFile()
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-s", "-m", "indexer.imagery.decoder", json.dumps(setup)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._printed,
                bufsize=0,
                close_fds=True,
                cwd=self._folder.name,
                env=_environment(self._folder.name),
                # Ctrl+C lets running requests finish.
                process_group=0,
            )
        except OSError:
            self._folder.cleanup()
            self._printed.close()
            raise
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._to, self._from = self._child.stdin.fileno(), self._child.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def may_be_asked(self) -> bool:
        return self._asked < IMAGES_A_PROCESS and self._child.poll() is None

    def ask(
        self, asked: Mapping[str, Any], content: bytes, timeout_s: float
    ) -> tuple[dict[str, Any], bytes]:
        """What it answers.

        Raises:
            _LostError: If it ends, or says more than it should.
            _TooSlowError: If it takes too long.
        """
        self._asked += 1
        until = time.monotonic() + timeout_s
        head = json.dumps(asked).encode()
        _send(self._to, SIZES.pack(len(head), len(content)) + head, until)
        _send(self._to, content, until)
        return self.receive(until)

    def receive(self, until: float) -> tuple[dict[str, Any], bytes]:
        head_bytes, content_bytes = SIZES.unpack(_receive(self._from, SIZES.size, until))
        if head_bytes > _MAX_HEAD_BYTES or content_bytes > _MAX_ANSWER_BYTES:
            raise _LostError
        head = json.loads(_receive(self._from, head_bytes, until))
        content = _receive(self._from, content_bytes, until)
        if not isinstance(head, dict):
            raise _LostError
        return head, content

    def end(self) -> str:
        """End it if it has not ended, leave nothing behind, and tell how it ended."""
        if not self._printed.closed:
            # One that has just ended itself should be known by its own signal.
            try:
                self._child.wait(0.2)
            except subprocess.TimeoutExpired:
                self._child.kill()
            self._child.wait()
            self._printed.seek(0)
            self.last_words = self._printed.read(_MAX_TOLD_BYTES).decode("utf-8", "replace")
            for pipe in (self._child.stdin, self._child.stdout, self._printed):
                if pipe is not None:
                    pipe.close()
            self._folder.cleanup()
        code = self._child.returncode
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


# The larger of what a chip may hold: named bands and their masks, or a spectrum.
_MAX_ANSWER_BYTES: Final = (
    4 * max(16 * MAX_CHIP_PX**2, MAX_SPECTRAL_VALUES) + 2 * MAX_SPECTRAL_VALUES
)


def _environment(folder: str) -> dict[str, str]:
    """What the process is told; nothing of what the server's own environment holds."""
    packages = str(Path(__file__).resolve().parents[2])
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return passed_on | {
        "PYTHONPATH": packages,
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": folder,
        "TMPDIR": folder,
        "LC_ALL": "C.UTF-8",
        # Their threads would be started before it is confined.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        # In MiB; one image is read once.
        "GDAL_CACHEMAX": "64",
        "PROJ_NETWORK": "OFF",
    }


def _send(to: int, content: bytes, until: float) -> None:
    left = memoryview(content)
    while left:
        _wait(to, select.POLLOUT, until)
        try:
            left = left[os.write(to, left[:_CHUNK_BYTES]) :]
        except BlockingIOError:
            continue
        except OSError as error:
            raise _LostError from error


def _receive(source: int, count: int, until: float) -> bytes:
    got = bytearray()
    while len(got) < count:
        _wait(source, select.POLLIN, until)
        try:
            piece = os.read(source, min(_CHUNK_BYTES, count - len(got)))
        except BlockingIOError:
            continue
        if not piece:
            raise _LostError
        got += piece
    return bytes(got)


def _wait(descriptor: int, event: int, until: float) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
        raise _TooSlowError


def _undecodable(name: str, why: str) -> ImageryError:
    return ImageryError(
        f"{name}: cannot be read: {why}. Write it again as a plain GeoTIFF, such as by "
        "gdal_translate -of GTiff, and cut it to a chip.",
        kind="upload-undecodable",
    )


def _error(name: str, told: Mapping[str, Any]) -> ImageryError:
    """The error of the process, if it is one that reading an image can have."""
    kind, message = str(told["kind"]), told["message"]
    if kind == "too-large" and message is None:
        message = f"{name}: takes more memory than uploads are given. Cut it to a chip first."
    if kind not in ImageryError.KINDS:
        raise ValueError(kind[:60])
    return ImageryError(str(message)[:_MAX_TOLD_BYTES], kind=kind)


def _chip(name: str, head: Mapping[str, Any], pixels: bytes, bands: int) -> Chip:
    """The chip, of the very sizes that its head states."""
    height, width = (int(side) for side in head["shape"])
    names = tuple(str(band) for band in head["bands"])
    # A spectrum is bounded by its numbers, not by its sides.
    if not (0 < height and 0 < width and len(names) == bands <= MAX_SPECTRAL_LAYERS):
        raise ValueError("shape")
    area = height * width
    sizes = [4 * bands * area, area, area if head["scl"] else 0]
    if sum(sizes) != len(pixels):
        raise ValueError("size")
    reflectance = np.frombuffer(pixels, "<f4", bands * area)
    mask = np.frombuffer(pixels, np.uint8, area, sizes[0])
    scl = np.frombuffer(pixels, np.uint8, area, sizes[0] + area) if head["scl"] else None
    offset = head["stated_offset"]
    layer_bands = head["layer_bands"]
    return Chip(
        reflectance=reflectance.astype(np.float32).reshape(bands, height, width),
        bands=names,
        valid_mask=(mask != 0).reshape(height, width),
        transform=Affine(*(_finite(number) for number in head["transform"])),
        crs=None,
        scene=upload_name(str(head["scene"])),
        source=name,
        acquired_at=_time(head["acquired_at"]),
        processing_baseline=_short(head["processing_baseline"]),
        scl=None if scl is None else scl.reshape(height, width).copy(),
        stated_offset=None if offset is None else _finite(offset),
        layer_bands=None if layer_bands is None else tuple(str(band) for band in layer_bands),
    )


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError("not finite")
    return float(number)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _short(text: str | None) -> str | None:
    return None if text is None else str(text)[:60]
