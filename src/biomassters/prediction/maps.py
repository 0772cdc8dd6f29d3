"""Predictions as GeoTIFF: one file a chip, written whole or not at all."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.io import MemoryFile

from biomassters.errors import ChipDataError
from biomassters.processes.writing import write_whole
from biomassters.store.georeference import (
    NOWHERE,
    Georeference,
    allow_nowhere,
    georeference_profile,
)

UNITS = "t/ha"


def prediction_path(folder: Path, chip_id: str) -> Path:
    """Return where a chip's prediction lies, named as the competition's submissions are."""
    return folder / f"{chip_id}_agbm.tif"


def write_prediction(
    folder: Path,
    chip_id: str,
    prediction: npt.NDArray[np.float32],
    tags: dict[str, str],
    georeference: Georeference = NOWHERE,
) -> None:
    """Write a chip's prediction.

    Args:
        folder: The folder of predictions; made if absent.
        chip_id: The chip's name.
        prediction: AGBM, (H, W), t/ha.
        tags: How it was made, for the file's tags.
        georeference: Where the chip lies.
    """
    height, width = prediction.shape
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 1,
        "dtype": "float32",
        "compress": "deflate",
        "predictor": 3,
        **georeference_profile(georeference),
    }
    with allow_nowhere(), MemoryFile() as memory:
        with memory.open(**profile) as raster:
            raster.write(prediction, 1)
            raster.set_band_description(1, "above-ground biomass (AGBM)")
            raster.set_band_unit(1, UNITS)
            raster.update_tags(AGBM_UNITS=UNITS, **tags)
        write_whole(prediction_path(folder, chip_id), memory.read())


def read_prediction(folder: Path, chip_id: str) -> tuple[npt.NDArray[np.float32], dict[str, str]]:
    """Read a chip's prediction and its tags.

    Raises:
        ChipDataError: There is none, or it is not a GeoTIFF.
    """
    path = prediction_path(folder, chip_id)
    try:
        with allow_nowhere(), rasterio.open(path, driver="GTiff") as raster:
            return raster.read(1), raster.tags()
    except rasterio.RasterioIOError as error:
        raise ChipDataError(
            f"expected a prediction at {path}, got {error}; run `dvc repro` to write it"
        ) from None
