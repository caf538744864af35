"""Settings of the HTTP door, on top of those of the floors below."""

import ipaddress
import re
from typing import Annotated, Final

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from indexer.errors import InvalidInputError
from indexer.settings import Settings

_ORIGIN: Final = re.compile(r"https?://[a-z0-9.-]+(:[0-9]+)?|https?://\[[0-9a-f:]+\](:[0-9]+)?")

_TILES: Final = re.compile(
    r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?/[^\s;,\"'<>]+"
)


class ApiSettings(Settings):
    """All settings of a service, from ``PARCELLE_*`` environment variables or arguments."""

    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Keys that a client must send one of, comma-separated; none lets everybody in."""

    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins whose web pages may ask, comma-separated: ``https://maps.example.org``, or ``*``."""

    basemap_url: str = ""
    """URL template of raster tiles that the page offers below the parcels; empty for none."""

    basemap_attribution: str = ""
    """What the page says of the tiles' origin."""

    max_body_bytes: int = Field(default=64 * 1024 * 1024, ge=1)
    """Largest body of a request."""

    request_timeout_s: float = Field(default=30, gt=0, allow_inf_nan=False)
    """Seconds until an answer must have started; also what running requests get at the end."""

    max_concurrent_requests: int = Field(default=200, ge=1)
    """Requests that one process takes on at once; further ones are refused."""

    compact_every_s: float = Field(default=60, ge=0, allow_inf_nan=False)
    """Seconds between looks whether the index should be built anew; 0 for never."""

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        keys = tuple(key.strip() for key in value.split(",") if key.strip())
        # Whoever wrote something meant to close the door; do not leave it open.
        if value.strip() and not keys:
            raise ValueError("PARCELLE_API_KEYS holds commas but no key; write KEY or KEY1,KEY2")
        return keys

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
