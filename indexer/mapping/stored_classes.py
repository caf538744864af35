"""The stored clusters of a collection as the classes of a map: one legend for many images.

A pixel is put where a parcel would be that looks like it all over: its own features go through the
projection of the collection's embedding space, and the nearest centroid by cosine is its cluster.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from indexer.catalog.database import opened_catalog
from indexer.catalog.reading import collection_space, get_space
from indexer.clustering import nearest_centroids
from indexer.clusters.naming import only_collection, quoted, require_clustering
from indexer.errors import GenerationMismatchError
from indexer.mapping.pixel_features import EncoderFeatures
from indexer.projection import Projection
from indexer.settings import Settings

if TYPE_CHECKING:
    from indexer.encoders.simple_vit import SimpleViTEncoder

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class StoredClasses:
    """What a map needs of a collection's clusters."""

    collection: str
    generation: int
    """The generation that was grouped."""
    space_digest: str
    encoder_name: str
    encoder_digest: str
    projection: Projection
    centroids: FloatArray
    """By number, unit length, shape ``(k, 512)``."""
    names: tuple[str | None, ...]
    """As experts gave them, by number."""
    notes: tuple[str, ...]

    @property
    def k(self) -> int:
        """Clusters."""
        return len(self.centroids)

    def fit(self, _k: int) -> "StoredClasses":
        """Themselves, as a method would give them: they are what they are."""
        return self

    def predict(self, features: FloatArray) -> IntArray:
        """The cluster of each row of projected features, 0 for cluster 1, shape ``(n,)``."""
        return nearest_centroids(features, self.centroids)[0]

    def check(self, encoder: "SimpleViTEncoder") -> None:
        """Refuse features that the centroids cannot be compared with.

        Raises:
            GenerationMismatchError: ``space-mismatch``.
        """
        if encoder.digest != self.encoder_digest:
            raise GenerationMismatchError(
                f"The clusters of {quoted(self.collection)} were made with the encoder "
                f"{self.encoder_name} {self.encoder_digest[:12]}, but {encoder.path.name} is "
                f"{encoder.name} {encoder.digest[:12]}. Give the former, or reindex with this one "
                "and run parcelle cluster.",
                kind="space-mismatch",
            )


@dataclass(frozen=True)
class ProjectedFeatures:
    """An encoder's features in the space that a collection is searched in."""

    encoder: EncoderFeatures
    projection: Projection
    digest: str
    """The space's."""

    @property
    def name(self) -> str:
        """That of the encoder."""
        return self.encoder.name

    @property
    def margin_px(self) -> int:
        """Half a window."""
        return self.encoder.margin_px

    def of(self, values: FloatArray, valid_mask: BoolArray, wanted: BoolArray) -> FloatArray:
        """Unit vectors of the wanted pixels, see ``PixelFeatures``."""
        return self.projection.apply(self.encoder.of(values, valid_mask, wanted))


def read_stored_classes(settings: Settings, collection: str) -> StoredClasses:
    """Read the clusters of a collection.

    Raises:
        NotFoundError: If there is no such collection, or it was never grouped.
        StorageError: If the catalog cannot be used.
    """
    with opened_catalog(settings) as engine, engine.connect() as connection:
        name = only_collection(connection, collection)
        _, clustering = require_clustering(connection, name)
        space = get_space(connection, clustering.space_id)
        current = collection_space(connection, name)
    if space.projection is None or space.digest is None:
        raise TypeError("a space that was grouped is published")
    notes: tuple[str, ...] = ()
    if current is not None and current.id != space.id:
        notes = (
            f"the clusters are of an earlier embedding of {quoted(name)}; run parcelle cluster to "
            "group it as it is searched now",
        )
    return StoredClasses(
        collection=name,
        generation=clustering.generation_id,
        space_digest=space.digest,
        encoder_name=space.recipe["encoder"],
        encoder_digest=space.recipe["weights"]["digest"],
        projection=space.projection,
        centroids=clustering.centroids,
        names=tuple(cluster.name for cluster in clustering.clusters),
        notes=notes,
    )
