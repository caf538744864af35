"""``map``: every valid pixel of an image gets a class. The pipeline, top to bottom.

1. open the image, find in it the bands that the encoder was trained on;
2. look at every pixel once: which are valid, how many differ, how their bands vary;
3. embed a sample, choose k from the bands alone, fit the classes, unless these are stored;
4. label block by block, number the classes by size, carry names over;
5. write map, legend and plots; score where the truth is known.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

from indexer.clusters.naming import quoted
from indexer.encoders.choice import encoder_file
from indexer.encoders.simple_vit import NAME, SimpleViTEncoder
from indexer.errors import ImageryError, InvalidInputError
from indexer.imagery.spectral_image import (
    SpectralImage,
    open_spectral_image,
    read_labels,
    select_bands,
    without_empty_bands,
)
from indexer.mapping import plots
from indexer.mapping.blocks import Source, Survey, survey
from indexer.mapping.choose_k import MAX_PIXELS, KChoice, choose_k
from indexer.mapping.class_map import (
    EarlierMap,
    MapClass,
    check_target,
    opened_map,
    read_earlier,
    write_class_map,
)
from indexer.mapping.comparison import Scored, Truth, compare_others, score_ways
from indexer.mapping.labelling import Tally, label_blocks, map_classes
from indexer.mapping.methods import MAX_CLASSES, METHODS, Fitted
from indexer.mapping.names import NamedCenter, carry_names
from indexer.mapping.pixel_features import (
    EncoderFeatures,
    PixelFeatures,
    minimum_noise_fraction,
)
from indexer.mapping.stored_classes import (
    ProjectedFeatures,
    StoredClasses,
    read_stored_classes,
)
from indexer.mapping.views import sample_views
from indexer.progress import Progress, Silent
from indexer.settings import Settings

MethodName = Literal["kmeans", "spectral", "gmm", "mnf-kmeans"]

DEFAULT_METHOD: Final[MethodName] = "kmeans"
"""With an encoder."""
STORED: Final = "clusters"
"""What a map of stored clusters says in place of a method."""
WITHOUT_ENCODER: Final[MethodName] = "mnf-kmeans"

_ENCODER_PREFIX = f"{NAME}:"


@dataclass(frozen=True)
class MapOptions:
    """How a map is made, as on the command line."""

    encoder: str | None = None
    """``simple-vit:FILE``; None only where the method needs none."""
    k: int | None = None
    """None chooses."""
    method: MethodName | None = None
    """None means ``kmeans`` with an encoder, else ``mnf-kmeans``."""
    collection: str | None = None
    """The classes are the stored clusters of this collection; then neither k, nor method, nor names
    can be given."""
    labels: Path | None = None
    """Known classes, to score the map."""
    plots: Path | None = None
    """Folder for plots."""
    names: Mapping[int, str] = field(default_factory=dict)
    """Of classes, by number."""
    bands: str | None = None
    baseline: str | None = None
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True)
class MapReport:
    """What a map holds and how it came about."""

    files: list[str]
    image: str
    shape: tuple[int, int]
    pixels: int
    """With data."""
    encoder: dict[str, Any] | None
    collection: dict[str, Any] | None
    """Whose stored clusters the classes are: ``name``, ``generation`` and ``space``."""
    method: str
    seed: int
    choice: KChoice
    classes: list[MapClass]
    unmatched_names: list[NamedCenter]
    scores: list[Scored]
    """The map first; empty where no truth is known."""
    seconds: float
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """JSON form; mean spectra and centers stand in the legend."""
        classes = [one.to_dict() for one in self.classes]
        for one in classes:
            for key in ("mean_spectrum", "std_spectrum", "center"):
                del one[key]
        return {
            "files": self.files,
            "image": self.image,
            "height": self.shape[0],
            "width": self.shape[1],
            "pixels": self.pixels,
            "encoder": self.encoder,
            "collection": self.collection,
            "method": self.method,
            "seed": self.seed,
            "k": len(self.classes),
            "choice": self.choice.to_dict(),
            "classes": classes,
            "unmatched_names": [named.name for named in self.unmatched_names],
            "scores": [scored.to_dict() for scored in self.scores],
            "seconds": round(self.seconds, 3),
            "notes": self.notes,
        }


def map_image(
    path: Path,
    out: Path,
    options: MapOptions | None = None,
    progress: Progress | None = None,
    settings: Settings | None = None,
) -> MapReport:
    """Give every valid pixel of an image a class.

    Args:
        path: The image, as ``open_spectral_image`` reads it.
        out: The map, ``.tif``; its legend stands beside it, ``.json``.
        options: As on the command line.
        progress: Is told how far the work has come.
        settings: Where the index is; only asked for a collection. None means the default place.

    Raises:
        InvalidInputError: If an option is wrong (``invalid-k``, ``invalid-option``).
        NotFoundError: If there is no such collection, or it was never grouped.
        GenerationMismatchError: If its clusters were made with another encoder.
        ImageryError: If the image, or the truth, cannot be used.
        WeightsError: If the encoder's file cannot be used.
        StorageError: If the map cannot be written.
    """
    options, progress = options or MapOptions(), progress or Silent()
    started = time.monotonic()
    method = check_options(options)
    file = None if options.encoder is None else encoder_path(options.encoder)
    inputs = [one for one in (path, options.labels, file) if one is not None]
    check_target(out, [one for one in inputs if one.exists()])
    if options.plots is not None:
        plots.check_folder(options.plots)
    stored = None
    if options.collection is not None:
        stored = read_stored_classes(settings or Settings(), options.collection)

    whole = open_spectral_image(path, bands=options.bands, baseline=options.baseline)
    image, encoder = whole, None
    if file is not None and method != WITHOUT_ENCODER:
        encoder = SimpleViTEncoder.load(file, options.device)
        if stored is not None:
            stored.check(encoder)
        image = select_bands(whole, encoder.bands)
    truth = None if options.labels is None else Truth(*read_labels(options.labels, image.shape))
    chooses = options.k is None and stored is None
    needs_statistics = encoder is None or truth is not None or chooses
    image, found = _surveyed(image, progress, with_statistics=needs_statistics)
    check_k(options.k, found)

    features = _features(encoder, found, stored)
    source = Source.draw(image, features, found, options.seed, progress)
    # Where classes are stored, this is how others are compared with them.
    clustering = method if method in METHODS else "kmeans"
    fit = METHODS[clustering](source.sample, options.seed).fit if stored is None else stored.fit
    choice = _choose(whole, source, options, stored, progress)
    fitted = fit(choice.k)

    earlier = read_earlier(out)
    notes = [*image.notes, *_notes_on(encoder, choice, fitted)]
    notes += () if stored is None else stored.notes
    if encoder is None and file is not None:
        notes.append(f"--method {method} clusters the pixels themselves; the encoder is not used")
    provisional = out.with_name(f".{out.name}.found")
    try:
        keep = stored is not None
        tally = label_blocks(source, fitted, provisional, progress, keep_numbers=keep)
        classes = map_classes(tally, found.pixels)
        if stored is None:
            classes, unmatched, said = _named(classes, options.names, earlier, features.digest)
        else:
            classes, unmatched, said = _named_as_stored(classes, stored, earlier)
        about = _about(path, image, encoder, stored, method, options, choice, source, unmatched)
        files = write_class_map(out, provisional, tally.numbers, classes, about, _tags(path, about))
    finally:
        provisional.unlink(missing_ok=True)
    report = MapReport(
        files=[str(file) for file in files],
        image=str(path),
        shape=image.shape,
        pixels=found.pixels,
        encoder=about["encoder"],
        collection=about["collection"],
        method=method,
        seed=options.seed,
        choice=choice,
        classes=classes,
        unmatched_names=unmatched,
        scores=[],
        seconds=0.0,
        notes=[*notes, *said],
    )
    if truth is not None:
        report = _scored(report, source, clustering, fit, encoder, truth, tally, progress)
    if options.plots is not None:
        report = _plotted(report, options.plots, image, source, fitted, tally, out, progress)
    return replace(report, seconds=time.monotonic() - started)


# Options ----------------------------------------------------------------------------------------


def check_options(options: MapOptions) -> MethodName | Literal["clusters"]:
    """The method that the options mean.

    Raises:
        InvalidInputError: ``invalid-option`` or ``invalid-k``.
    """
    if options.collection is not None:
        _check_collection(options, options.collection)
        return STORED
    method = options.method or (WITHOUT_ENCODER if options.encoder is None else DEFAULT_METHOD)
    if method not in (*METHODS, WITHOUT_ENCODER):
        raise InvalidInputError(
            f"--method {method}: use one of {', '.join((*METHODS, WITHOUT_ENCODER))}.",
            kind="invalid-option",
        )
    if options.encoder is None and method != WITHOUT_ENCODER:
        raise InvalidInputError(
            f"--method {method} clusters an encoder's features: give --encoder {_ENCODER_PREFIX}"
            f"FILE, which parcelle pretrain makes, or use --method {WITHOUT_ENCODER}.",
            kind="invalid-option",
        )
    if options.k is not None and not 2 <= options.k <= MAX_CLASSES:
        raise InvalidInputError(
            f"--k {options.k}: give auto, or a number from 2 to {MAX_CLASSES}.", kind="invalid-k"
        )
    return method


def _check_collection(options: MapOptions, collection: str) -> None:
    """Refuse what contradicts stored clusters."""
    for option, value in (("k", options.k), ("method", options.method)):
        if value is not None:
            raise InvalidInputError(
                f"--{option} {value}: the classes are the clusters of {quoted(collection)}; leave "
                f"--{option} or --collection away.",
                kind="invalid-option",
            )
    if options.names:
        raise InvalidInputError(
            f"--name: the clusters of {quoted(collection)} have names of their own; give them with "
            "parcelle cluster name.",
            kind="invalid-option",
        )
    if options.encoder is None:
        raise InvalidInputError(
            f"--collection {collection}: needs --encoder {_ENCODER_PREFIX}FILE, the encoder that "
            "the collection was reindexed with.",
            kind="invalid-option",
        )


def encoder_path(encoder: str) -> Path:
    """The file that ``simple-vit:FILE`` names.

    Raises:
        InvalidInputError: ``unknown-encoder``.
    """
    file = encoder_file(encoder)
    if file is None:
        raise InvalidInputError(
            f"--encoder {encoder!r}: maps are made with {_ENCODER_PREFIX}FILE; parcelle pretrain "
            "makes the file.",
            kind="unknown-encoder",
        )
    return file


def check_k(k: int | None, found: Survey) -> None:
    """Refuse more classes than there are different pixels.

    Raises:
        InvalidInputError: ``invalid-k``.
    """
    if k is not None and k > found.different:
        raise InvalidInputError(
            f"--k {k}: the image has only {found.different} different pixels, so it cannot have "
            f"{k} classes; give at most {found.different}, or auto.",
            kind="invalid-k",
        )


# Steps ------------------------------------------------------------------------------------------


def _features(
    encoder: SimpleViTEncoder | None, found: Survey, stored: StoredClasses | None
) -> PixelFeatures:
    if encoder is not None:
        features = EncoderFeatures(encoder)
        if stored is None:
            return features
        return ProjectedFeatures(features, stored.projection, stored.space_digest)
    if found.statistics is None:
        raise TypeError("MNF needs statistics of the image")
    return minimum_noise_fraction(found.statistics)


def _surveyed(
    image: SpectralImage, progress: Progress, *, with_statistics: bool
) -> tuple[SpectralImage, Survey]:
    """Look at every pixel; where none is valid in every band, without the bands that are empty."""
    try:
        return image, survey(image, progress, with_statistics=with_statistics)
    except ImageryError as error:
        if error.kind != "no-valid-pixels":
            raise
    image = without_empty_bands(image)
    return image, survey(image, progress, with_statistics=with_statistics)


def _choose(
    whole: SpectralImage,
    source: Source,
    options: MapOptions,
    stored: StoredClasses | None,
    progress: Progress,
) -> KChoice:
    """The number of classes that was asked for, or that the image tells, whatever the encoder."""
    if stored is not None:
        reason = f"The classes are the {stored.k} clusters of {quoted(stored.collection)}."
        return KChoice(stored.k, reason)
    if options.k is not None:
        return KChoice(options.k, f"k = {options.k} was asked for.")
    found = source.survey
    if source.image.bands != whole.bands:
        whole, found = _surveyed(whole, progress, with_statistics=True)
    views = sample_views(whole, found, MAX_PIXELS, options.seed, progress)
    return choose_k(views, options.seed, progress)


def _named(
    classes: list[MapClass],
    given: Mapping[int, str],
    earlier: EarlierMap | None,
    features: str,
) -> tuple[list[MapClass], list[NamedCenter], list[str]]:
    """Classes with the names that are known, names without a class, and what must be said."""
    names: dict[int, str] = {}
    unmatched: list[NamedCenter] = []
    notes: list[str] = []
    centers = [one.center for one in classes]
    if earlier is not None and earlier.names:
        if earlier.features == features:
            names, unmatched = carry_names(earlier.names, earlier.centers, centers)
        else:
            # Centers of other features cannot be compared with these.
            unmatched = list(earlier.names)
        # A name that is given now needs no carrying.
        unmatched = [named for named in unmatched if named.name not in given.values()]
    if unmatched:
        notes.append(
            f"names that no class of this map certainly is: "
            f"{', '.join(sorted({named.name for named in unmatched}))}. They are kept in the "
            "legend; give them with --name NUMBER=NAME."
        )
    numbers = {one.number for one in classes}
    beyond = sorted(set(given) - numbers)
    if beyond:
        notes.append(
            f"there is no class {', '.join(map(str, beyond))} to name; the map has classes 1 to "
            f"{len(classes)}"
        )
    names |= {number: name for number, name in given.items() if number in numbers}
    return [replace(one, name=names.get(one.number)) for one in classes], unmatched, notes


def _named_as_stored(
    classes: list[MapClass], stored: StoredClasses, earlier: EarlierMap | None
) -> tuple[list[MapClass], list[NamedCenter], list[str]]:
    """Classes with their clusters' names, names of the map before, and what must be said."""
    kept = [] if earlier is None else list(earlier.names)
    notes = []
    if kept:
        listed = ", ".join(sorted({named.name for named in kept}))
        notes.append(
            f"the map that stood here had names of its own: {listed}. They are kept in the legend, "
            "but the classes bear the names of their clusters."
        )
    return [replace(one, name=stored.names[one.number - 1]) for one in classes], kept, notes


