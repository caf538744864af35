"""What GIS clients do, in a process of their own."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pyogrio


def in_a_process(read: Callable[..., Any], *args: object, **options: object) -> Any:  # noqa: ANN401
    """What a function answers that lets no other thread run meanwhile, as GDAL's readers do."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(read, *args, **options).result(timeout=240)


def layers(address: str) -> list[str]:
    """Names of the layers that GDAL finds."""
    return sorted(str(name) for name, _ in pyogrio.list_layers(f"OAPIF:{address}"))


def table(address: str, layer: str, **options: Any) -> dict[str, list[Any]]:  # noqa: ANN401
    """A layer by its columns, the geometry as well-known binary; GDAL walks through the pages."""
    pyogrio.set_gdal_config_options({"GDAL_HTTP_TIMEOUT": "60"})
    frame = pyogrio.read_dataframe(f"OAPIF:{address}", layer=layer, **options)
    columns = {str(name): frame[name].tolist() for name in frame.columns if name != "geometry"}
    return {**columns, "geometry": frame.geometry.to_wkb().tolist()}
