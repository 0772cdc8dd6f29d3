"""Scenes to measure maps with: simulated, as they are or as monthly rasters, maybe repeated."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
import rasterio
from rasterio.windows import Window

from biomassters.scenes.grid import Box, Grid
from biomassters.scenes.opening import open_scene
from biomassters.scenes.scene import Pixels
from biomassters.store.bands import (
    MONTHS,
    N_MONTHS,
    S1_BANDS,
    S1_NODATA_DB,
    S1_STORED_NODATA,
    S1_STORED_SCALE_DB,
    S2_BANDS,
    S2_STORED_NODATA,
)

CRS: Final = "EPSG:3067"
WEST: Final = 448_000
NORTH: Final = 6_896_640
YEAR: Final = 2020

REPEATED: Final = 1024
"""Side of the square that is written once, and repeated over the whole extent, pixels."""
BLOCK: Final = 512
"""Of the files, pixels: as GDAL's COG driver has it."""

KINDS: Final = {
    "s1": (S1_BANDS, "float32", S1_NODATA_DB),
    "s2": (S2_BANDS, "uint16", S2_STORED_NODATA),
}
"""Bands, type and nodata of the files, by how their names begin."""

GDAL_TYPES: Final = {"float32": "Float32", "uint16": "UInt16"}


def write_synthetic(folder: Path, size: int) -> Path:
    """Describe a square of a simulated landscape, and return its YAML."""
    scene = {"source": "synthetic", "landscape": "konnevesi", "year": YEAR, **_describe(size)}
    return _write_yaml(folder / "synthetic.yaml", scene)


def write_rasters(folder: Path, size: int, *, repeat: bool) -> Path:
    """Write a square as monthly rasters of each sensor: tiled GeoTIFFs, deflated.

    Args:
        folder: Of the files.
        size: Side of the scene, pixels.
        repeat: Whether to write but one square of `REPEATED` pixels, which VRTs repeat.

    Returns:
        The scene's YAML.
    """
    side = min(size, REPEATED) if repeat else size
    simulated = open_scene(write_synthetic(folder, side))
    present = simulated.read(_first_box(simulated.grid)).find_present_months()
    months = {"s1": [True] * N_MONTHS, "s2": present.tolist()}
    with ExitStack() as files:
        outputs = {
            (kind, month): files.enter_context(_create(folder, kind, month, simulated.grid))
            for kind in KINDS
            for month in range(N_MONTHS)
            if months[kind][month]
        }
        for box in simulated.grid.extent.split(BLOCK):
            pixels = simulated.read(box)
            place = _place(box, simulated.grid)
            for (kind, month), output in outputs.items():
                output.write(_take(pixels, kind, month), window=place)
    if repeat:
        for kind, month in outputs:
            _repeat(folder, kind, month, simulated.grid, size)
    suffix = "vrt" if repeat else "tif"
    scene = {
        "source": "rasters",
        "start": f"{YEAR}-09",
        **_describe(size),
        "rasters": [
            {
                "files": f"{kind}_{{month}}.{suffix}",
                "sensor": kind.upper(),
                "bands": list(bands),
                "absent": [MONTHS[n] for n in range(N_MONTHS) if not months[kind][n]],
            }
            for kind, (bands, _, _) in KINDS.items()
        ],
    }
    return _write_yaml(folder / "rasters.yaml", scene)


def _describe(size: int) -> dict[str, Any]:
    side = 10 * size
    return {"crs": CRS, "bounds": [WEST, NORTH - side, WEST + side, NORTH]}


def _write_yaml(path: Path, scene: dict[str, Any]) -> Path:
    path.write_text(json.dumps(scene), encoding="utf-8")  # which YAML is a superset of
    return path


def _first_box(grid: Grid) -> Box:
    return next(grid.extent.split(64))


def _place(box: Box, grid: Grid) -> Window:
    return Window.from_slices(*box.within(grid.extent))


def _create(folder: Path, kind: str, month: int, grid: Grid) -> Any:
    bands, dtype, nodata = KINDS[kind]
    return rasterio.open(
        folder / f"{kind}_{month:02}.tif",
        "w",
        driver="GTiff",
        height=grid.extent.height,
        width=grid.extent.width,
        count=len(bands),
        dtype=dtype,
        nodata=nodata,
        crs=grid.crs,
        transform=grid.transform(grid.extent),
        compress="deflate",
        tiled=True,
        blockxsize=BLOCK,
        blockysize=BLOCK,
    )


def _take(pixels: Pixels, kind: str, month: int) -> np.ndarray[Any, Any]:
    """Return a month of a sensor as its file has it, (C, H, W)."""
    if kind == "s2":
        return pixels.s2[month]
    stored = pixels.s1[month]
    values = stored * np.float32(S1_STORED_SCALE_DB)
    return np.where(stored == S1_STORED_NODATA, np.float32(S1_NODATA_DB), values)


def _repeat(folder: Path, kind: str, month: int, grid: Grid, size: int) -> None:
    """Write a VRT in which a file of one square is repeated to the east and to the south."""
    bands, dtype, nodata = KINDS[kind]
    side = grid.extent.width
    root = Element("VRTDataset", rasterXSize=str(size), rasterYSize=str(size))
    SubElement(root, "SRS").text = grid.crs
    transform = grid.transform(grid.extent).to_gdal()
    SubElement(root, "GeoTransform").text = ", ".join(map(repr, transform))
    facts = {"RasterXSize": str(side), "RasterYSize": str(side), "DataType": GDAL_TYPES[dtype]}
    facts |= {"BlockXSize": str(BLOCK), "BlockYSize": str(BLOCK)}
    for number in range(1, len(bands) + 1):
        band = SubElement(root, "VRTRasterBand", dataType=facts["DataType"], band=str(number))
        SubElement(band, "NoDataValue").text = str(nodata)
        for row, column in _corners(size, side):
            source = SubElement(band, "SimpleSource")
            SubElement(source, "SourceFilename", relativeToVRT="1").text = f"{kind}_{month:02}.tif"
            SubElement(source, "SourceBand").text = str(number)
            SubElement(source, "SourceProperties", facts)
            height, width = min(side, size - row), min(side, size - column)
            sides = {"xSize": str(width), "ySize": str(height)}
            SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **sides})
            SubElement(source, "DstRect", {"xOff": str(column), "yOff": str(row), **sides})
    (folder / f"{kind}_{month:02}.vrt").write_bytes(tostring(root))


def _corners(size: int, side: int) -> Iterator[tuple[int, int]]:
    """Yield the row and the column at which each copy begins."""
    for row in range(0, size, side):
        for column in range(0, size, side):
            yield row, column
