"""Parameters that several routes take, with the words that OpenAPI says of them."""

from typing import Annotated, Any, Final, Literal

from fastapi import Path, Query
from pydantic import Field, StringConstraints

from api.links import CRS84
from indexer.vector_index.effort import RECALLS

# PostgreSQL refuses text that holds a NUL; nothing stored can match it anyway.
Text = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\x00]*$")]

CollectionName = Annotated[
    Text, Path(description="Name of the parcel's collection.", examples=["demo"])
]
ParcelId = Annotated[
    Text,
    Path(description="Id of the parcel, percent-encoded where need be.", examples=["demo-012"]),
]
DatetimeText = Annotated[
    str | None,
    Query(
        alias="datetime",
        description="Only observations acquired then: a date, a time, or an interval with `..` "
        "for an open end. A date stands for the whole day, a month for the whole month.",
        examples=["2023-04-01/2023-06-30"],
    ),
]
BboxText = Annotated[
    str | None,
    Query(
        description="Only parcels that touch it: `west,south,east,north` in degrees; west above "
        "east crosses the antimeridian. Of six numbers, the heights are left out.",
        examples=["2.0,49.2,2.1,49.3"],
    ),
]
FilterText = Annotated[
    str | None,
    Query(
        alias="filter",
        description="Only what fits, in CQL2 (https://docs.ogc.org/is/21-065r2/21-065r2.html).",
        examples=["\"crop:name\" = 'winter wheat' AND NDVI > 0.6"],
    ),
]
_RECALL = (
    "Share of the true nearest that is to be found, as was measured when the index was built: 0.9, "
    "0.95 or 0.99. More takes longer."
)
_EXPLAIN = "Say in the answer how the matches were found, and what it cost."

# The searcher checks it, so that every door refuses it in the same words.
_RECALL_BOUNDS: Final[dict[str, Any]] = {"exclusiveMinimum": 0, "maximum": RECALLS[-1]}

Recall = Annotated[
    float, Query(description=_RECALL, examples=[0.99], json_schema_extra=_RECALL_BOUNDS)
]
Explain = Annotated[bool, Query(description=_EXPLAIN, examples=[True])]

RecallField = Annotated[
    float, Field(description=_RECALL, examples=[0.99], json_schema_extra=_RECALL_BOUNDS)
]
ExplainField = Annotated[bool, Field(description=_EXPLAIN, examples=[True])]

FilterLanguage = Annotated[
    Literal["cql2-text", "cql2-json"],
    Query(alias="filter-lang", description="How the filter is written.", examples=["cql2-text"]),
]

# A Literal has to be written out; it is CRS84 of ``api.links``.
_Crs84 = Literal["http://www.opengis.net/def/crs/OGC/1.3/CRS84"]
_THE_ONLY_ONE = "longitude and latitude (CRS84), the only one that there is."

Crs = Annotated[
    _Crs84,
    Query(description=f"Reference system of the answer: {_THE_ONLY_ONE}", examples=[CRS84]),
]
BboxCrs = Annotated[
    _Crs84,
    Query(
        alias="bbox-crs",
        description=f"Reference system of `bbox`: {_THE_ONLY_ONE}",
        examples=[CRS84],
    ),
]
FilterCrs = Annotated[
    _Crs84,
    Query(
        alias="filter-crs",
        description=f"Reference system of `filter`: {_THE_ONLY_ONE}",
        examples=[CRS84],
    ),
]
