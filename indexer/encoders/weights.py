"""Find, verify and describe the weight file of a CROMA encoder.

Nothing here imports torch unless weights are loaded or looked up, so that a run with nothing to
embed stays fast.
"""

import hashlib
import importlib.metadata
import os
import re
import socket
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal

from indexer.errors import WeightsError

WeightsKind = Literal["pretrained", "file", "untrained"]

UNTRAINED_SEED = 0
"""Seed of the random network that ``untrained`` names."""

_OPTICAL_PARTS = ("s2_encoder", "s2_GAP_FFN")
_DOWNLOAD_TIMEOUT_S = 30.0
_SETTING = "PARCELLE_CROMA_WEIGHTS (or --weights)"


@dataclass(frozen=True)
class Weights:
    """One set of weights, located and identified, not yet loaded."""

    kind: WeightsKind
    digest: str
    """SHA-256 of the file; for untrained weights what makes them reproducible."""
    path: Path | None
    """The file; None for untrained weights."""

    @property
    def trained(self) -> bool:
        """False for random weights."""
        return self.kind != "untrained"


def locate_weights(choice: str, encoder: str) -> Weights:
    """Find the weights that ``--weights`` names, download them if need be, and check them.

    Args:
        choice: ``pretrained``, ``untrained`` or the path of a file.
        encoder: ``croma-large`` or ``croma-base``.

    Raises:
        WeightsError: If the file is missing and cannot be fetched (``weights-not-found``) or is
            damaged (``weights-corrupt``).
    """
    if choice == "untrained":
        # The same seed gives the same network only in the same libraries.
        versions = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "torchgeo")]
        return Weights("untrained", f"seed {UNTRAINED_SEED}, {', '.join(versions)}", None)
    if choice == "pretrained":
        path = _pretrained_file(encoder)
        digest = sha256_of(path)
        _check_published_digest(path, digest)
        return Weights("pretrained", digest, path)
    path = Path(choice).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"{_SETTING} names {path}, which is no file. Give the path of a CROMA checkpoint, "
            "'pretrained', or 'untrained'.",
            kind="weights-not-found",
        )
    return Weights("file", sha256_of(path), path)


def is_at_hand(choice: str) -> bool:
    """Whether weights are on this machine, without fetching or checking them."""
    if choice == "untrained":
        return True
    if choice != "pretrained":
        return Path(choice).expanduser().is_file()
    # Where torch.hub keeps its files, found without importing torch.
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch").expanduser()
    home = Path(os.environ.get("TORCH_HOME", cache)).expanduser()
    return any((home / "hub" / "checkpoints").glob("CROMA_*.pt"))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_optical_state(path: Path, encoder: str) -> dict[str, Any]:
    """Read the optical encoder's parameters from a weight file.

    Three layouts hold the same tensors: a dict of state dicts with the keys ``s2_encoder`` and
    ``s2_GAP_FFN`` (what torchgeo publishes and what CROMA's authors publish), a flat state dict of
    torchgeo's ``CROMA`` (``s2_encoder.…``), and either of them below a ``state_dict`` key.

    Args:
        path: The file, as ``torch.save`` writes it.
        encoder: Word for messages.

    Returns:
        Flat state dict of the optical parts, keys as in torchgeo's ``CROMA``.

    Raises:
        WeightsError: If the file cannot be read (``weights-corrupt``) or holds no optical CROMA
            encoder (``weights-mismatch``).
    """
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    # Damaged bytes are read as instructions before anything is found wrong with them: besides
    # UnpicklingError come IndexError, KeyError, struct.error, UnicodeDecodeError and others.
    except Exception as error:
        raise WeightsError(
            # PyTorch's own message would advise to load the file with whatever code is in it.
            f"{path}: cannot be read as a PyTorch weight file ({type(error).__name__}); it is "
            "truncated, of another format, or holds more than tensors. Fetch it again.",
            kind="weights-corrupt",
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    state = _optical_parts(content) if isinstance(content, dict) else {}
    if not state:
        keys = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else "no dict"
        raise WeightsError(
            f"{path}: holds no optical {encoder} (found {keys}); give a CROMA checkpoint with "
            "s2_encoder and s2_GAP_FFN.",
            kind="weights-mismatch",
        )
    return state


def _optical_parts(content: dict[Any, Any]) -> dict[str, Any]:
    if all(isinstance(content.get(part), dict) for part in _OPTICAL_PARTS):
        return {
            f"{part}.{key}": value
            for part in _OPTICAL_PARTS
            for key, value in content[part].items()
        }
    prefixes = tuple(f"{part}." for part in _OPTICAL_PARTS)
    return {key: value for key, value in content.items() if str(key).startswith(prefixes)}


def _pretrained_file(encoder: str) -> Path:
    """The published file in torch's cache; downloaded once if it is not there."""
    import torch
    from torchgeo.models import CROMABase_Weights, CROMALarge_Weights

    published = {
        "croma-base": CROMABase_Weights.CROMA_VIT,
        "croma-large": CROMALarge_Weights.CROMA_VIT,
    }[encoder]
    name = published.url.rsplit("/", 1)[1]
    path: Path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file():
        return path
    before = socket.getdefaulttimeout()
    # torch.hub sets no time limit of its own; behind a silent firewall it would wait for ever.
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_S)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(
            published.url, str(path), hash_prefix=_published_prefix(name), progress=True
        )
    # A broken connection, a full disk; RuntimeError where the digest is another.
    except (OSError, HTTPException, RuntimeError) as error:
        raise WeightsError(
            f"The pretrained weights of {encoder} cannot be had: {published.url} was not fetched "
            f"({_first_line(error)}). Fetch that file on a machine that reaches it and put it at "
            f"{path}, or name it with {_SETTING}. "
            "For a trial without meaning, --weights untrained uses a random network.",
            kind="weights-not-found",
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    return path


def _published_prefix(name: str) -> str:
    """The first digits of the SHA-256 that PyTorch's naming convention puts into the file name."""
    match = re.search(r"-([0-9a-f]{8,})\.", name)
    if match is None:
        raise TypeError(f"{name} carries no digest")
    return match[1]


def _check_published_digest(path: Path, digest: str) -> None:
    prefix = _published_prefix(path.name)
    if not digest.startswith(prefix):
        raise WeightsError(
            f"{path}: its SHA-256 begins with {digest[:8]}, but the published file's with "
            f"{prefix}; it is damaged or another file. Delete it and fetch it again.",
            kind="weights-corrupt",
        )


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
