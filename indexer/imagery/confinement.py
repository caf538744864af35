"""What a process gives up before it looks at a stranger's file: memory, time, files, network.

Limits are the kernel's own (setrlimit(2)), so that no bug of a decoder can lift them; the folders
that may still be read are kept to by Landlock (https://docs.kernel.org/userspace-api/landlock.html),
which Linux has since 5.13. Where a kernel lacks Landlock or network namespaces, the limits hold and
the rest is left out: ``Confined`` tells.
"""

import ctypes
import math
import os
import resource
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38

_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000

# include/uapi/linux/landlock.h; the numbers of the calls are the same on every architecture.
_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_ABI_QUERY: Final = 1
_PATH_BENEATH: Final = 1
_READ: Final = 0b1100
"""READ_FILE and READ_DIR."""
_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many kinds of access to files each version of Landlock knows; later ones as the fifth."""
_WITH_NETWORK: Final = 4
_WITH_SCOPES: Final = 6

_OPEN_FILES: Final = 64


@dataclass(frozen=True)
class Confined:
    """What could be had of the kernel beside the limits."""

    files: bool
    """Whether no file outside the named folders can be opened."""
    network: bool
    """Whether there is no network but an empty one."""


def confine(
    *,
    memory_bytes: int,
    file_bytes: int,
    readable: Iterable[Path],
    writable: Path,
) -> Confined:
    """Give up, in this process and for good, what decoding an image does not need.

    To be called before any thread is started: Landlock holds for those that come later.

    Args:
        memory_bytes: Address space, with all that is loaded by now.
        file_bytes: Largest file that may be written.
        readable: Folders that may be read, such as those of libraries.
        writable: The one folder that may be written.

    Raises:
        OSError: If a limit cannot be set; nothing may be decoded then.
    """
    if sys.platform == "linux":
        # Elsewhere the kernel may not know how to limit it.
        _limit(resource.RLIMIT_AS, memory_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, file_bytes)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    # No further process or thread; the kernel excepts root.
    _limit(resource.RLIMIT_NPROC, 0)
    if sys.platform != "linux":
        return Confined(files=False, network=False)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    network = libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0
    return Confined(_keep_to_folders(libc, readable, writable), network)


def limit_cpu(seconds: float) -> None:
    """End this process by SIGXCPU once it has computed for so long from now."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    limit = math.ceil(spent.ru_utime + spent.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, most))


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(what, (most, most))


def _keep_to_folders(libc: ctypes.CDLL, readable: Iterable[Path], writable: Path) -> bool:
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ABI_QUERY)
    if version < 1:
        return False
    every = (1 << _RIGHTS.get(version, _RIGHTS[5])) - 1
    handled = struct.pack(
        "QQQ",
        every,
        # Neither bind nor connect; no signal and no abstract socket of another process.
        0b11 if version >= _WITH_NETWORK else 0,
        0b11 if version >= _WITH_SCOPES else 0,
    )
    size = 24 if version >= _WITH_SCOPES else 16 if version >= _WITH_NETWORK else 8
    ruleset = libc.syscall(_CREATE_RULESET, handled, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return False
    try:
        allowed = [*((folder, _READ) for folder in readable), (writable, every)]
        for folder, rights in allowed:
            with suppress(FileNotFoundError, NotADirectoryError):
                _allow(libc, ruleset, folder, rights)
        return bool(libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, folder: Path, rights: int) -> None:
    # Opened as a place only, which works for folders that cannot be listed.
    place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)
