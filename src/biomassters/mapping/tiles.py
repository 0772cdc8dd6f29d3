"""A map's tiles as Cloud Optimized GeoTIFFs: one file each, whole or not at all.

A tile has the bands of a prediction: AGBM alone, or its standard deviation and bounds behind it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import rasterio
import rasterio.shutil
from rasterio.io import DatasetReader, MemoryFile

from biomassters.mapping.layout import NODATA
from biomassters.prediction.maps import BANDS, UNITS, Map, PixelIntervals
from biomassters.processes.writing import write_whole
from biomassters.scenes.grid import Box, Grid
from biomassters.store.georeference import allow_nowhere

BLOCK_SIDE: Final = 256
"""Of the blocks within a tile, pixels; overviews end with the first that fits in one."""

OPTIONS: Final[dict[str, str]] = {
    "blocksize": str(BLOCK_SIDE),
    "compress": "DEFLATE",
    "predictor": "FLOATING_POINT",
    "overview_resampling": "AVERAGE",
    "bigtiff": "IF_SAFER",
    "num_threads": "1",  # whatever GDAL_NUM_THREADS says
}
"""Of GDAL's COG driver. Before GDAL 3.11 it interleaves bands by pixel only."""

TRAILER_BYTES: Final = 4
"""Behind each block, as the driver lays them out.

Source: GDAL's documentation of the COG driver, "Header ghost area": BLOCK_TRAILER.
"""


def write_tile(
    path: Path,
    grid: Grid,
    box: Box,
    agbm: Map,
    intervals: PixelIntervals | None,
    tags: Mapping[str, str],
) -> None:
    """Write a tile, whole or not at all.

    Law: equal arguments give equal bytes.

    Args:
        path: The file; its folder is made if absent.
        grid: Of the map.
        box: The tile's pixels.
        agbm: AGBM, (H, W), t/ha; NaN = nodata, here and in the intervals.
        intervals: For bands 2 to 4; None = a tile of one band.
        tags: How it was made.

    Raises:
        ValueError: The box has another shape than the arrays.
    """
    bands = (agbm, *(intervals or ()))
    if any(band.shape != box.shape for band in bands):  # GDAL would resample it
        raise ValueError(f"expected arrays of the shape {box.shape}, got {agbm.shape}")
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": box.height,
        "width": box.width,
        "count": len(bands),
        "dtype": "float32",
        "nodata": NODATA,
        "crs": rasterio.CRS.from_user_input(grid.crs),
        "transform": grid.transform(box),
    }
    with MemoryFile() as plain, MemoryFile(ext=".tif") as optimized:
        with plain.open(**profile) as raster:
            for number, (band, description) in enumerate(zip(bands, BANDS, strict=False), start=1):
                raster.write(band, number)
                raster.set_band_description(number, description)
                raster.set_band_unit(number, UNITS)
            raster.update_tags(AGBM_UNITS=UNITS, **tags)
        with plain.open() as raster:
            rasterio.shutil.copy(raster, optimized.name, driver="COG", **OPTIONS)
        write_whole(path, optimized.read())


def read_tile_tags(path: Path) -> dict[str, str] | None:
    """Return what a tile says of itself; None = it is absent, cut off, or no tile.

    No pixels are read: that the last block ends within the file is what tells a whole one.
    """
    try:
        with allow_nowhere(), rasterio.open(path, driver="GTiff") as raster:
            whole = _find_end(raster) <= path.stat().st_size
            return dict(raster.tags()) if whole else None
    except (rasterio.RasterioIOError, OSError):
        return None


def _find_end(raster: DatasetReader) -> float:
    """Return the first byte behind the blocks of full resolution, which a COG has at its end."""
    rows, columns = raster.block_shapes[-1]
    last = f"{(raster.width - 1) // columns}_{(raster.height - 1) // rows}"
    offset, size = (
        raster.get_tag_item(f"BLOCK_{what}_{last}", "TIFF", bidx=raster.count)
        for what in ("OFFSET", "SIZE")
    )
    return int(offset) + int(size) + TRAILER_BYTES if offset and size else float("inf")
