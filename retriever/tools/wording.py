"""How things of the index are put into words; whatever a stranger wrote is quoted."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from retriever.memberships import Membership
from retriever.quoting import cleaned
from retriever.tools.budget import shortened

# Ids are told whole, so that they can be asked for, unless they are absurd; names may be cut.
_ID_CHARACTERS, _ID_TOKENS = 100, 80
_NAME_CHARACTERS, _NAME_TOKENS = 40, 20

_MAX_TEXT = 300
_MAX_ITEMS = 1000


def quoted_id(text: str) -> str:
    """An id of a parcel or a scene."""
    return shortened(text, _ID_CHARACTERS, _ID_TOKENS)


def quoted_name(text: str) -> str:
    """The name of a collection, a crop, an attribute."""
    return shortened(text, _NAME_CHARACTERS, _NAME_TOKENS)


def key(parcel_id: str, collection: str) -> str:
    """A parcel by its key."""
    return f"{quoted_id(parcel_id)} of {quoted_name(collection)}"


def declared(name: str | None, code: str | None) -> str:
    """A declared crop in a column of its own."""
    crop_name = name or code
    return "unknown" if crop_name is None else quoted_name(crop_name)


def crop(name: str | None, code: str | None) -> str:
    """A declared crop in a sentence."""
    return f"crop {declared(name, code)}"


def cluster(found: Membership | None) -> str:
    """A stored cluster in a column of its own: its name, else its number."""
    if found is None:
        return "none"
    return f"number {found.number}" if found.name is None else quoted_name(found.name)


def cluster_of(found: Membership | None) -> list[str]:
    """A stored cluster in a sentence; nothing where there is none."""
    return [] if found is None else [f"cluster {cluster(found)}"]


def day(moment: datetime | None) -> str:
    """A date, in UTC."""
    return "unknown date" if moment is None else f"{moment:%Y-%m-%d}"


def hectares(area_m2: float | None) -> str:
    """An area."""
    return "area unknown" if area_m2 is None else f"{area_m2 / 10_000:.2f} ha"


def index_values(indices: Mapping[str, float], names: tuple[str, ...]) -> str:
    """Spectral indices by name."""
    return ", ".join(
        f"{name} {indices[name]:.2f}" if name in indices else f"{name} not measured"
        for name in names
    )


def source(generation: int | None, space: Mapping[str, Any]) -> str:
    """Where scores come from."""
    place = "" if generation is None else f"generation {generation}, "
    return f"Source: {place}space {space['id']} ({space['encoder']}, weights {space['weights']})."


def without_surprises(value: Any) -> Any:  # noqa: ANN401 - JSON
    """An artifact whose texts are one bounded line each, without unseen characters.

    Programs show artifacts to people and models. Texts that are clean already, and no longer
    than an id may be, stay as they are.
    """
    if isinstance(value, str):
        return cleaned(value, _MAX_TEXT)
    if isinstance(value, Mapping):
        some = list(value.items())[:_MAX_ITEMS]
        return {cleaned(str(name), _MAX_TEXT): without_surprises(item) for name, item in some}
    if isinstance(value, list | tuple):
        return [without_surprises(item) for item in value]
    return value
