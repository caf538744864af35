"""Whether a question may wait: for a network, for a file, for a scan of the catalog.

A service that accepts requests in one thread may answer a question right there if that takes a few
milliseconds, and must hand it to another thread if it takes longer. Only the question itself finds
out which of them it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_may_wait: ContextVar[bool] = ContextVar("may_wait", default=True)


class WouldWait(Exception):
    """A question that may not wait would have to; ask it again where it may."""


@contextmanager
def without_waiting() -> Iterator[None]:
    """Have questions within raise ``WouldWait`` before they wait."""
    token = _may_wait.set(False)
    try:
        yield
    finally:
        _may_wait.reset(token)


def about_to_wait() -> None:
    """Say that the next step may take longer than a few milliseconds.

    Raises:
        WouldWait: If it may not.
    """
    if not _may_wait.get():
        raise WouldWait
