"""Commands that meet trouble at a chosen moment, and what is left then; a program that tries many.

Each trial copies a data folder, runs a command on it in a process of its own that meets the
trouble, looks at what is left, and runs the command again, undisturbed. What may be left is known
from a run without trouble, of which a copy was kept after each commit: what was committed for sure
is there, and at most the one commit more that was under way.

Everything forks from one process, because importing takes longer than any of the commands.
"""

import ctypes
import errno
import gc
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from api.cli import main
from indexer.settings import Settings
from retriever.search import ParcelSearcher
from tests.faults.states import State, ask, files_of, state_of
from tests.faults.steps import COMMITTED, COMMITTING, watch
from tests.indexer.one_layer import one_layer_installed

ROOT = Path(__file__).parents[2]

DATA_DIR = "{data_dir}"
"""In an argument, the data folder of the trial."""

_AT_ONCE = 2

_ATTEMPTS = 4
"""To meet a command at a moment before its end."""

_ROOM = 256 << 20
"""Bytes of a disk that does not fill."""

_DECIDING = ("os.rename", "os.remove", "os.rmdir", "fsync", COMMITTING, COMMITTED)
"""Steps at which a command is killed in any case."""

_FEW = {
    "killed at a step": 8,
    "killed in a call": 2,
    "flush fails": 3,
    "every flush fails": 2,
}
"""Trials in short runs, of those that there could be; of commands ``alike``, a third."""

TROUBLES = {
    "killed at a step": "SIGKILL before each step",
    "killed at a moment": "SIGKILL at random moments",
    "killed in a call": "death inside the database's own writes and flushes",
    "flush fails": "fsync fails with EIO, at each call",
    "every flush fails": "fsync fails with EIO from a step on, SQLite's too",
    "disk full": "no space left on the disk",
}


@dataclass(frozen=True)
class Ordeal:
    """A command, and the trouble that it meets."""

    name: str
    before: str
    """The data folder that it begins with; never changed."""
    command: tuple[str, ...]
    """Arguments of ``parcelle``; ``DATA_DIR`` stands for the data folder."""
    trouble: str
    """One of ``TROUBLES``."""
    rounds: int = 20
    """Trials at random moments, or of random sizes; more than one means all steps."""
    seed: int = 0
    numbered: bool = True
    """Whether a second run leaves the generation's number as it is."""
    refused: bool = False
    """Whether the command refuses what is done already, as wrong usage."""
    alike: bool = False
    """Whether another command takes the same steps, so that short runs try a part of them."""


@dataclass
class Tried:
    """What became of an ordeal."""

    name: str
    trouble: str
    trials: int = 0
    met: int = 0
    """Trials in which the command was killed, or failed."""
    complaints: list[str] = field(default_factory=list)
    """What was not as it must be."""
    steps: list[str] = field(default_factory=list)
    """Names of the steps of the undisturbed run."""


class Laboratory:
    """A process that tries ordeals, one after the other; used as a context.

    Args:
        scratch: An empty folder.
    """

    def __init__(self, scratch: Path) -> None:
        self.mounts = can_mount()
        command = [sys.executable, "-m", "tests.faults.ordeals", str(scratch)]
        if self.mounts:
            # Whatever it mounts is gone when it ends.
            command = [*unshare(), *command]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PARCELLE_")
        }
        # Threads would not survive the forks, and so many processes at once have none to spare.
        environment |= {
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PARCELLE_CROMA_WEIGHTS": "untrained",
        }
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def endure(self, ordeal: Ordeal) -> Tried:
        """Try it out."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(ordeal)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the laboratory came to an end; see its stderr")
        return Tried(**json.loads(line))

    def __enter__(self) -> "Laboratory":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def unshare() -> list[str]:
    """Runs a program that may mount, and whatever it mounts is gone when it ends."""
    return ["unshare", "-m" if os.geteuid() == 0 else "-rm"]


@lru_cache
def can_mount() -> bool:
    """Whether a disk of a few MiB can be had: as root, or in a namespace of one's own."""
    trial = "mount -t tmpfs -o size=4k tmpfs /mnt"
    try:
        done = subprocess.run([*unshare(), "sh", "-c", trial], stderr=subprocess.DEVNULL)
    except OSError:
        return False
    return done.returncode == 0


