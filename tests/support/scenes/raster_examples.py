"""Scenes as monthly rasters with a YAML, for tests and benchmarks."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from ruamel.yaml import YAML

from biomassters.packing.decoding import mark_missing_clouds, store_backscatter
from biomassters.scenes.grid import Box, Grid
from biomassters.scenes.patience import Patience
from biomassters.scenes.rasters.description import RasterDescription
from biomassters.scenes.rasters.opening import open_raster_scene
from biomassters.scenes.rasters.scene import RasterScene
from biomassters.scenes.scene import Pixels
from biomassters.simulator.chip import simulate_chip
from biomassters.store.bands import (
    MONTHS,
    N_MONTHS,
    S1_BANDS,
    S1_NODATA_DB,
    S1_STORED_NODATA,
    S2_BANDS,
    S2_STORED_NODATA,
)

CRS = "EPSG:3067"
WEST, NORTH = 400_000, 6_800_000
QUICK = Patience(tries=4, first_wait_s=0.01, longest_wait_s=0.02)


def lay_grid(size: int) -> Grid:
    """Return the grid of a square scene."""
    return Grid.from_bounds(CRS, 10.0, list_bounds(size), "a.yaml")


def list_bounds(size: int) -> tuple[float, float, float, float]:
    """Return west, south, east and north of a square scene."""
    return WEST, NORTH - 10 * size, WEST + 10 * size, NORTH


def store_chip(s1_db: np.ndarray, s2: np.ndarray) -> Pixels:
    """Return a chip's official arrays as a scene has them."""
    pixels = Pixels(np.empty(s1_db.shape, np.int16), s2.copy())
    store_backscatter(s1_db, pixels.s1)
    for month in pixels.s2:
        mark_missing_clouds(month)
    return pixels


def simulate_pixels(name: str, size: int) -> Pixels:
    """Return a simulated chip as a scene has it."""
    chip = simulate_chip(name, size)
    return store_chip(chip.s1, chip.s2)


def write_raster(
    path: Path,
    bands: np.ndarray,
    *,
    transform: rasterio.Affine,
    crs: str = CRS,
    nodata: float | None = None,
    **profile: Any,
) -> None:
    """Write a tiled GeoTIFF, or a COG if `driver` says so; bands are (C, H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = bands.shape
    options = {"driver": "GTiff", "compress": "deflate"} | profile
    if options["driver"] == "GTiff":
        options |= {"tiled": True, "blockxsize": 64, "blockysize": 64}
    with rasterio.open(
        path,
        "w",
        count=count,
        height=height,
        width=width,
        dtype=bands.dtype,
        crs=crs,
        transform=transform,
        nodata=nodata,
        **options,
    ) as dataset:
        dataset.write(bands)


def write_months(
    folder: Path,
    pixels: Pixels,
    grid: Grid,
    box: Box | None = None,
    *,
    change_s1: Callable[[np.ndarray, int], np.ndarray] = lambda db, _month: db,
    change_s2: Callable[[np.ndarray, int], np.ndarray] = lambda dn, _month: dn,
    **profile: Any,
) -> dict[str, Any]:
    """Write pixels as rasters, a file for each orbit and each image of each month.

    Args:
        folder: Of the files.
        pixels: What they have.
        grid: Their lattice.
        box: Where they lie; None = the grid's extent.
        change_s1: Makes other values of a month's backscatter, (2, H, W), float32, dB.
        change_s2: Makes other values of a month's reflectance and clouds, (11, H, W), uint16.
        profile: Of the files, for rasterio.

    Returns:
        What the YAML of such a scene has.
    """
    transform = grid.transform(box or grid.extent)
    present = []
    for month in range(N_MONTHS):
        s1 = (pixels.s1[month] / np.float32(100)).astype(np.float32)
        s1[pixels.s1[month] == S1_STORED_NODATA] = S1_NODATA_DB
        for orbit, bands in (("ascending", s1[:2]), ("descending", s1[2:])):
            values = np.where(bands == S1_NODATA_DB, bands, change_s1(bands, month))
            place = folder / f"s1_{orbit}_{month:02}.tif"
            write_raster(place, values.astype(np.float32), transform=transform, **profile)
        s2 = pixels.s2[month]
        present.append(bool((s2 != S2_STORED_NODATA).any()))
        if present[-1]:
            values = change_s2(s2, month)
            nodata = S2_STORED_NODATA if values.dtype == np.uint16 else None
            values = np.where(s2 == S2_STORED_NODATA, nodata or 0, values).astype(values.dtype)
            place = folder / f"s2_{month:02}.tif"
            write_raster(place, values, transform=transform, nodata=nodata, **profile)
    return describe_scene(grid, [n for n, is_there in enumerate(present) if is_there])


def describe_scene(grid: Grid, s2_months: list[int], prefix: str = "") -> dict[str, Any]:
    """Return the YAML of a scene of such rasters."""
    return {
        "source": "rasters",
        "crs": grid.crs,
        "bounds": list(grid.bounds(grid.extent)),
        "resolution": grid.resolution,
        "start": "2020-09",
        "rasters": [
            *(
                {
                    "files": f"{prefix}s1_{orbit}_{{month}}.tif",
                    "sensor": "S1",
                    "bands": [name for name in S1_BANDS if name.endswith(f" {orbit}")],
                }
                for orbit in ("ascending", "descending")
            ),
            {
                "files": f"{prefix}s2_{{month}}.tif",
                "sensor": "S2",
                "bands": list(S2_BANDS),
                "months": [MONTHS[n] for n in s2_months],
            },
        ],
    }


def open_scene(
    document: Mapping[str, Any], folder: Path, *, check: bool = False, patience: Patience = QUICK
) -> RasterScene:
    """Write a scene's YAML beside its files, and open it as it stands there."""
    path = folder / "scene.yaml"
    YAML().dump(dict(document), path)
    description = RasterDescription.model_validate(YAML(typ="safe").load(path.read_text()))
    return open_raster_scene(description, path, patience=patience, check=check)
