"""Options that several commands share, with the words that their help says."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """How matches are written."""

    table = "table"
    json = "json"
    geojson = "geojson"


class StateFormat(StrEnum):
    """How a state is written."""

    text = "text"
    json = "json"


class Normalization(StrEnum):
    """How reflectance becomes the encoder's input."""

    ssl4eo = "ssl4eo"
    dataset = "dataset"


class Pooling(StrEnum):
    """What an embedding averages over."""

    image = "image"
    parcel = "parcel"


class Precision(StrEnum):
    """Numbers that the network computes with."""

    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"


class Modality(StrEnum):
    """What CROMA looks at."""

    optical = "optical"
    sar = "sar"
    joint = "joint"


class Device(StrEnum):
    """Where the encoder runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


Imagery = Annotated[
    list[str] | None,
    typer.Argument(
        help="GeoTIFF files, folders (searched in depth) or quoted globs: chips, scenes, folders "
        "with one file per band, Sentinel-2 .SAFE folders and zips. For simple-vit also ENVI "
        "(.hdr) and NumPy (.npy, .npz). Not needed with --stac.",
        show_default=False,
    ),
]
Stac = Annotated[
    str | None,
    typer.Option(
        "--stac",
        metavar="URL",
        help="Take images from a STAC API, a static catalog or an item: an address or a file.",
    ),
]
StacBbox = Annotated[
    str | None,
    typer.Option(
        "--bbox",
        metavar="W,S,E,N",
        help="Only items of --stac that touch it, in degrees. Default: around the parcels.",
    ),
]
StacDatetime = Annotated[
    str | None,
    typer.Option(
        "--datetime",
        metavar="INTERVAL",
        help="Only items of --stac in it: 2021-05-01/2021-06-30, ../2021-06, 2021.",
    ),
]
MaxCloud = Annotated[
    float | None,
    typer.Option(
        "--max-cloud",
        metavar="PERCENT",
        min=0,
        max=100,
        help="Only items of --stac that are clouded at most so much, or do not say it.",
    ),
]
PrecisionChoice = Annotated[
    Precision | None,
    typer.Option(
        "--precision",
        help="Numbers that the network computes with; part of the embedding space. int8 "
        "may be faster still on x86 processors. Default: with reindex that of the collection's "
        "vectors, else bf16 where the device has it.",
        show_default=False,
    ),
]
ModalityChoice = Annotated[
    Modality,
    typer.Option("--modality", help="What CROMA looks at: Sentinel-2, Sentinel-1 (sar), or both."),
]
Gsd = Annotated[
    float | None,
    typer.Option(
        "--gsd",
        metavar="METERS",
        help="Pixel size that tiles are brought to around --parcels: 10, or 5 for small parcels "
        "(four times the work).",
    ),
]
ParcelsFile = Annotated[
    Path | None,
    typer.Option(
        "--parcels",
        help="Parcels to find on the images: GeoPackage, GeoJSON, Shapefile or GeoParquet. "
        "Without it, each image is one parcel.",
    ),
]
Windows = Annotated[
    int | None,
    typer.Option(
        "--windows",
        metavar="PX",
        min=8,
        max=1024,
        help="Cut each image into windows of PX x PX pixels, each a parcel of its own, named "
        "IMAGE-64px-r00120-c00240 by the window's side, first row and first column.",
    ),
]
IdColumn = Annotated[str | None, typer.Option("--id-column", help="Column of the parcels' ids.")]
CropColumn = Annotated[
    str | None, typer.Option("--crop-column", help="Column of the parcels' crop names.")
]
IntoCollection = Annotated[
    str, typer.Option("--collection", help="Name of the set that the parcels belong to.")
]
InCollection = Annotated[
    str | None,
    typer.Option("--collection", help="The parcel's collection; needed where ids repeat."),
]
Encoder = Annotated[
    str,
    typer.Option(
        "--encoder",
        help="croma-large, croma-base, or simple-vit:FILE, where parcelle pretrain made FILE.",
    ),
]
WeightsChoice = Annotated[
    str | None,
    typer.Option(
        "--weights",
        help="pretrained, a weight file, or untrained (random, for trials). "
        "Default: PARCELLE_CROMA_WEIGHTS, else pretrained. A simple-vit file holds its own.",
    ),
]
Bands = Annotated[
    str | None,
    typer.Option(
        "--bands",
        help="Band of each layer, for files that do not say: eurosat, l1c, l2a, s1, or a list "
        "such as B02,B03,B04,-,B08 ('-' passes a layer over) or l2a,s1.",
    ),
]
Baseline = Annotated[
    str | None,
    typer.Option(
        "--baseline",
        help="Sentinel-2 processing baseline of all images; from 04.00 on, 1000 is subtracted "
        "from the digital numbers. Default: as the file or its name tells.",
    ),
]
NormalizationChoice = Annotated[
    Normalization | None,
    typer.Option(
        "--normalization",
        help="ssl4eo: the statistics CROMA was pretrained with; dataset: this run's own, then "
        "frozen for the collection. Default: ssl4eo. A simple-vit file holds its own.",
    ),
]
PoolingChoice = Annotated[
    Pooling | None,
    typer.Option(
        "--pooling",
        help="Average over the parcel's patches, or over the whole image. Default: parcel where "
        "--parcels is given, else image.",
    ),
]
BatchSize = Annotated[
    int, typer.Option("--batch-size", min=1, help="Tiles that are embedded and committed at once.")
]
DeviceChoice = Annotated[Device, typer.Option("--device", help="Where the encoder runs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Crops = Annotated[
    list[str] | None,
    typer.Option("--crop", help="Only parcels of this crop code or name; may be repeated."),
]
BboxText = Annotated[
    str | None,
    typer.Option("--bbox", metavar="W,S,E,N", help="Only parcels that touch it, in degrees."),
]
DatetimeText = Annotated[
    str | None,
    typer.Option(
        "--datetime",
        metavar="INTERVAL",
        help="Only observations in it: 2021-05-01/2021-06-30, ../2021-06, 2021.",
    ),
]
FilterText = Annotated[
    str | None,
    typer.Option(
        "--filter",
        metavar="CQL2",
        help="Only what fits an expression over properties and attributes, in CQL2: "
        "\"NDVI > 0.6 AND variety = 'early'\".",
    ),
]
