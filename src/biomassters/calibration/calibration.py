"""A calibration: what held-out chips say about the errors of maps, as calibration.json has it."""

import json
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from biomassters.calibration.areas import AreaFactors, AreaInterval
from biomassters.calibration.bound_shift import BoundShift
from biomassters.calibration.correlation import Correlation
from biomassters.calibration.pixel_table import PixelTable
from biomassters.calibration.quantiles import Floats
from biomassters.errors import ChipDataError
from biomassters.params.sections import Section
from biomassters.prediction.maps import Map, PixelIntervals
from biomassters.processes.writing import write_whole

VERSION: Final = 1

REFERENCE: Final = (
    "Bounds and deviations are about the reference that the model was trained on (in the"
    " competition, biomass maps made from LiDAR), not about field plots."
)
"""What the numbers refer to; it goes into each file that has some."""


class Calibration(Section):
    """How far to trust the maps of some models.

    Attributes:
        version: Of the format.
        method: How intervals were made.
        level: Share of pixels, or of areas, that lie in their interval.
        unit: Of all that is not a share, a number or pixels.
        reference: What the numbers refer to.
        models: Identities of the weights whose predictions of held-out chips it was made from, by
            the model's name.
        chips: Number of these chips.
        pixel: Intervals of pixels.
        bounds: Of models that predict quantiles, how their own bounds become intervals; else None.
        correlation: Of the errors of pixels.
        area: Intervals of areas.
    """

    version: Literal[1]
    method: Literal["conformal"]
    level: float
    unit: Literal["t/ha"]
    reference: str
    models: dict[str, str]
    chips: int
    pixel: PixelTable
    bounds: BoundShift | None
    correlation: Correlation
    area: AreaFactors

    def intervals(self, prediction: Map, bounds: Map | None = None) -> PixelIntervals:
        """Return standard deviation and bounds of each pixel.

        Args:
            prediction: AGBM, (H, W), t/ha.
            bounds: The model's own, (2, H, W), t/ha; None = it has none, or they are not asked for:
                the intervals then follow from the prediction alone.
        """
        by_prediction = self.pixel.surround(prediction)
        if self.bounds is None or bounds is None:
            return by_prediction
        lower, upper = self.bounds.move(prediction, bounds)
        return by_prediction._replace(lower=lower, upper=upper)

    def area_interval(self, prediction: Map, deviation: Map, weights: NDArray[Any]) -> AreaInterval:
        """Return the mean of any set of pixels of a 10 m grid, with its interval.

        Args:
            prediction: AGBM, (H, W), t/ha; only where there is a weight.
            deviation: Standard deviation of each pixel, (H, W), t/ha; likewise.
            weights: Weight of each pixel in the mean, (H, W), 0 or more, such as the share of it
                that lies within a polygon; a mask of bool will do.

        Raises:
            ValueError: No weight is greater than 0.
        """
        share, prediction, deviation = _crop(weights.astype(np.float64), prediction, deviation)
        share /= share.sum()
        mean = float((share * np.where(share > 0, prediction, 0)).sum())
        deviations = share * np.where(share > 0, deviation, 0)
        return self.area.surround(
            mean,
            error=float(self.correlation.sum_errors(deviations)),
            naive=float(np.sqrt((deviations**2).sum())),
            pixels=1 / float((share**2).sum()),
        )

    def describe(self) -> str:
        """Return one line for people: what it was made from, and what errors have in common."""
        falling = sum(part.share for part in self.correlation.structures)
        return (
            f"{self.chips} held-out chips, level {self.level:g}; of the errors' variance"
            f" {self.correlation.nugget:.0%} is a pixel's own, {falling:.0%} falls with distance,"
            f" {self.correlation.persistent:.0%} does not fall within a chip"
        )

    def tags(self) -> dict[str, str]:
        """Return what a map with its intervals says of them."""
        return {
            "CALIBRATION_METHOD": self.method,
            "CALIBRATION_LEVEL": f"{self.level:g}",
            "CALIBRATION_REFERENCE": self.reference,
        }


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration as JSON, whole or not at all."""
    write_whole(path, (calibration.model_dump_json(indent=2) + "\n").encode())


def write_no_calibration(path: Path, reason: str) -> None:
    """Write that there is none, and why: maps will have one band."""
    document = {"version": VERSION, "method": "none", "reason": reason}
    write_whole(path, (json.dumps(document, indent=2) + "\n").encode())


def read_calibration(path: Path) -> Calibration | None:
    """Read what `write_calibration` or `write_no_calibration` wrote; None of the latter.

    Raises:
        ChipDataError: It is absent, damaged or of another version.
    """
    remedy = f"delete {path} and run `dvc repro calibrate`"
    try:
        document = json.loads(path.read_bytes())
        version, method = document["version"], document["method"]
    except FileNotFoundError:
        raise ChipDataError(
            f"expected a calibration, got no file, at {path}; run `dvc repro calibrate`"
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise ChipDataError(
            f"expected a calibration, got {type(error).__name__}: {error}, at {path}; {remedy}"
        ) from None
    if version != VERSION:
        raise ChipDataError(
            f"expected a calibration of version {VERSION}, got {version!r}, at {path}; {remedy}"
        )
    if method == "none":
        return None
    try:
        return Calibration.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ChipDataError(
            f"expected a calibration, got a mistake in {where} ({first['msg']}), at {path};"
            f" {remedy}"
        ) from None


def _crop(weights: Floats, *images: Map) -> list[Floats]:
    """Cut images to the box around the weights, which alone decides how long a sum takes."""
    if not (weights > 0).any():
        raise ValueError("expected a weight greater than 0, got none")
    box = tuple(
        slice(int(places.min()), int(places.max()) + 1) for places in np.nonzero(weights > 0)
    )
    return [image[box].astype(np.float64) for image in (weights, *images)]
