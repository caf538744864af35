"""What a filter may name: the fixed properties, and the attributes that parcels have."""

from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Connection
from sqlalchemy.orm import InstrumentedAttribute

from indexer.catalog.tables import Cluster, ClusterMember, Collection, Observation, Parcel
from indexer.spectral_indices import INDICES
from retriever.attributes import kinds_of_attributes
from retriever.memberships import of_observation

Kind = Literal["text", "number", "boolean", "time", "geometry"]

Column = ColumnElement[Any] | InstrumentedAttribute[Any]


@dataclass(frozen=True)
class Queryable:
    """A property as JSON Schema describes it, for ``/queryables``."""

    name: str
    title: str
    description: str
    type: str | None = None
    """``string``, ``number`` or ``boolean``; None where parcels differ, and for geometries."""
    format: str | None = None
    """``date-time`` or ``geometry-any``."""
    role: str | None = None
    """``id``, ``primary-geometry`` or ``primary-instant``, as OGC 23-058r1 has them."""

    def to_json_schema(self) -> dict[str, Any]:
        """A schema of its values, without what is unknown."""
        fields = {
            "title": self.title,
            "description": self.description,
            "type": self.type,
            "format": self.format,
            "x-ogc-role": self.role,
        }
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True)
class Property:
    """A property that every parcel, or observation, has a place for."""

    kind: Kind
    column: Column
    """In statements that join each parcel's collection and one observation."""
    queryable: Queryable
    of_cluster: Column | None = None
    """Of ``Cluster``, where it says something of the observation's: few rows to look through, from
    which an index leads to the observations."""


def _text(column: Column, name: str, title: str, about: str, role: str | None = None) -> Property:
    return Property("text", column, Queryable(name, title, about, "string", None, role))


def _number(column: Column, name: str, title: str, about: str) -> Property:
    return Property("number", column, Queryable(name, title, about, "number"))


def _of_cluster(kind: Kind, column: Column, name: str, title: str, about: str) -> Property:
    found = Queryable(name, title, about, "string" if kind == "text" else "number")
    return Property(kind, of_observation(column), found, of_cluster=column)


_FIXED = (
    _text(Parcel.parcel_id, "id", "Id", "Id of the parcel, unique in its collection.", "id"),
    _text(Collection.name, "collection", "Collection", "Name of the parcel's collection."),
    _text(
        Parcel.crop_code,
        "crop:code",
        "Crop code",
        "Declared crop, in the code list of its collection.",
    ),
    _text(
        Parcel.crop_name,
        "crop:name",
        "Crop name",
        "Declared crop, in the language of its collection.",
    ),
    _number(Parcel.area_m2, "metrics:area", "Area", "Area of the parcel in square meters."),
    Property(
        "geometry",
        Parcel.geometry,
        Queryable(
            "geometry",
            "Geometry",
            "Outline of the parcel, longitude and latitude in degrees (WGS 84).",
            None,
            "geometry-any",
            "primary-geometry",
        ),
    ),
    Property(
        "time",
        Observation.acquired_at,
        Queryable(
            "datetime",
            "Acquisition time",
            "When the observation was acquired, in UTC.",
            "string",
            "date-time",
            "primary-instant",
        ),
    ),
    _number(
        Observation.valid_fraction,
        "valid_fraction",
        "Valid fraction",
        "Share of the parcel that the observation shows free of clouds, 0 to 1.",
    ),
    Property(
        "boolean",
        Observation.reliable,
        Queryable(
            "reliable",
            "Reliable",
            "Whether the observation shows enough of the parcel to be relied on.",
            "boolean",
        ),
    ),
    *(
        _number(
            Observation.indices[(index.name, "median")].as_float(),
            index.name,
            index.long_name,
            f"Median over the parcel's valid pixels, unitless: {index.formula}.",
        )
        for index in INDICES.values()
    ),
    _of_cluster(
        "text",
        Cluster.name,
        "cluster",
        "Cluster",
        "Name that an expert gave to the observation's cluster of parcels that look alike.",
    ),
    _of_cluster(
        "number",
        Cluster.number,
        "cluster:number",
        "Number of the cluster",
        "Number of that cluster in its collection, 1 for the largest when they were made.",
    ),
    _number(
        of_observation(ClusterMember.score),
        "cluster:score",
        "Closeness to the cluster",
        "Cosine similarity of the observation to the center of that cluster, -1 to 1.",
    ),
)

PROPERTIES: Final[dict[str, Property]] = {one.queryable.name: one for one in _FIXED}
"""The fixed properties by name; they win over attributes of the same name."""


def fixed_queryables() -> list[Queryable]:
    """The properties that may be named whatever the parcels have, in the order to tell them."""
    return [one.queryable for one in _FIXED]


def attribute_queryables(connection: Connection, collections: tuple[str, ...]) -> list[Queryable]:
    """The attributes that some parcels have, with the types of their values, by name.

    Exact, and so it reads the attributes of every parcel: about half a second for 200,000 parcels
    of ten attributes. A cache of it holds until the next publication.

    Args:
        connection: Open connection.
        collections: Of these; empty means of all.
    """
    found = kinds_of_attributes(connection, collections)
    return [
        Queryable(name, name, "Attribute of the parcel, as its file has it.", _one_type(kinds))
        for name, kinds in found.items()
        if name not in PROPERTIES
    ]


def _one_type(kinds: frozenset[str]) -> str | None:
    """The type that all values have; None where they differ."""
    (kind, *others) = kinds
    return None if others else kind