def _main(scratch: Path) -> None:
    # What the commands write must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    warm = set()
    if can_mount():
        # What is killed here need not reach a disk; that the commands flush is tried elsewhere.
        _mount("-t", "tmpfs", "tmpfs", str(scratch))
    with one_layer_installed():
        for line in sys.stdin:
            fields = json.loads(line)
            ordeal = Ordeal(**{**fields, "command": tuple(fields["command"])})
            try:
                if ordeal.command not in warm:
                    warm.add(ordeal.command)
                    _warm_up(ordeal, scratch / "warm")
                    # What is there by now is not moved about, and so not copied into each child.
                    gc.collect()
                    gc.freeze()
                tried = _Trials(ordeal, scratch).all()
            except Exception:
                tried = Tried(ordeal.name, ordeal.trouble, complaints=[traceback.format_exc()])
            answers.write(json.dumps(asdict(tried)) + "\n")
            answers.flush()


def _warm_up(ordeal: Ordeal, folder: Path) -> None:
    """Let the libraries load once what each process would load for itself."""
    _copy(Path(ordeal.before), folder)
    shown = os.dup(2)
    os.dup2(1, 2)
    try:
        _parcelle(ordeal.command, folder)
        state_of(_settings(folder))
    finally:
        os.dup2(shown, 2)
        os.close(shown)
    shutil.rmtree(folder)


def _parcelle(arguments: Sequence[str], data_dir: Path) -> int:
    """Run a command on a data folder; its exit code."""
    os.environ["PARCELLE_DATA_DIR"] = str(data_dir)
    try:
        main([argument.replace(DATA_DIR, str(data_dir)) for argument in arguments])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def _settings(folder: Path) -> Settings:
    return Settings(data_dir=folder, database_url="", croma_weights="untrained")


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)


