"""Keys of the service: who may ask, who may change something, and how keys are kept."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from pydantic import SecretStr

Scope = Literal["read", "write"]
"""``read`` asks; ``write`` asks and changes what may be changed over HTTP, such as names."""

_SCOPED: Final = re.compile(r"(?P<scope>read|write):(?P<rest>.*)", re.DOTALL)
_HASHED: Final = re.compile(r"sha256:(?P<digest>.*)", re.DOTALL)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_KEY_BYTES: Final = 32


@dataclass(frozen=True)
class ApiKey:
    """One key that is taken, known by its digest alone."""

    digest: SecretStr
    """SHA-256 of the key's UTF-8 bytes, in lowercase hexadecimal digits."""
    scope: Scope = "write"
    is_plain: bool = False
    """Whether it was stored as the key itself."""

    # A fast hash is enough for keys that are made here: nobody tries 2**256 of them. Slow hashes
    # are for what people think up; whoever stores such a key in plain form keeps no secret from a
    # reader of the settings anyway.
    @classmethod
    def of(cls, key: str, scope: Scope = "write") -> "ApiKey":
        """A key that was stored as it is."""
        return cls(SecretStr(_sha256(key.encode())), scope, is_plain=True)

    @property
    def entry(self) -> str:
        """How it is stored in ``PARCELLE_API_KEYS``: not to be turned back into the key."""
        return f"{self.scope}:sha256:{self.digest.get_secret_value()}"

    def allows(self, scope: Scope) -> bool:
        """Whether it may be used for this."""
        return scope in ("read", self.scope)


def new_key(scope: Scope) -> tuple[str, ApiKey]:
    """Make a key of 256 random bits, and what is to be kept of it."""
    key = secrets.token_urlsafe(_KEY_BYTES)
    return key, ApiKey(SecretStr(_sha256(key.encode())), scope)


def read_keys(text: str) -> tuple[ApiKey, ...]:
    """The keys of ``PARCELLE_API_KEYS``.

    Raises:
        ValueError: If an entry cannot be one; it says which, and never what it holds.
    """
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    # Whoever wrote something meant to close the door; do not leave it open.
    if text.strip() and not entries:
        raise ValueError("PARCELLE_API_KEYS holds commas but no key; write KEY or KEY1,KEY2")
    return tuple(_read(entry, number) for number, entry in enumerate(entries, 1))


def find_key(given: Iterable[bytes], keys: Iterable[ApiKey]) -> ApiKey | None:
    """The key among those that a client sent, of several the one that allows more.

    Args:
        given: As they were sent.
        keys: Those that are taken.
    """
    digests = [_sha256(one) for one in given]
    # All are compared, in constant time each, so that the time taken tells nothing.
    found = [
        key
        for digest in digests
        for key in keys
        if hmac.compare_digest(digest, key.digest.get_secret_value())
    ]
    return max(found, key=lambda key: get_args(Scope).index(key.scope), default=None)


def _read(entry: str, number: int) -> ApiKey:
    scope: Scope = "write"
    rest = entry
    if scoped := _SCOPED.fullmatch(entry):
        scope = "read" if scoped["scope"] == "read" else "write"
        rest = scoped["rest"].strip()
    if hashed := _HASHED.fullmatch(rest):
        digest = hashed["digest"].strip().lower()
        if not _DIGEST.fullmatch(digest):
            raise ValueError(
                f"PARCELLE_API_KEYS: entry {number} has no SHA-256 digest of 64 hexadecimal "
                "digits after sha256:; parcelle keys new prints one"
            )
        return ApiKey(SecretStr(digest), scope)
    if not rest:
        raise ValueError(
            f"PARCELLE_API_KEYS: entry {number} names a scope and no key; write {scope}:KEY, or "
            "what parcelle keys new prints"
        )
    return ApiKey.of(rest, scope)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
