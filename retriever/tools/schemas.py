"""The form of the tools' artifacts: what a program may rely on, as MCP's output schema says it.

Times are RFC 3339 in UTC. Spectral indices are unitless medians over the valid pixels unless
another statistic is named; scores are cosine similarities, -1 to 1.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Time = Annotated[str | None, Field(description="RFC 3339, UTC.")]
Cosine = Annotated[float, Field(ge=-1, le=1, description="Cosine similarity.")]
Share = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(ge=0, le=100)]
Medians = Annotated[dict[str, float], Field(description="Median by spectral index, unitless.")]


class Part(BaseModel):
    """A part of an artifact: these members and no others."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Page(Part):
    """An artifact that goes on."""

    cursor: Annotated[
        str | None, Field(description="Goes on after all that is in here; null at the end.")
    ]


class Space(Part):
    """An embedding space."""

    id: str | None
    encoder: str
    weights: Annotated[str, Field(description="trained or untrained.")]
    normalization: str
    pooling: str
    modality: str
    precision: str


class Key(Part):
    """The key of a parcel."""

    collection: str
    id: str


class Grouped(Part):
    """The stored cluster of look-alikes that an observation is in; null where there is none."""

    cluster: Annotated[str | None, Field(description="Name that an expert gave to it.")]
    cluster_number: Annotated[int | None, Field(alias="cluster:number")]
    cluster_score: Annotated[
        Annotated[float, Field(ge=-1, le=1)] | None,
        Field(alias="cluster:score", description="Cosine similarity to the cluster's center."),
    ]


class Parcel(Key):
    """What is declared of a parcel."""

    crop_code: Annotated[str | None, Field(alias="crop:code")]
    crop_name: Annotated[str | None, Field(alias="crop:name")]
    area_m2: Annotated[float | None, Field(alias="metrics:area", description="Square meters.")]


# find_similar_parcels ------------------------------------------------------------------------


class Example(Key):
    """A parcel that asks, by its latest reliable observation."""

    datetime: Time
    scene: str
    reliable: bool


class Query(Example):
    """What was asked; ``like`` and ``unlike`` only where more than one parcel asks."""

    k: int
    filter: dict[str, Any]
    like: list[Example] | None = None
    unlike: list[Example] | None = None


class Match(Parcel, Grouped):
    """A parcel that looks alike."""

    rank: int
    score: Cosine
    datetime: Time
    scene: str
    valid_fraction: Share
    reliable: bool
    medians: Medians


class SimilarArtifact(Page):
    """Of ``find_similar_parcels``."""

    query: Query
    generation: int
    space: Space
    matches: list[Match]
    notes: list[str]


# get_parcel_state ----------------------------------------------------------------------------


class Summary(Part):
    """A spectral index over the valid pixels."""

    median: float
    mean: float
    std: float
    p10: float
    p90: float


class Observation(Grouped):
    """What one scene shows of a parcel."""

    datetime: Time
    scene: str
    processing_baseline: str | None
    pixels_inside: float
    valid_pixels: float
    valid_fraction: Share
    covered_fraction: Share
    cloud_cover_percent: Percent | None
    reliable: bool
    indices: dict[str, Summary]


class Reliability(Part):
    """How well a parcel was seen."""

    observations: int
    reliable: int
    latest: Time
    latest_reliable: Time


class Trend(Part):
    """How fast an index has been changing."""

    index: str
    per_day: float
    observations: int
    start: Time
    end: Time
    method: str


class Peak(Part):
    """When an index was highest."""

    index: str
    median: float
    datetime: Time
    since: Time


class Change(Part):
    """Between the last two reliable observations with a vector."""

    start: Time
    end: Time
    days: float
    score: Cosine
    indices: Annotated[dict[str, float], Field(description="Later median minus earlier one.")]


class Gaps(Part):
    """Days between reliable observations; start and end are of the longest."""

    typical_days: float
    longest_days: float
    start: Time
    end: Time


class Standing(Part):
    """Where the parcel's value stands; the rest is of the peers."""

    value: float
    percentile: Percent
    median: float
    p10: float
    p90: float


class Peer(Key):
    """A parcel of the same crop."""

    datetime: Time
    score: Cosine | None
    distance_km: float | None
    medians: Medians


class PeerGroup(Part):
    """Parcels of the same crop."""

    n: int
    too_few: bool
    within_km: float | None
    start: Time
    end: Time
    farthest_km: float | None
    lowest_score: Cosine | None
    indices: dict[str, Standing]
    closest: Annotated[list[Peer], Field(description="Some of them, the closest first.")]


class Crop(Part):
    """A crop by code and name."""

    code: Annotated[str | None, Field(alias="crop:code")]
    name: Annotated[str | None, Field(alias="crop:name")]


class CropVote(Part):
    """What the look-alikes grow, beside what is declared."""

    declared: Crop
    suggested: Crop
    share: Share | None
    declared_share: Share | None
    n: int
    too_few: bool
    within_km: float | None
    agrees: bool | None


class Peers(Part):
    """The parcel against its kind."""

    datetime: Time
    scene: str
    within_days: int
    similar: PeerGroup | None
    nearby: PeerGroup | None
    crop: CropVote


class StateArtifact(Parcel, Grouped):
    """Of ``get_parcel_state``."""

    attributes: dict[str, Any]
    observations: list[Observation]
    reliability: Reliability
    trend: Trend | None
    peak: Peak | None
    last_change: Change | None
    gaps: Gaps | None
    peers: Peers | None
    formulas: Annotated[dict[str, str], Field(description="Formula by spectral index.")]
    generation: int | None
    space: Space | None
    notes: list[str]


# search_parcels ------------------------------------------------------------------------------


class Listed(Parcel, Grouped):
    """A stored parcel."""

    attributes: dict[str, Any]
    longitude: Annotated[float | None, Field(description="Degrees, of its bounding box's middle.")]
    latitude: float | None
    observations: int
    datetime: Time


class SearchArtifact(Page):
    """Of ``search_parcels``."""

    query: dict[str, Any]
    matched: Annotated[int, Field(description="Over all pages, counted up to 1000.")]
    matched_is_exact: bool
    parcels: list[Listed]


# compare_parcels -----------------------------------------------------------------------------


class Compared(Parcel):
    """One parcel of a comparison."""

    observation: Observation | None
    trend: Trend | None
    peak: Peak | None
    reliability: Reliability


class Score(Part):
    """How similar two of the parcels look."""

    a: Key
    b: Key
    score: Cosine


class CompareArtifact(Part):
    """Of ``compare_parcels``."""

    parcels: list[Compared]
    scores: list[Score]
    comparable: bool
    days_apart: float | None
    spaces: list[Space]
    notes: list[str]
