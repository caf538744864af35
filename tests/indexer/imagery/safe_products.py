"""Makes small Sentinel-2 products, laid out and named as they were delivered over the years."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine

from indexer.sensors import PROFILES, SENTINEL2_BANDS
from tests.synthetic import TRANSFORM, UTM_31

UInt16Array = npt.NDArray[np.uint16]
Layout = Literal["l2a", "l2a-2017", "l2a-2016", "l1c", "l1c-2016"]

L2A = "S2A_MSIL2A_20230601T105031_N0509_R051_T31TCJ_20230601T170112"
L1C = "S2A_MSIL1C_20230601T105031_N0509_R051_T31TCJ_20230601T125034"
SIDE_M = 1200
OFFSETS = dict.fromkeys(PROFILES["l1c"], -1000.0)

_OLD_TILE = "TL_SGS__20160819T160213_A006054_T31TCJ"
_GRANULES: dict[Layout, str] = {
    "l2a": "L2A_T31TCJ_A041474_20230601T105432",
    "l2a-2017": "L2A_T31TCJ_A010474_20170624T105432",
    "l2a-2016": f"S2A_USER_MSI_L2A_{_OLD_TILE}_N02.04",
    "l1c": "L1C_T31TCJ_A041474_20230601T105432",
    "l1c-2016": f"S2A_OPER_MSI_L1C_{_OLD_TILE}_N02.04",
}
_METADATA: dict[Layout, str] = {
    "l2a": "MTD_MSIL2A.xml",
    "l2a-2017": "MTD_MSIL2A.xml",
    "l2a-2016": "S2A_USER_MTD_SAFL2A_PDMC_20160819T220213_R051_V20160819T105022.xml",
    "l1c": "MTD_MSIL1C.xml",
    "l1c-2016": "S2A_OPER_MTD_SAFL1C_PDMC_20160819T220213_R051_V20160819T105022.xml",
}


def band_dn(seed: int = 0) -> dict[str, UInt16Array]:
    """Digital numbers of every band at its own pixel size, over 1.2 km x 1.2 km."""
    random = np.random.default_rng(seed)
    sizes = {name: SIDE_M // band.gsd_m for name, band in SENTINEL2_BANDS.items()}
    return {
        name: random.integers(1300, 4000, (size, size), dtype=np.uint16)
        for name, size in sizes.items()
    }


def clear_classes() -> npt.NDArray[np.uint8]:
    """Vegetation everywhere, at 20 m."""
    return np.full((60, 60), 4, dtype=np.uint8)


def write_jp2(path: Path, values: npt.NDArray[Any]) -> Path:
    """Write a lossless JPEG 2000 file that covers the product's ground, its folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size_px = SIDE_M / values.shape[1]
    with rasterio.open(
        path,
        "w",
        driver="JP2OpenJPEG",
        count=1,
        height=values.shape[0],
        width=values.shape[1],
        dtype=values.dtype,
        crs=UTM_31,
        transform=Affine(size_px, 0, TRANSFORM.c, 0, -size_px, TRANSFORM.f),
        QUALITY="100",
        REVERSIBLE="YES",
    ) as file:
        file.write(values, 1)
    return path


def image_name(layout: Layout, band: str, gsd_m: int) -> str:
    """Where a product of a layout has the image of a band, or another image of its kind."""
    folder = f"GRANULE/{_GRANULES[layout]}/IMG_DATA"
    if layout == "l1c":
        return f"{folder}/T31TCJ_20230601T105031_{band}.jp2"
    if layout == "l1c-2016":
        return f"{folder}/S2A_OPER_MSI_L1C_{_OLD_TILE}_{band}.jp2"
    if layout == "l2a-2016":
        if band == "SCL":
            return f"{folder}/S2A_USER_SCL_L2A_{_OLD_TILE}_{gsd_m}m.jp2"
        return f"{folder}/R{gsd_m}m/S2A_USER_MSI_L2A_{_OLD_TILE}_{band}_{gsd_m}m.jp2"
    prefix = "L2A_" if layout == "l2a-2017" else ""
    return f"{folder}/R{gsd_m}m/{prefix}T31TCJ_20230601T105031_{band}_{gsd_m}m.jp2"


