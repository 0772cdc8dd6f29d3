"""Predictions as GeoTIFF: one file a chip, written whole or not at all.

A file has one band, AGBM, or four: its standard deviation and its interval come behind it.
"""

from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.io import DatasetReader, MemoryFile

from biomassters.errors import ChipDataError
from biomassters.processes.writing import write_whole
from biomassters.store.georeference import (
    NOWHERE,
    Georeference,
    allow_nowhere,
    georeference_profile,
)

UNITS = "t/ha"

BANDS: Final = ("above-ground biomass (AGBM)", "standard deviation", "lower bound", "upper bound")
"""What a file's bands are, in their order; a file has the first one or all."""

WEIGHTS_TAG: Final = "WEIGHTS"
"""The tag with the identity of the weights that predicted a held-out chip."""

HEAD_TAG: Final = "HEAD"
"""The tag of a held-out chip's file whose bands 3 and 4 are the model's own quantiles."""

QUANTILES: Final = "quantiles"

Map: TypeAlias = npt.NDArray[np.float32]


class PixelIntervals(NamedTuple):
    """How far to trust each pixel of a prediction.

    Attributes:
        deviation: Standard deviation of the target about the prediction, (H, W), t/ha.
        lower: Lower bound of the interval, (H, W), t/ha, 0 or more.
        upper: Upper bound, (H, W), t/ha.
    """

    deviation: Map
    lower: Map
    upper: Map


class Prediction(NamedTuple):
    """What a file of a prediction has.

    Attributes:
        agbm: AGBM, (H, W), t/ha.
        tags: How it was made.
        intervals: None of a file of one band.
    """

    agbm: Map
    tags: dict[str, str]
    intervals: PixelIntervals | None

    @property
    def quantiles(self) -> Map | None:
        """The model's own lower and upper bound, not calibrated, (2, H, W), t/ha; None = none."""
        if self.intervals is None or self.tags.get(HEAD_TAG) != QUANTILES:
            return None
        return np.stack([self.intervals.lower, self.intervals.upper])


def prediction_path(folder: Path, chip_id: str) -> Path:
    """Return where a chip's prediction lies, named as the competition's submissions are."""
    return folder / f"{chip_id}_agbm.tif"


def write_prediction(
    folder: Path,
    chip_id: str,
    prediction: Map,
    tags: dict[str, str],
    georeference: Georeference = NOWHERE,
    intervals: PixelIntervals | None = None,
) -> None:
    """Write a chip's prediction.

    Args:
        folder: The folder of predictions; made if absent.
        chip_id: The chip's name.
        prediction: AGBM, (H, W), t/ha.
        tags: How it was made, for the file's tags.
        georeference: Where the chip lies.
        intervals: For bands 2 to 4; None = a file of one band.
    """
    bands = (prediction, *(intervals or ()))
    height, width = prediction.shape
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": len(bands),
        "dtype": "float32",
        "compress": "deflate",
        "predictor": 3,
        **georeference_profile(georeference),
    }
    if intervals is not None:
        profile["interleave"] = "band"  # a reader of AGBM alone reads a quarter of the file
    with allow_nowhere(), MemoryFile() as memory:
        with memory.open(**profile) as raster:
            for number, (band, description) in enumerate(zip(bands, BANDS, strict=False), start=1):
                raster.write(band, number)
                raster.set_band_description(number, description)
                raster.set_band_unit(number, UNITS)
            raster.update_tags(AGBM_UNITS=UNITS, **tags)
        write_whole(prediction_path(folder, chip_id), memory.read())


def read_prediction(folder: Path, chip_id: str, shape: tuple[int, int] | None = None) -> Prediction:
    """Read a chip's prediction.

    Args:
        folder: The folder of predictions.
        chip_id: The chip's name.
        shape: The chip's height and width, pixels; None = do not check.

    Raises:
        ChipDataError: There is none, or it is not a GeoTIFF, or none of such bands.
    """
    path = prediction_path(folder, chip_id)
    try:
        with allow_nowhere(), rasterio.open(path, driver="GTiff") as raster:
            _check_bands(raster, path, shape)
            agbm, *others = raster.read()
            tags = raster.tags()
    except rasterio.RasterioIOError as error:
        raise ChipDataError(
            f"expected a prediction at {path}, got {error}; run `dvc repro` to write it"
        ) from None
    if not np.isfinite(agbm).all():
        raise ChipDataError(
            f"expected a number in each pixel of a prediction, got {agbm[~np.isfinite(agbm)][0]},"
            f" at {path}; run `dvc repro` to write it again"
        )
    return Prediction(agbm, tags, PixelIntervals(*others) if others else None)


def _check_bands(raster: DatasetReader, path: Path, shape: tuple[int, int] | None) -> None:
    """Refuse what `write_prediction` does not write."""
    for what, expected, got in (
        ("bands", f"1 or {len(BANDS)}", raster.count),
        ("type", "float32", "/".join(sorted(set(raster.dtypes)))),
        ("nodata value", None, raster.nodata),
        ("height and width", shape or raster.shape, raster.shape),
    ):
        if got != expected and not (what == "bands" and got in (1, len(BANDS))):
            raise ChipDataError(
                f"expected a prediction with the {what} {expected}, got {got}, at {path};"
                " run `dvc repro` to write it again"
            )
