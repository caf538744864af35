"""A parcel against its kind: how it stands among its crop, and what its look-alikes grow.

Peers are drawn from the candidates of ``retriever.candidates``, in two groups. Look-alikes are the
parcels with the most similar vectors; since a vector also tells how green a parcel is, they pull
a percentile towards the middle. Neighbors are the parcels nearest on the ground, whatever they
look like; among them a parcel that has fallen behind stands out.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import numpy as np
from sqlalchemy import Connection

from retriever.candidates import (
    COMPARABLE,
    Anchor,
    Candidates,
    candidates,
    distances_km,
)
from retriever.described import DescribedRow, describe_rows
from retriever.published import OpenGeneration
from retriever.results import iso
from retriever.statements import DeclaredCrop

MOST_PEERS = 50

MIN_PEERS = 5
"""Fewest peers that a percentile or a share is told of."""

LOOK_ALIKES = 10
"""Look-alikes whose crops are counted."""

MAJORITY = 0.5
"""Share of the look-alikes beyond which they contradict what a parcel declares."""

STANDING_INDICES = ("NDVI", "NDMI")

NAMED_PEERS = 5
"""Peers of a group that are named: the closest."""


@dataclass(frozen=True)
class Standing:
    """Where one value stands among those of the peers."""

    value: float
    percentile: float
    """Share of the peers below it, and half of those equal to it, 0 to 100."""
    median: float
    """Of the peers, as are the next two."""
    p10: float
    p90: float

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "value": round(self.value, 4),
            "percentile": round(self.percentile, 1),
            "median": round(self.median, 4),
            "p10": round(self.p10, 4),
            "p90": round(self.p90, 4),
        }


@dataclass(frozen=True)
class Peer:
    """A parcel of the same crop."""

    collection: str
    parcel_id: str
    acquired_at: datetime
    score: float | None
    """Cosine similarity to the parcel's vector, -1 to 1; None for neighbors."""
    distance_km: float | None
    """From middle to middle; None where either has no place."""
    medians: dict[str, float]
    """Of ``STANDING_INDICES``, unitless; without those that were not measured."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "collection": self.collection,
            "id": self.parcel_id,
            "datetime": iso(self.acquired_at),
            "score": None if self.score is None else round(self.score, 4),
            "distance_km": None if self.distance_km is None else round(self.distance_km, 2),
            "medians": {name: round(median, 4) for name, median in self.medians.items()},
        }


@dataclass(frozen=True)
class PeerGroup:
    """Parcels of the same crop, and how the parcel stands among them."""

    peers: tuple[Peer, ...]
    """Closest first: by vector, or on the ground."""
    standings: dict[str, Standing]
    """By spectral index; empty where there are too few peers."""
    within_km: float | None
    """How far away they were looked for; None where the parcel has no place."""

    @property
    def parcels(self) -> frozenset[tuple[str, str]]:
        """Collection and id of each."""
        return frozenset((peer.collection, peer.parcel_id) for peer in self.peers)

    @property
    def too_few(self) -> bool:
        """Whether there are too few for a percentile."""
        return len(self.peers) < MIN_PEERS

    @property
    def start(self) -> datetime | None:
        """When the first of them was observed."""
        return min((peer.acquired_at for peer in self.peers), default=None)

    @property
    def end(self) -> datetime | None:
        """When the last of them was observed."""
        return max((peer.acquired_at for peer in self.peers), default=None)

    @property
    def farthest_km(self) -> float | None:
        """How far away the farthest is."""
        known = [peer.distance_km for peer in self.peers if peer.distance_km is not None]
        return max(known, default=None)

    @property
    def lowest_score(self) -> float | None:
        """Cosine similarity of the least similar of them; None for neighbors."""
        return min((peer.score for peer in self.peers if peer.score is not None), default=None)

    def to_dict(self) -> dict[str, Any]:
        """JSON form; names the closest of them."""
        return {
            "n": len(self.peers),
            "too_few": self.too_few,
            "within_km": self.within_km,
            "start": iso(self.start),
            "end": iso(self.end),
            "farthest_km": None if self.farthest_km is None else round(self.farthest_km, 2),
            "lowest_score": None if self.lowest_score is None else round(self.lowest_score, 4),
            "indices": {name: standing.to_dict() for name, standing in self.standings.items()},
            "closest": [peer.to_dict() for peer in self.peers[:NAMED_PEERS]],
        }


@dataclass(frozen=True)
class CropVote:
    """What the look-alikes of a parcel grow, whatever is declared of it."""

    declared: DeclaredCrop
    n: int
    """Look-alikes with a declared crop."""
    within_km: float | None
    """How far away they were looked for; None where the parcel has no place."""
    suggested_code: str | None = None
    suggested_name: str | None = None
    share: float | None = None
    """Share of the look-alikes that declare it; None if there are too few."""
    declared_share: float | None = None
    """Share of the look-alikes that declare what the parcel declares; None if there are too few,
    or if it declares nothing."""
    agrees: bool | None = None
    """Whether the suggested crop is the declared one. False only where more than half of the
    look-alikes contradict; None where nothing can be said."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "declared": {"crop:code": self.declared.code, "crop:name": self.declared.name},
            "suggested": {"crop:code": self.suggested_code, "crop:name": self.suggested_name},
            "share": None if self.share is None else round(self.share, 4),
            "declared_share": (
                None if self.declared_share is None else round(self.declared_share, 4)
            ),
            "n": self.n,
            "too_few": self.share is None,
            "within_km": self.within_km,
            "agrees": self.agrees,
        }


