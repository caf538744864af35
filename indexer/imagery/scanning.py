"""What lies in a folder that was named: its files at any depth, and nothing that only seems to.

A folder may come from strangers, unpacked or shared. Links in it that lead out of it, pipes and
devices, which would be waited for without end, and names that a terminal obeys are not followed,
opened or repeated; each is listed as skipped.
"""

import glob
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from indexer.plain_text import is_plain, plain
from indexer.skipped import Skipped

MAX_ENTRIES: Final = 10_000_000
"""Files and folders that are looked at below a folder."""

Wanted = Callable[[str], bool]
"""Whether a file of this name would be read."""


@dataclass
class Folder:
    """One folder on the way down; what is taken out of ``folders`` is not gone into."""

    path: Path
    folders: list[str]
    """Names of the folders in it, links to folders among them."""
    files: list[str]
    """Names of the files in it that are wanted and may be read."""
    entries: frozenset[str]
    """Names of everything in it."""


def walk(root: Path, is_wanted: Wanted, skipped: list[Skipped]) -> Iterator[Folder]:
    """Go through a folder, at any depth; links to folders are listed but not gone into.

    Args:
        root: The folder; it may be a link itself.
        is_wanted: Decides by the name of a file whether it is listed.
        skipped: Receives what is wanted but refused, and folders that may not be listed.
    """
    real_root = root.resolve()
    pending, seen = [root], 0
    while pending:
        path = pending.pop()
        try:
            with os.scandir(path) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            skipped.append(_skipped(path, "unreadable", f"cannot be listed ({error.strerror})"))
            continue
        seen += len(entries)
        if seen > MAX_ENTRIES:
            what = f"lies below {root}, which holds more than {MAX_ENTRIES:,} files"
            skipped.append(_skipped(path, "too-large", what, "Name its folders one by one."))
            return
        found = Folder(path, [], [], frozenset(entry.name for entry in entries))
        links = []
        for entry in entries:
            if _is_dir(entry):
                found.folders.append(entry.name)
                if entry.is_symlink():
                    links.append(entry.name)
            elif is_wanted(entry.name):
                why = why_refused(path / entry.name, real_root, entry)
                if why is None:
                    found.files.append(entry.name)
                else:
                    skipped.append(why)
        yield found
        inside = [name for name in found.folders if name not in links]
        pending.extend(path / name for name in reversed(inside))


def files_below(root: Path, is_wanted: Wanted, skipped: list[Skipped]) -> list[Path]:
    """The wanted files of a folder, at any depth, in alphabetical order; see ``walk``."""
    found = (
        folder.path / name for folder in walk(root, is_wanted, skipped) for name in folder.files
    )
    return sorted(found)


def matches(pattern: str, is_wanted: Wanted, skipped: list[Skipped]) -> list[Path]:
    """The folders, and the wanted files, that a glob matches, in alphabetical order.

    ``**`` does not go into links, whose circles have no end. What a match may lead to is what lies
    below the part of the glob that names a folder.
    """
    root = glob_base(pattern).resolve()
    found: list[Path] = []
    for path in _matched(pattern):
        is_folder = path.is_dir()
        if is_folder or is_wanted(path.name):
            why = why_refused(path, root, is_folder=is_folder)
            if why is None:
                found.append(path)
            else:
                skipped.append(why)
    return found


def glob_base(pattern: str) -> Path:
    """The part of a glob before its first magic component."""
    parts: list[str] = []
    for part in Path(pattern).parts:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts) if parts else Path()


def why_refused(
    path: Path,
    root: Path,
    entry: "os.DirEntry[str] | None" = None,
    *,
    is_folder: bool = False,
) -> Skipped | None:
    """Why a file or folder in a folder that was named is not read; None where it may be.

    Args:
        path: What was found.
        root: The folder that was named, without links.
        entry: As the listing of its folder has it, which spares a look at the disk.
        is_folder: Whether it is a folder.
    """
    if not is_plain(str(path)):
        return unsafe_name(path)
    if entry is not None and entry.is_file(follow_symlinks=False):
        return None
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError, ValueError) as error:
        return _skipped(path, "unreadable", f"is a link that leads nowhere ({_short(error)})")
    if not real.is_relative_to(root):
        return _skipped(
            path,
            "outside-folder",
            f"is a link that leads out of {root}",
            "Name the file or folder itself if you trust it.",
        )
    if not (is_folder or stat.S_ISREG(mode)):
        return not_a_file(path)
    return None


def unsafe_name(path: Path) -> Skipped:
    """The entry of a file whose name a terminal would obey, or which is no text."""
    what = "its name holds control characters, marks of direction or bytes that are no UTF-8"
    return _skipped(path, "unsafe-path", what, "Rename it.")


def not_a_file(path: Path) -> Skipped:
    """The entry of a pipe, a socket or a device."""
    return _skipped(path, "unreadable", "is a pipe, a socket or a device", "Name files.")


def _is_dir(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link to itself.
        return False


def _matched(pattern: str) -> list[Path]:
    if "**" not in Path(pattern).parts:
        return [Path(match) for match in sorted(glob.glob(pattern))]
    base = glob_base(pattern)
    rest = Path(pattern).relative_to(base).parts
    # As for glob.glob, ** at the end stands for files as well as folders.
    below = (*rest, "*") if rest[-1] == "**" else rest
    found = [path for path in base.glob("/".join(below)) if not _is_hidden(path, base, rest)]
    own = [base] if set(rest) == {"**"} else []
    return sorted({*own, *found})


def _is_hidden(path: Path, base: Path, rest: tuple[str, ...]) -> bool:
    """Whether a name begins with a dot that the pattern does not ask for."""
    if any(part.startswith(".") for part in rest):
        return False
    return any(part.startswith(".") and part != ".." for part in path.relative_to(base).parts)


def _skipped(path: Path, kind: str, what: str, advice: str = "Check the path.") -> Skipped:
    shown = plain(str(path))
    return Skipped(shown, kind, f"{shown}: {what}. {advice}")


def _short(error: Exception) -> str:
    return (error.strerror or "") if isinstance(error, OSError) else "in a circle"
