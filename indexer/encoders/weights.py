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
from typing import Any, Final, Literal

from indexer.errors import WeightsError
from indexer.sensors import Modality

WeightsKind = Literal["pretrained", "file", "untrained"]

UNTRAINED_SEED = 0
"""Seed of the random network that ``untrained`` names."""

PARTS: Final[dict[Modality, tuple[str, ...]]] = {
    "optical": ("s2_encoder", "s2_GAP_FFN"),
    "sar": ("s1_encoder", "s1_GAP_FFN"),
    # Its embedding is the mean of its tokens as they are: the heads of the others are not needed.
    "joint": ("s2_encoder", "s1_encoder", "joint_encoder"),
}
"""What of CROMA a modality needs, as torchgeo and published files name it."""

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


def load_state(path: Path, encoder: str, modality: Modality = "optical") -> dict[str, Any]:
    """Read the parameters that a modality needs from a weight file.

    Three layouts hold the same tensors: a dict of state dicts with the keys ``s2_encoder``,
    ``s2_GAP_FFN``... (what torchgeo publishes and what CROMA's authors publish), a flat state dict
    of torchgeo's ``CROMA`` (``s2_encoder.…``), and either of them below a ``state_dict`` key.

    Args:
        path: The file, as ``torch.save`` writes it.
        encoder: Word for messages.
        modality: What is seen.

    Returns:
        Flat state dict of the modality's parts, keys as in torchgeo's ``CROMA``.

    Raises:
        WeightsError: If the file cannot be read (``weights-corrupt``) or lacks a part
            (``weights-mismatch``).
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
    wanted = PARTS[modality]
    parts = {part: _part(content, part) for part in wanted}
    if lacking := [part for part, found in parts.items() if not found]:
        raise WeightsError(
            f"{path}: holds no {modality} {encoder} (found {_found(content)}); it lacks "
            f"{' and '.join(lacking)}. Give a CROMA checkpoint with {', '.join(wanted)}.",
            kind="weights-mismatch",
        )
    return {f"{part}.{key}": value for part in wanted for key, value in parts[part].items()}


def _part(content: object, part: str) -> dict[str, Any]:
    """One part's state dict, from a file that has it by itself or among others; empty if none."""
    if not isinstance(content, dict):
        return {}
    if isinstance(content.get(part), dict):
        return {str(key): value for key, value in content[part].items()}
    prefix = f"{part}."
    return {
        key.removeprefix(prefix): value
        for key, value in content.items()
        if isinstance(key, str) and key.startswith(prefix)
    }


def _found(content: object) -> str:
    """What a file holds instead, for messages: its first parts, or layers."""
    if not isinstance(content, dict):
        return "no dict"
    known = {part for parts in PARTS.values() for part in parts}
    names = (str(key) for key in content)
    shown = dict.fromkeys(part if (part := name.split(".")[0]) in known else name for name in names)
    return ", ".join(list(shown)[:5])


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