def _notes_on(encoder: SimpleViTEncoder | None, choice: KChoice, fitted: Fitted) -> list[str]:
    notes = []
    if encoder is not None and not encoder.trained:
        notes.append(f"{encoder.path.name} is untrained: its features are those of random weights")
    if fitted.k < choice.k:
        notes.append(
            f"only {fitted.k} of {choice.k} classes could be told apart in the pixels sampled"
        )
    return notes


# What is written --------------------------------------------------------------------------------


def _about(
    path: Path,
    image: SpectralImage,
    encoder: SimpleViTEncoder | None,
    stored: StoredClasses | None,
    method: str,
    options: MapOptions,
    choice: KChoice,
    source: Source,
    unmatched: Sequence[NamedCenter],
) -> dict[str, Any]:
    """What the legend says beside the classes."""
    return {
        "image": path.name,
        "pixels": source.survey.pixels,
        "sampled": len(source.sample),
        "encoder": None
        if encoder is None
        else {
            "name": encoder.name,
            "file": encoder.path.name,
            "digest": encoder.digest,
            "trained": encoder.trained,
            "recipe": encoder.recipe_name,
        },
        "collection": None
        if stored is None
        else {
            "name": stored.collection,
            "generation": stored.generation,
            "space": stored.space_digest,
        },
        "features": {"name": source.features.name, "digest": source.features.digest},
        "method": method,
        "seed": options.seed,
        "k": choice.k,
        "choice": choice.to_dict(),
        "bands": [
            {"name": band.name, "center_wavelength_um": band.center_wavelength_um}
            for band in image.bands
        ],
        "unmatched_names": [
            {"name": named.name, "class": named.number, "center": list(named.center)}
            for named in unmatched
        ],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": f"parcelle {version('parcelle')}",
    }