def metadata_xml(
    layout: Layout = "l2a",
    *,
    baseline: str | None = "05.09",
    start: str | None = "2023-06-01T10:50:31.024Z",
    quantification: object = 10000,
    offsets: Mapping[str, float] | None = None,
    head: str = '<?xml version="1.0" encoding="UTF-8"?>',
) -> str:
    """The part of a product's metadata that matters, as the document of its level has it."""
    level = "2A" if layout.startswith("l2a") else "1C"
    list_name, name = {
        "2A": ("BOA_ADD_OFFSET_VALUES_LIST", "BOA_ADD_OFFSET"),
        "1C": ("Radiometric_Offset_List", "RADIO_ADD_OFFSET"),
    }[level]
    value = {"2A": "BOA_QUANTIFICATION_VALUE", "1C": "QUANTIFICATION_VALUE"}[level]
    if layout in ("l2a-2017", "l2a-2016"):
        value = f"L2A_{value}"
    order = PROFILES["l1c"]
    each = "".join(
        f'<{name} band_id="{order.index(band)}">{offset}</{name}>'
        for band, offset in (OFFSETS if offsets is None else offsets).items()
    )
    spectral = "".join(
        f'<Spectral_Information bandId="{number}" physicalBand="{band.replace("B0", "B")}">'
        f"<RESOLUTION>{SENTINEL2_BANDS[band].gsd_m}</RESOLUTION></Spectral_Information>"
        for number, band in enumerate(order)
    )
    return f"""{head}
<n1:Level-{level}_User_Product xmlns:n1="https://psd-15.sentinel2.eo.esa.int/PSD/Product.xsd">
  <n1:General_Info>
    <Product_Info>
      {f"<PRODUCT_START_TIME>{start}</PRODUCT_START_TIME>" if start else ""}
      {f"<PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>" if baseline else ""}
      <Datatake datatakeIdentifier="GS2A_20230601T105031_041474_N05.09">
        {f"<DATATAKE_SENSING_START>{start}</DATATAKE_SENSING_START>" if start else ""}
      </Datatake>
    </Product_Info>
    <Product_Image_Characteristics>
      <{value} unit="none">{quantification}</{value}>
      {f"<{list_name}>{each}</{list_name}>" if each else ""}
      <Spectral_Information_List>{spectral}</Spectral_Information_List>
    </Product_Image_Characteristics>
  </n1:General_Info>
</n1:Level-{level}_User_Product>
"""


def make_product(
    folder: Path,
    layout: Layout = "l2a",
    *,
    bands: Mapping[str, npt.NDArray[Any]] | None = None,
    scl: npt.NDArray[np.uint8] | None = None,
    metadata: str | None = "",
) -> Path:
    """Write a product, with other images in it that are no bands.

    Args:
        folder: The product's own, ``X.SAFE``.
        layout: How its files are named and laid out.
        bands: Digital numbers by band, each at its own pixel size; random ones by default.
        scl: Scene classification of a Level-2A product; all clear by default.
        metadata: Text of the metadata file; the usual one by default, None for no such file.
    """
    level_2a = layout.startswith("l2a")
    for band, values in (bands or band_dn()).items():
        if not (level_2a and band == "B10"):
            write_jp2(folder / image_name(layout, band, SIDE_M // values.shape[1]), values)
    if level_2a:
        classes = clear_classes() if scl is None else scl
        write_jp2(folder / image_name(layout, "SCL", SIDE_M // classes.shape[1]), classes)
        for band, gsd_m in (("B02", 60), ("B04", 20), ("AOT", 10), ("WVP", 10), ("TCI", 10)):
            size = SIDE_M // gsd_m
            other = np.full((size, size), 9999, dtype=np.uint16)
            write_jp2(folder / image_name(layout, band, gsd_m), other)
    granule = folder / "GRANULE" / _GRANULES[layout]
    mask = np.ones((20, 20), dtype=np.uint8)
    for name in ("MSK_CLASSI_B00.jp2", "MSK_QUALIT_B02.jp2", "T31TCJ_20230601T105031_PVI.jp2"):
        write_jp2(granule / "QI_DATA" / name, mask)
    (granule / "MTD_TL.xml").write_text("<tile/>", encoding="utf-8")
    (granule / "AUX_DATA").mkdir()
    (granule / "AUX_DATA" / "ECMWF_B02.tif").write_bytes(b"no band")
    (folder / "manifest.safe").write_text("<manifest/>", encoding="utf-8")
    if metadata is not None:
        (folder / _METADATA[layout]).write_text(metadata or metadata_xml(layout), encoding="utf-8")
    return folder


def zip_product(
    product: Path, file: Path, *, root: str | None = None, compression: int = zipfile.ZIP_DEFLATED
) -> Path:
    """Pack a product's folder; ``root`` is what the zip file calls it, by default its own name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    root = product.name if root is None else root
    with zipfile.ZipFile(file, "w", compression) as packed:
        for path in sorted(product.rglob("*")):
            name = path.relative_to(product).as_posix()
            packed.write(path, f"{root}/{name}" if root else name)
    return file