@dataclass(frozen=True)
class Peers:
    """A parcel against its kind."""

    acquired_at: datetime
    """When the parcel was observed."""
    scene: str
    similar: PeerGroup | None
    """Its look-alikes; None where its crop is not declared."""
    nearby: PeerGroup | None
    """Its neighbors; None where its crop or its place is not known."""
    crop: CropVote

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "datetime": iso(self.acquired_at),
            "scene": self.scene,
            "within_days": COMPARABLE.days,
            "similar": None if self.similar is None else self.similar.to_dict(),
            "nearby": None if self.nearby is None else self.nearby.to_dict(),
            "crop": self.crop.to_dict(),
        }


def peers_of(connection: Connection, generation: OpenGeneration, anchor: Anchor) -> Peers:
    """Hold a parcel's observation against its kind."""
    similar = nearby = None
    if anchor.crop.code or anchor.crop.name:
        kind = candidates(connection, generation, anchor, anchor.crop)
        scores = kind.most_similar(generation, anchor.vector, MOST_PEERS)
        similar = _group(connection, anchor, kind, list(scores), scores)
        if anchor.place is not None:
            nearest = kind.nearest(anchor.place, MOST_PEERS)
            nearby = _group(connection, anchor, kind, nearest, {})
    anything = candidates(connection, generation, anchor, None)
    found = anything.most_similar(generation, anchor.vector, LOOK_ALIKES)
    described = describe_rows(connection, list(found))
    look_alikes = [described[row] for row in found if row in described]
    vote = _vote(anchor.crop, look_alikes, anything.within_km)
    return Peers(anchor.acquired_at, anchor.scene, similar, nearby, vote)


def _group(
    connection: Connection,
    anchor: Anchor,
    found: Candidates,
    rows: Sequence[int],
    scores: Mapping[int, float],
) -> PeerGroup:
    described = describe_rows(connection, rows)
    peers = tuple(
        _peer(anchor, described[row], scores.get(row)) for row in rows if row in described
    )
    standings: dict[str, Standing] = {}
    for index in STANDING_INDICES:
        values = [peer.medians[index] for peer in peers if index in peer.medians]
        if index in anchor.medians and len(values) >= MIN_PEERS:
            standings[index] = standing_of(anchor.medians[index], values)
    return PeerGroup(peers, standings, found.within_km)


def _peer(anchor: Anchor, row: DescribedRow, score: float | None) -> Peer:
    distance = None
    if anchor.place is not None and row.longitude is not None:
        distance = float(distances_km(anchor.place, np.array([[row.longitude, row.latitude]]))[0])
    return Peer(
        collection=row.collection,
        parcel_id=row.parcel_id,
        # Undated observations are no candidates.
        acquired_at=cast(datetime, row.acquired_at),
        score=score,
        distance_km=distance,
        medians={
            name: row.indices[name]["median"] for name in STANDING_INDICES if name in row.indices
        },
    )


def standing_of(value: float, others: Sequence[float]) -> Standing:
    """Where a value stands among others.

    Args:
        value: The parcel's.
        others: The peers', at least one.
    """
    values = np.asarray(others, dtype=np.float64)
    below = np.count_nonzero(values < value) + 0.5 * np.count_nonzero(values == value)
    p10, median, p90 = np.quantile(values, (0.1, 0.5, 0.9))
    return Standing(value, 100 * below / len(values), float(median), float(p10), float(p90))


def _vote(
    declared: DeclaredCrop, look_alikes: Sequence[DescribedRow], within_km: float | None
) -> CropVote:
    """The crop that most look-alikes declare; of two equals, the one whose parcel is closer."""
    declaring = [row for row in look_alikes if row.crop_code or row.crop_name]
    if len(declaring) < MIN_PEERS:
        return CropVote(declared, len(declaring), within_km)
    votes = Counter(map(_crop_key, declaring))
    ((winner, count),) = votes.most_common(1)
    suggested = next(row for row in declaring if _crop_key(row) == winner)
    share = count / len(declaring)
    own_share = None
    agrees = None
    if declared.code or declared.name:
        own_share = sum(_is_same(declared, row) is True for row in declaring) / len(declaring)
        agrees = _is_same(declared, suggested)
        if agrees is False and share <= MAJORITY:
            # Where few parcels grow a crop, others outvote it without contradicting it.
            agrees = None
    return CropVote(
        declared,
        len(declaring),
        within_km,
        suggested_code=suggested.crop_code,
        suggested_name=suggested.crop_name,
        share=share,
        declared_share=own_share,
        agrees=agrees,
    )


def _crop_key(row: DescribedRow) -> str:
    """What makes two declarations one: the name, since each collection has its own codes."""
    return str(row.crop_name or row.crop_code).casefold()


def _is_same(declared: DeclaredCrop, row: DescribedRow) -> bool | None:
    """Whether a parcel declares a crop; None where a code stands against a name."""
    same_list = declared.collection_id == row.collection_id
    by_code = (declared.code, row.crop_code)
    by_name = (declared.name, row.crop_name)
    for one, other in (by_code, by_name) if same_list else (by_name, by_code):
        if one and other:
            return bool(one.casefold() == other.casefold())
    return None