def _pages(folder: Path) -> int:
    """What a disk needs for the files there, in pages of 4 KiB."""
    return sum(-(-path.stat().st_size // 4096) for path in folder.rglob("*") if path.is_file())


# Processes -----------------------------------------------------------------------------------


def _in_a_child(task: Callable[[], int | None]) -> tuple[int, str]:
    """Status of a process that does a task, and what it wrote."""
    output = os.memfd_create("output")
    child = os.fork()
    if child == 0:
        _be(task, output)
    _, status = os.waitpid(child, 0)
    return status, _read(output)


def _be(task: Callable[[], int | None], output: int) -> None:
    """Do a task, and nothing that this process would do afterwards."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = 70
    try:
        code = task() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _read(descriptor: int) -> str:
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        return file.read().decode(errors="replace")


# Trouble -------------------------------------------------------------------------------------


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


_FSYNCS = {"x86_64": (74, 75), "aarch64": (82, 83)}
"""Numbers of fsync and fdatasync (Linux, ``asm/unistd.h``)."""

_WRITES = {"x86_64": (18,), "aarch64": (68,)}
"""Number of pwrite64, with which SQLite writes."""

_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""``AUDIT_ARCH_*`` (``linux/audit.h``)."""

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2
_KILL_PROCESS, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000


class _Filter(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def forbid(calls: Sequence[int], verdict: int) -> None:
    """Let the kernel end this thread's process, or fail, at any of some system calls.

    Args:
        calls: Their numbers.
        verdict: ``_KILL_PROCESS``, or ``_ERRNO`` with the error's number.

    References:
        https://docs.kernel.org/userspace-api/seccomp_filter.html
    """
    # Load the call's number; jump to the verdict if it is one of them; else allow.
    rules = [(0x20, 0, 0, 0)]
    rules += [(0x15, len(calls) - place, 0, call) for place, call in enumerate(calls)]
    rules += [(0x06, 0, 0, _ALLOW), (0x06, 0, 0, verdict)]
    packed = b"".join(
        code.to_bytes(2, sys.byteorder) + bytes((yes, no)) + value.to_bytes(4, sys.byteorder)
        for code, yes, no, value in rules
    )
    buffer = ctypes.create_string_buffer(packed, len(packed))
    program = _Filter(len(rules), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "this kernel installs no filter")


def _fail_at_flush(number: int) -> None:
    """Let the n-th flush of a file fail, as a disk does that loses what it was given."""
    real, calls = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    os.fsync = fsync  # type: ignore[assignment]


# Trials --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Undisturbed:
    """A run without trouble."""

    steps: list[str]
    legal: list[State]
    """What may be left: before it, after each commit, and in the end."""
    files: list[str]
    seconds: float
    pages: int
    """Of 4 KiB, that the disk needs at most besides what is there before."""


class _Trials:
    """All trials of one ordeal."""

    _known: ClassVar[dict[tuple[str, tuple[str, ...]], _Undisturbed]] = {}

    def __init__(self, ordeal: Ordeal, scratch: Path) -> None:
        self.ordeal = ordeal
        self.folder = Path(tempfile.mkdtemp(dir=scratch))
        self.tried = Tried(ordeal.name, ordeal.trouble)
        self.legal: list[State] = []
        self.files: list[str] = []
        self.seconds = 0.0
        self.pages = 1

    def all(self) -> Tried:
        """Try them."""
        self._undisturbed()
        moments = self._moments()
        running: dict[int, int] = {}
        for number in moments:
            if len(running) == _AT_ONCE:
                self._collect(running)
            output = os.memfd_create("trial")
            child = os.fork()
            if child == 0:
                _be(lambda number=number: self._report(number), output)  # type: ignore[misc]
            running[child] = output
        while running:
            self._collect(running)
        shutil.rmtree(self.folder)
        return self.tried

    def _collect(self, running: dict[int, int]) -> None:
        child, _ = os.wait()
        told = _read(running.pop(child))
        self.tried.trials += 1
        try:
            found = json.loads(told.splitlines()[-1])
        except (ValueError, IndexError):
            self.tried.complaints.append(f"the trial itself failed: {told[-3000:]}")
            return
        self.tried.met += found["met"]
        self.tried.complaints += found["complaints"]

    def _moments(self) -> list[Any]:
        steps, ordeal = self.tried.steps, self.ordeal
        chance = random.Random(ordeal.seed)
        if ordeal.trouble == "killed at a moment":
            return [chance.uniform(0, self.seconds) for _ in range(ordeal.rounds)]
        if ordeal.trouble == "disk full":
            return sorted({0, *(chance.randrange(self.pages) for _ in range(ordeal.rounds))})
        if ordeal.trouble == "flush fails":
            return self._some(range(1, steps.count("fsync") + 1), chance)
        numbers = range(1, len(steps) + 1)
        if ordeal.trouble in ("killed in a call", "every flush fails"):
            return self._some([n for n in numbers if steps[n - 1] == COMMITTING], chance)
        if ordeal.trouble == "killed at a step":
            deciding = [n for n in numbers if steps[n - 1].startswith(_DECIDING)]
            return self._some(numbers, chance, deciding)
        raise ValueError(ordeal.trouble)

    def _some(
        self, moments: Sequence[int], chance: random.Random, rather: Sequence[int] = ()
    ) -> list[int]:
        """All of them in long runs; in short ones a few, most of them among the more telling."""
        few = -(-_FEW[self.ordeal.trouble] // (3 if self.ordeal.alike else 1))
        if self.ordeal.rounds > 1 or len(moments) <= few:
            return list(moments)
        chosen = set(chance.sample(rather, min(len(rather), 3 * few // 4)))
        others = sorted({*moments} - chosen)
        return sorted({*chosen, *chance.sample(others, few - len(chosen))})

    def _undisturbed(self) -> None:
        """What is known of the command without trouble, found out once."""
        ordeal = self.ordeal
        known = self._known.get((ordeal.before, ordeal.command))
        if known is None:
            known = self._run_undisturbed()
            self._known[ordeal.before, ordeal.command] = known
        self.tried.steps, self.legal, self.files = known.steps, known.legal, known.files
        self.seconds, self.pages = known.seconds, known.pages

    def _run_undisturbed(self) -> "_Undisturbed":
        """Run without trouble, and keep what may be left by one that meets it."""
        place, states = self.folder / "undisturbed", self.folder / "states"
        _copy(Path(self.ordeal.before), place)
        names = self.folder / "steps"
        clock = self.folder / "seconds"

        def timed() -> int:
            started = time.monotonic()
            code = self._run(place, lambda _: None)
            clock.write_text(str(time.monotonic() - started))
            return code

        status, told = _in_a_child(timed)
        if status:
            raise RuntimeError(f"{self.ordeal.name}, undisturbed: {told}")
        shutil.rmtree(place)
        _copy(Path(self.ordeal.before), place)

        def watched() -> int:
            with names.open("a") as file:
                count, most, before = 0, 1, _pages(place)

                def note(_: int, name: str) -> None:
                    nonlocal count, most
                    file.write(name + "\n")
                    most = max(most, _pages(place) - before)
                    if name == COMMITTED:
                        count += 1
                        _copy(place, states / str(count))

                watch(place, note)
                code = self._run(place, lambda _: None)
            (self.folder / "pages").write_text(str(most))
            return code

        status, told = _in_a_child(watched)
        if status:
            raise RuntimeError(f"{self.ordeal.name}, undisturbed: {told}")
        kept = sorted(states.iterdir(), key=lambda path: int(path.name)) if states.is_dir() else []
        before = self.folder / "before"
        _copy(Path(self.ordeal.before), before)
        return _Undisturbed(
            names.read_text().splitlines(),
            [state_of(_settings(path)) for path in (before, *kept, place)],
            files_of(place),
            float(clock.read_text()),
            int((self.folder / "pages").read_text()),
        )

    def _run(self, place: Path, prepare: Callable[[Path], None]) -> int:
        prepare(place)
        return _parcelle(self.ordeal.command, place)

    def _report(self, moment: Any) -> int:  # noqa: ANN401 - as the trouble has it
        place = self.folder / f"trial-{moment}"
        for _ in range(_ATTEMPTS):
            with _disk(place, self.ordeal):
                _copy(Path(self.ordeal.before), place)
                met, complaints = self._try(place, moment)
            shutil.rmtree(place, ignore_errors=True)
            if met or complaints or self.ordeal.trouble != "killed at a moment":
                break
            # It was at its end already.
            moment /= 2
        print(json.dumps({"met": met, "complaints": complaints}))
        return 0

    def _try(self, place: Path, moment: Any) -> tuple[bool, list[str]]:  # noqa: ANN401
        name = f"{self.ordeal.name}, {self.ordeal.trouble} ({self._shown(moment)})"
        with self._reader(place) as reader:
            status, told, done = self._with_trouble(place, moment)
            legal = self.legal[done : done + 2]
            complaints = [f"{name}: {one}" for one in self._wrong_end(status, told)]
            if self.ordeal.trouble == "disk full" and reader is None:
                # Nothing is served there; and to look into its catalog takes a little room.
                _resize(place, _ROOM)
            complaints += self._examine(place, f"{name}, afterwards", legal, reader)
        if self.ordeal.trouble == "disk full":
            _resize(place, _ROOM)
        again, told = _in_a_child(lambda: self._run(place, lambda _: None))
        done_already = self.ordeal.refused and os.waitstatus_to_exitcode(again) == 2
        if again and not done_already:
            complaints.append(f"{name}: the next run ended with {_told(again)}: {told[-2000:]}")
        complaints += self._examine(place, f"{name}, after the next run", self.legal[-1:])
        left = files_of(place)
        if left != self.files:
            more, less = set(left) - set(self.files), set(self.files) - set(left)
            complaints.append(f"{name}: files {sorted(more)} are left, {sorted(less)} are missing")
        return status != 0, complaints

    @contextmanager
    def _reader(self, place: Path) -> Iterator[ParcelSearcher | None]:
        """A service that has the index open before the disk fills up, and goes on."""
        if self.ordeal.trouble != "disk full" or "refused" in self.legal[0].answers:
            yield None
            return
        with ParcelSearcher.open(_settings(place)) as searcher:
            ask(searcher, State())
            yield searcher

    def _shown(self, moment: Any) -> str:  # noqa: ANN401
        if self.ordeal.trouble == "killed at a moment":
            return f"after {1000 * moment:.1f} ms"
        if self.ordeal.trouble == "disk full":
            return f"{4 * moment} KiB free"
        if self.ordeal.trouble == "flush fails":
            return f"call {moment}"
        return f"step {moment} of {len(self.tried.steps)}: {self.tried.steps[moment - 1]}"

    def _with_trouble(self, place: Path, moment: Any) -> tuple[int, str, int]:  # noqa: ANN401
        """Status and output of the command, and how many commits it knew to be done."""
        reading, writing = os.pipe()
        ready, begun = os.pipe()
        output = os.memfd_create("output")
        child = os.fork()
        if child == 0:
            _be(lambda: self._run(place, self._prepared(moment, writing, begun)), output)
        os.close(writing)
        os.close(begun)
        if self.ordeal.trouble == "killed at a moment":
            os.read(ready, 1)
            time.sleep(moment)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as file:
            done = file.read().count(b"c")
        os.close(ready)
        return status, _read(output), done

    def _prepared(self, moment: Any, writing: int, begun: int) -> Callable[[Path], None]:  # noqa: ANN401
        """What the process does before it runs the command."""
        trouble = self.ordeal.trouble
        machine = os.uname().machine

        def step(number: int, name: str) -> None:
            if name == COMMITTED:
                os.write(writing, b"c")
            if number != moment:
                return
            if trouble == "killed at a step":
                _die()
            elif trouble == "killed in a call":
                forbid([*_WRITES[machine], *_FSYNCS[machine]], _KILL_PROCESS)
            elif trouble == "every flush fails":
                forbid(_FSYNCS[machine], _ERRNO | errno.EIO)

        def prepare(place: Path) -> None:
            if trouble == "flush fails":
                _fail_at_flush(moment)
            if trouble == "disk full":
                _leave_free(place, 4096 * moment)
            watch(place, step)
            os.write(begun, b"r")

        return prepare

    def _wrong_end(self, status: int, told: str) -> list[str]:
        if os.WIFSIGNALED(status):
            if self.ordeal.trouble.startswith("killed"):
                return []
            return [f"it died of signal {os.WTERMSIG(status)}: {told[-2000:]}"]
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            may = ("killed at a moment", "killed in a call", "every flush fails", "disk full")
            return [] if self.ordeal.trouble in may else ["nothing stopped it"]
        if "Traceback" in told or not re.search(_SAID, told):
            return [f"it ended with {code} and said: {told[-2000:]}"]
        return []

    def _examine(
        self,
        place: Path,
        name: str,
        legal: Sequence[State],
        reader: ParcelSearcher | None = None,
    ) -> list[str]:
        """What is not as one of the states that may be left, nor for whoever had it open."""
        numbered, served = self.ordeal.numbered or len(legal) > 1, State()
        try:
            if reader is not None:
                ask(reader, served)
            found = state_of(_settings(place))
        except Exception:
            return [f"{name}: {traceback.format_exc()[-3000:]}"]
        told = []
        for one in reversed(legal):
            some = found.differences(one, numbered=numbered)
            if reader is not None:
                some += served.differences(one, numbered=numbered, rows=False)
            if not some:
                return []
            told.append(f"{name}: {' | '.join(some)[:1500]}")
        return told[-1:]


# Disks ---------------------------------------------------------------------------------------


@contextmanager
def _disk(place: Path, ordeal: Ordeal) -> Iterator[None]:
    """A small disk at that place, if it is to be filled."""
    if ordeal.trouble != "disk full":
        yield
        return
    place.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={_ROOM}", "tmpfs", str(place))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _leave_free(place: Path, free: int) -> None:
    there = os.statvfs(place)
    # A size of nothing would be no limit.
    _resize(place, max(4096, (there.f_blocks - there.f_bfree) * there.f_frsize + free))


def _resize(place: Path, size: int) -> None:
    _mount("-o", f"remount,size={size}", str(place))


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


_SAID = r"Error \[(write-failed|disk-full|database-unreachable)\]: \S"


def _told(status: int) -> str:
    return f"exit code {os.waitstatus_to_exitcode(status)}"


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
