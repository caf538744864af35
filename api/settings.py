"""Settings of the HTTP door, on top of those of the floors below."""

import ipaddress
import re
from typing import Annotated, Final

from pydantic import Field, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from api.keys import ApiKey, read_keys
from indexer.errors import InvalidInputError
from indexer.memory import bytes_of
from indexer.settings import Settings

_ORIGIN: Final = re.compile(r"https?://[a-z0-9.-]+(:[0-9]+)?|https?://\[[0-9a-f:]+\](:[0-9]+)?")

_HOST: Final = re.compile(r"[a-z0-9.-]+|\[[0-9a-f:.]+\]")

LEAST_DECODE_MEMORY: Final = 512 << 20
"""Bytes of address space; a third of it is libraries that are mapped and hardly touched."""

_TILES: Final = re.compile(
    r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?/[^\s;,\"'<>]+"
)


class ApiSettings(Settings):
    """All settings of a service, from ``PARCELLE_*`` environment variables or arguments."""

    # A key that was written wrongly is not to be shown by the complaint about it.
    model_config = SettingsConfigDict(hide_input_in_errors=True)

    api_keys: Annotated[tuple[ApiKey, ...], NoDecode] = ()
    """Keys that a client must send one of, comma-separated; none lets everybody in. Each entry is
    ``KEY``, ``read:KEY`` or ``write:KEY``, with ``sha256:DIGEST`` for the key itself or not."""

    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Names under which the service may be asked where it asks for no key, comma-separated, beside
    those of this machine; ``*`` for any. ``parcelle serve`` takes none for those of this machine
    alone, an application of one's own for any."""

    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins whose web pages may ask, comma-separated: ``https://maps.example.org``, or ``*``."""

    basemap_url: str = ""
    """URL template of raster tiles that the page offers below the parcels; empty for none."""

    basemap_attribution: str = ""
    """What the page says of the tiles' origin."""

    max_body_bytes: int = Field(default=64 * 1024 * 1024, ge=1)
    """Largest form with an image; any other body is held to 1 MiB as well."""

    decode_memory: str = "2GiB"
    """What the process that reads uploaded images may take, such as ``2GiB``."""

    decode_timeout_s: float = Field(default=20, gt=0, allow_inf_nan=False)
    """Seconds that reading an uploaded image may take."""

    request_timeout_s: float = Field(default=30, gt=0, allow_inf_nan=False)
    """Seconds until an answer must have started; also what running requests get at the end."""

    max_concurrent_requests: int = Field(default=200, ge=1)
    """Requests that one process takes on at once; further ones are refused."""

    compact_every_s: float = Field(default=60, ge=0, allow_inf_nan=False)
    """Seconds between looks whether the index should be built anew; 0 for never."""

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: object) -> object:
        if isinstance(value, tuple | list):
            return tuple(ApiKey.of(one) if isinstance(one, str) else one for one in value)
        return read_keys(value) if isinstance(value, str) else value

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        hosts = tuple(host.strip().lower() for host in value.split(",") if host.strip())
        for host in hosts:
            if host != "*" and not _HOST.fullmatch(host):
                raise ValueError(
                    f"{host!r} is no host; write maps.example.org without scheme and port, or *"
                )
        return hosts

    @field_validator("decode_memory")
    @classmethod
    def _check_decode_memory(cls, value: str) -> str:
        if (bytes_of(value) or 0) < LEAST_DECODE_MEMORY:
            raise ValueError(f"{value!r} is no size of at least 512MiB; write one such as 2GiB")
        return value

    @property
    def decode_memory_bytes(self) -> int:
        """Bytes that the process that reads uploads may take."""
        return bytes_of(self.decode_memory) or LEAST_DECODE_MEMORY

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        origins = tuple(origin.strip() for origin in value.split(",") if origin.strip())
        for origin in origins:
            # Browsers send it so, and compare letter by letter.
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin; write https://maps.example.org, with the port "
                    "where it is not the usual one, without a slash at the end, or *"
                )
        return origins

    @field_validator("basemap_url")
    @classmethod
    def _check_basemap(cls, value: str) -> str:
        holders = all(holder in value for holder in ("{z}", "{x}", "{y}"))
        # Its host becomes a part of the page's Content-Security-Policy.
        if value and not (holders and _TILES.fullmatch(value)):
            raise ValueError(
                f"{value!r} is no address of tiles; write "
                "https://tiles.example.org/{z}/{x}/{y}.png"
            )
        return value

    def require_safe_host(self, host: str) -> None:
        """Refuse to listen where strangers could ask without a key.

        Args:
            host: Address or name that the service is about to listen on.

        Raises:
            InvalidInputError: If there are no keys and others can reach it (``unsafe-host``).
        """
        if self.api_keys or _is_loopback(host):
            return
        raise InvalidInputError(
            f"Host {host!r} can be reached from other machines, and PARCELLE_API_KEYS holds no "
            "key. Set PARCELLE_API_KEYS, or listen on 127.0.0.1.",
            kind="unsafe-host",
        )


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # A name may resolve to anything, tomorrow to something else.
        return False
