"""Parameters that several routes take, with the words that OpenAPI says of them."""

from typing import Annotated

from fastapi import Path, Query
from pydantic import StringConstraints

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
        "east crosses the antimeridian.",
        examples=["2.0,49.2,2.1,49.3"],
    ),
]
