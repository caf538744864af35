"""Parcels as GeoJSON features (RFC 7946), and how OpenAPI describes them."""

from typing import Any, Final

import orjson
from fastapi.responses import Response

from indexer.spectral_indices import INDICES
from retriever.listing import ListedParcel, StandingObservation
from retriever.memberships import membership_fields
from retriever.results import feature, iso

GEOJSON: Final = "application/geo+json"

FEATURE_SCHEMA: Final = {
    "type": "object",
    "required": ["type", "id", "geometry", "properties"],
    "properties": {
        "type": {"const": "Feature"},
        "id": {"type": "string"},
        "geometry": {"type": ["object", "null"]},
        "properties": {"type": "object"},
    },
}

SPACE_SCHEMA: Final = {
    "type": "object",
    "description": "The embedding space, in short. Only vectors of one space are compared.",
    "required": [
        "id",
        "encoder",
        "weights",
        "normalization",
        "pooling",
        "modality",
        "precision",
    ],
    "properties": {
        "id": {"type": ["string", "null"]},
        "encoder": {"type": "string"},
        "weights": {"type": "string", "description": "trained or untrained."},
        "normalization": {"type": "string"},
        "pooling": {"type": "string", "description": "image or parcel."},
        "modality": {"type": "string", "description": "optical, sar or joint."},
        "precision": {"type": "string", "description": "fp32, bf16 or int8."},
    },
}

EXPLANATION_SCHEMA: Final = {
    "type": "object",
    "description": "How the matches were found, and what it cost; only where `explain` is true.",
    "required": ["index", "rows", "recall", "conditions", "allowed", "method", "scored"],
    "properties": {
        "index": {"type": "string", "description": "Kind of the index."},
        "rows": {"type": "integer", "description": "Vectors of the index."},
        "since_publication": {
            "type": "object",
            "description": "Vectors added since it was published, and removed from it.",
            "properties": {"rows": {"type": "integer"}, "removed": {"type": "integer"}},
        },
        "recall": {"type": "number", "description": "The recall that was sought."},
        "recall_measured": {
            "type": "number",
            "description": "What it came to when the generation was built.",
        },
        "conditions": {
            "type": "array",
            "items": {"type": "object"},
            "description": "The conditions of the filter, and what each leaves.",
        },
        "allowed": {"type": "integer", "description": "Vectors of the index that may be found."},
        "method": {"type": "string", "description": "lists, sketches, rows or nothing."},
        "method_means": {"type": "string", "description": "The method in words."},
        "lists": {"type": "integer", "description": "Lists that were looked into; 0 for none."},
        "scored": {"type": "integer", "description": "Vectors that got a score."},
        "reranked": {"type": "integer", "description": "Candidates whose exact scores decided."},
        "search_ms": {"type": "number", "description": "Milliseconds of the search."},
        "metadata_ms": {"type": "number", "description": "Milliseconds of reading the matches."},
    },
}

MATCHES_SCHEMA: Final = {
    "type": "object",
    "required": ["type", "features", "query", "generation", "space", "notes"],
    "properties": {
        "type": {"const": "FeatureCollection"},
        "features": {"type": "array", "items": FEATURE_SCHEMA},
        "numberReturned": {"type": "integer"},
        "query": {"type": "object"},
        "generation": {"type": "integer"},
        "space": SPACE_SCHEMA,
        "explanation": EXPLANATION_SCHEMA,
        "notes": {"type": "array", "items": {"type": "string"}},
    },
}


class GeoJSONResponse(Response):
    """RFC 7946."""

    media_type = GEOJSON

    def render(self, content: dict[str, Any]) -> bytes:
        """As bytes; a thousand features take the standard library ten times as long."""
        return to_json(content)


def to_json(content: dict[str, Any]) -> bytes:
    """JSON in UTF-8; what is no number becomes null."""
    return orjson.dumps(content)


def feature_of(listed: ListedParcel) -> dict[str, Any]:
    """A parcel with its attributes, and what was observed when it was last seen well.

    The medians of the spectral indices stand under their names, beside the stored cluster. Where
    an attribute has a name of ours, ours stands.
    """
    parcel = listed.parcel
    properties = {
        **parcel.attributes,
        **parcel.to_dict(),
        **_observed(listed.standing),
        **membership_fields(listed.cluster),
    }
    return feature(parcel.parcel_id, parcel.geometry, properties)


def _observed(standing: StandingObservation | None) -> dict[str, Any]:
    if standing is None:
        return dict.fromkeys(("datetime", "valid_fraction", "reliable", *INDICES))
    medians = standing.medians
    return {
        "datetime": iso(standing.acquired_at),
        "valid_fraction": round(standing.valid_fraction, 4),
        "reliable": standing.reliable,
        **{name: round(medians[name], 4) if name in medians else None for name in INDICES},
    }


def described(description: str, media_type: str, schema: dict[str, Any]) -> dict[int | str, Any]:
    """What OpenAPI says about an answer with status 200."""
    return {200: {"description": description, "content": {media_type: {"schema": schema}}}}
