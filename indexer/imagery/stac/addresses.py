"""What a catalog may name: its addresses are written by strangers.

A catalog on a server may name ``http://`` and ``https://`` addresses and nothing else; a catalog on
disk also files below its own folder. Addresses of this machine or of a private network may be
named only by a catalog that lies there itself, on disk or on a server, so that a stranger's catalog
cannot make Parcelle ask what a stranger cannot reach. Link-local addresses, where clouds tell a
machine its secrets, may be named by nobody.
"""

import ipaddress
import re
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import urljoin, urlsplit, urlunsplit

from indexer.errors import ImageryError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f\\]")
_SHOWN_CHARACTERS = 200

_Number = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Home:
    """Where a catalog lies, which decides what it may name."""

    folder: Path | None = None
    """The folder of a catalog on disk, without links; None for one on a server."""
    is_private: bool = False
    """Whether the catalog is on disk, or on a server of a private network or of this machine."""


def is_item(location: str) -> bool:
    """Whether an image is remembered by its item: by an address or a JSON file."""
    return is_url(location) or location.lower().endswith((".json", ".geojson"))


def is_url(location: str) -> bool:
    """Whether a location is an address on a server, not a path."""
    return location.lower().startswith(("http://", "https://"))


def resolve(href: object, document: str, home: Home) -> str:
    """The address or path that a document of a catalog means by a reference.

    Args:
        href: As it stands in the document.
        document: Address or path of the document.
        home: Where the catalog lies.

    Returns:
        An ``http`` or ``https`` address, or the path of a file below the catalog's folder.

    Raises:
        ImageryError: ``href-refused``, with the reason.
    """
    if not isinstance(href, str) or not href.strip():
        raise _refused(str(href), "is no address")
    if is_url(document) or is_url(href):
        try:
            url = urljoin(document, href) if is_url(document) else href
        except ValueError:
            raise _refused(href, "is no address") from None
        check_url(url, home)
        return url
    return _file_below(href, document, home)


def check_url(url: str, home: Home) -> None:
    """Refuse an address that a catalog may not name, or lead to.

    Raises:
        ImageryError: ``href-refused``.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise _refused(url, "is no address") from None
    if parts.scheme not in ("http", "https"):
        raise _refused(url, "is neither http:// nor https://")
    if not host or _UNPRINTABLE.search(url):
        raise _refused(url, "is no address")
    if parts.username is not None or parts.password is not None:
        raise _refused(url, "holds a user name or password")
    if any(number.is_link_local for number in _numbers(host)):
        raise _refused(url, "is a link-local address, where no imagery lies")
    if not home.is_private and is_private_host(host):
        raise _refused(
            url, "is on this machine or a private network, but the catalog that leads there is not"
        )


def is_private_host(host: str) -> bool:
    """Whether a host's name or number leads to this machine or a private network.

    A name that cannot be looked up here leads nowhere, or through a proxy that decides itself.
    """
    return any(not number.is_global for number in _numbers(host))


def host_of(location: str) -> str:
    """The host in an address; empty for a path, or where there is none."""
    try:
        return (urlsplit(location).hostname or "") if is_url(location) else ""
    except ValueError:
        return ""


def shown(location: str) -> str:
    """A location as messages show it: without password and query, which may hold a token."""
    if _SCHEME.match(location):
        try:
            parts = urlsplit(location)
            netloc = parts.netloc.rpartition("@")[2]
            location = urlunsplit((parts.scheme, netloc, parts.path, "", ""))
        except ValueError:
            location = "an address that cannot be read"
    printable = "".join(mark if mark.isprintable() else "?" for mark in location)
    if len(printable) > _SHOWN_CHARACTERS:
        return f"{printable[:_SHOWN_CHARACTERS]}..."
    return printable


def _numbers(host: str) -> tuple[_Number, ...]:
    try:
        return _looked_up(host) if host else ()
    except (OSError, UnicodeError):
        return ()


@lru_cache(maxsize=1024)
def _looked_up(host: str) -> tuple[_Number, ...]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(_number(str(address[4][0])) for address in found)


def _number(text: str) -> _Number:
    number = ipaddress.ip_address(text.partition("%")[0])
    mapped = number.ipv4_mapped if isinstance(number, ipaddress.IPv6Address) else None
    return mapped or number


def _file_below(href: str, document: str, home: Home) -> str:
    if home.folder is None:
        raise _refused(href, "is a file, but the catalog is on a server")
    if _SCHEME.match(href) or href.startswith("/vsi"):
        raise _refused(href, "is neither http://, https:// nor the path of a file")
    try:
        path = (Path(document).parent / href).resolve()
    except (OSError, RuntimeError, ValueError):
        raise _refused(href, "is no path") from None
    if not path.is_relative_to(home.folder):
        raise _refused(href, f"leads out of the catalog's folder {home.folder}")
    return str(path)


def _refused(href: str, why: str) -> ImageryError:
    return ImageryError(
        f"{shown(href)}: {why}; a catalog may name http:// and https:// addresses, and one on "
        "disk the files below its folder.",
        kind="href-refused",
    )
