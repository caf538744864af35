"""Settings of the HTTP door, on top of those of the floors below."""

import ipaddress
from typing import Annotated

from pydantic import SecretStr, field_validator
from pydantic_settings import NoDecode

from indexer.errors import InvalidInputError
from indexer.settings import Settings


class ApiSettings(Settings):
    """All settings of a service, from ``PARCELLE_*`` environment variables or arguments."""

    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Keys that a client must send one of, comma-separated; none lets everybody in."""

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        keys = tuple(key.strip() for key in value.split(",") if key.strip())
        # Whoever wrote something meant to close the door; do not leave it open.
        if value.strip() and not keys:
            raise ValueError("PARCELLE_API_KEYS holds commas but no key; write KEY or KEY1,KEY2")
        return keys

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
