"""Connections to PostgreSQL that notice when the server is gone.

A server that stops says so, and one that is killed is found out by the operating system. But one
that hangs, or whose machine or network is gone, says nothing: psycopg would wait for ever, and
TCP's own timers end only where the other machine is away, after minutes
(https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-KEEPALIVES). A statement
may rightly take minutes too, so no time limit tells the two apart. Therefore whoever waits for an
answer asks the server now and then, on a connection of its own, whether it is there at all.
"""

import socket
import struct
import threading
import time
from collections.abc import Generator
from typing import Any, Final

import psycopg
from sqlalchemy import URL, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection

# Seconds. A server that says nothing for so long is asked whether it is there, and must answer in
# so many; those who wait at the same time believe one answer.
_PATIENCE_S: Final = 2.0
_ANSWER_S: Final = 2.0
_BELIEVED_S: Final = 1.0

# https://www.postgresql.org/docs/current/protocol-message-formats.html, "SSLRequest": length and
# code. Every server answers it at once with one byte, also one that starts or is full.
_SSL_REQUEST: Final = struct.pack("!II", 8, 80877103)

_LIMITS: Final = {
    # Seconds for each address of the host.
    "connect_timeout": "5",
    # For connections that only wait, such as that of a writer's lock: 30 + 3 * 10 s.
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}

# https://www.postgresql.org/docs/current/runtime-config-connection.html: a writer whose machine is
# gone must not hold its locks for the two hours that TCP would wait. One that hangs in the middle
# of a transaction is given up after longer than any of ours takes.
_SESSION: Final = (
    "SET tcp_keepalives_idle = 60; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 6; "
    "SET idle_in_transaction_session_timeout = '1h'"
)


def limits(url: URL) -> dict[str, str]:
    """Arguments of libpq that the URL does not name itself."""
    return {name: value for name, value in _LIMITS.items() if name not in url.query}


def watch(engine: Engine) -> None:
    """Make all connections of an engine notice when the server says nothing any more."""
    server = _Server()

    def connect(_dialect: object, _record: object, args: Any, options: Any) -> _Connection:  # noqa: ANN401
        return server.connect(*args, **options)

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "connect", _set_up)


def _set_up(connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(_SESSION)
    cursor.close()
    connection.commit()


class _Server:
    """What all connections of an engine know of whether their server is there."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._asked: dict[tuple[str, int], tuple[float, bool]] = {}
        self._trying = threading.Lock()
        self._away_at: float | None = None

    def connect(self, *args: Any, **options: Any) -> "_Connection":  # noqa: ANN401
        """A new connection.

        While the server is away one caller after the other tries, and those who waited meanwhile
        believe what it found: else each of them would wait as long again.
        """
        if self._away_at is None:
            return self._try(*args, **options)
        with self._trying:
            if self._was_away_just_now():
                raise psycopg.errors.ConnectionTimeout("the server says nothing")
            return self._try(*args, **options)

    def _was_away_just_now(self) -> bool:
        away_at = self._away_at
        return away_at is not None and time.monotonic() - away_at < _BELIEVED_S

    def _try(self, *args: Any, **options: Any) -> "_Connection":  # noqa: ANN401
        try:
            connection = _Connection.connect(*args, **options)
        except psycopg.errors.ConnectionTimeout:
            self._away_at = time.monotonic()
            raise
        self._away_at = None
        connection.server = self
        return connection

    def answers(self, host: str, port: int) -> bool:
        """Whether the server at an address, or in a socket's folder, says anything."""
        with self._asking:
            asked_at, found = self._asked.get((host, port), (0.0, True))
            if time.monotonic() - asked_at > _BELIEVED_S:
                found = _says_anything(host, port)
                self._asked[host, port] = (time.monotonic(), found)
        if not found:
            self._away_at = time.monotonic()
        return found


def _says_anything(host: str, port: int) -> bool:
    try:
        with _socket_to(host, port) as asking:
            asking.sendall(_SSL_REQUEST)
            return len(asking.recv(1)) == 1
    except OSError:
        return False


def _socket_to(host: str, port: int) -> socket.socket:
    if not host.startswith("/"):
        return socket.create_connection((host, port), _ANSWER_S)
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.settimeout(_ANSWER_S)
        connected.connect(f"{host}/.s.PGSQL.{port}")
    except OSError:
        connected.close()
        raise
    return connected


class _Connection(psycopg.Connection[Any]):
    """A connection that fails once its server is gone, whatever it waits for."""

    server: _Server | None = None

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """Wait as psycopg does, and look after the server meanwhile."""
        return super().wait(self._watched(gen), *args, **options)

    def _watched(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Hand on what psycopg sends: every 0.1 s nothing, as long as nothing comes."""
        try:
            state = next(gen)
            heard = time.monotonic()
            while True:
                ready = yield state
                if ready:
                    heard = time.monotonic()
                elif time.monotonic() - heard > _PATIENCE_S:
                    self._require_server()
                    heard = time.monotonic()
                state = gen.send(ready)
        except StopIteration as end:
            return end.value

    def _require_server(self) -> None:
        info = self.info
        if self.server is None or self.server.answers(info.hostaddr or info.host, info.port):
            return
        # Nothing that it still says can be trusted to belong to what was asked.
        self.pgconn.finish()
        raise psycopg.OperationalError("the server says nothing any more")