def _tags(path: Path, about: Mapping[str, Any]) -> dict[str, str]:
    encoder = about["encoder"] or {"name": "none", "digest": "none"}
    collection = about["collection"]
    return {
        **({} if collection is None else {"PARCELLE_COLLECTION": collection["name"]}),
        "PARCELLE_IMAGE": path.name,
        "PARCELLE_ENCODER": encoder["name"],
        "PARCELLE_ENCODER_DIGEST": encoder["digest"],
        "PARCELLE_METHOD": about["method"],
        "PARCELLE_K": str(about["k"]),
        "PARCELLE_SEED": str(about["seed"]),
        "PARCELLE_CREATED": about["created"],
        "TIFFTAG_SOFTWARE": about["software"],
    }


def _scored(
    report: MapReport,
    source: Source,
    clustering: str,
    fit: Callable[[int], Fitted],
    encoder: SimpleViTEncoder | None,
    truth: Truth,
    tally: Tally,
    progress: Progress,
) -> MapReport:
    if truth.classes == 0:
        note = "the labels hold no class, so there is nothing to score"
        return replace(report, notes=[*report.notes, note])
    ks = (report.choice.k, min(truth.classes, MAX_CLASSES))
    own, method = (ks, clustering) if report.collection is None else (ks[:1], STORED)
    ways = {k: fit(k) for k in dict.fromkeys(own)}
    scores = score_ways(source, method, ways, truth, progress, tally.numbers)
    scores += compare_others(source, clustering, encoder, truth, ks, report.seed, progress)
    return replace(report, scores=scores)


def _plotted(
    report: MapReport,
    folder: Path,
    image: SpectralImage,
    source: Source,
    fitted: Fitted,
    tally: Tally,
    out: Path,
    progress: Progress,
) -> MapReport:
    """Draw everything that there is to see."""
    labels = tally.numbers[fitted.predict(source.sample) + 1]
    with opened_map(out) as raster:
        files = plots.draw_all(
            folder,
            plots.Drawn(
                title=Path(report.image).name,
                image=image,
                classes=[one for one in report.classes if one.pixels],
                choice=report.choice,
                features_name=source.features.name,
                sample=source.sample,
                sample_labels=labels,
                score=report.scores[0].score if report.scores else None,
                read_map=lambda height, width: raster.read(1, out_shape=(height, width)),
            ),
            report.seed,
            progress,
        )
    return replace(report, files=[*report.files, *(str(file) for file in files)])
