"""How long servers are waited for, and how much is taken from them."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Limits:
    """How long a server is waited for, and how much is taken from it."""

    connect_s: float = 10.0
    """Longest wait for a connection."""
    silence_s: float = 20.0
    """Longest time in which nothing comes; for pixels, in which less than 1 kB/s comes."""
    request_s: float = 60.0
    """Longest time that one request may take."""
    retries: int = 3
    """Further attempts after a connection that failed, or a status 429, 500, 502, 503 or 504."""
    delay_s: float = 1.0
    """Wait before the second attempt, doubled before each further one."""
    longest_delay_s: float = 30.0
    """Longest wait between two attempts, whatever the server asks for."""
    document_bytes: int = 64 << 20
    """Largest document."""
    documents: int = 50_000
    """Most documents of one catalog."""
    items: int = 20_000
    """Most items of one catalog, chosen or not."""
    depth: int = 32
    """Most catalogs that lie one inside the other."""


PATIENT: Final = Limits()
"""For a batch, which has time."""

HASTY: Final = Limits(connect_s=3, silence_s=5, request_s=10, retries=1, delay_s=0.2)
"""For somebody who waits for one picture."""
