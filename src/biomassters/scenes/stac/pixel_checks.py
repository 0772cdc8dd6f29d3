"""Whether the pixels of a scene's items are what their metadata say, from samples of them."""

import logging
import math
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from biomassters.errors import SceneError
from biomassters.scenes.grid import Grid
from biomassters.scenes.patience import Patience
from biomassters.scenes.stac.acquisitions import Acquisition, S1Acquisition, S2Acquisition
from biomassters.scenes.stac.description import StacDescription
from biomassters.scenes.stac.loading import Load, load_block
from biomassters.scenes.stac.reflectance_offset import RAW_OFFSET, looks_offset

log = logging.getLogger(__name__)

SAMPLED: Final = 3
"""Items of one kind that are looked at, those with the least clouds."""

SAMPLE_SIDE: Final = 256
"""Of a sample, pixels: of the whole scene, coarser than its grid where that is larger."""

_MOST_POWER: Final = 100.0
"""A median of linear power above it is no backscatter: 20 dB."""

AcquisitionT = TypeVar("AcquisitionT", bound=Acquisition)


def check_s1(
    acquisitions: list[S1Acquisition],
    description: StacDescription,
    grid: Grid,
    where: str,
    patience: Patience,
) -> None:
    """Check that backscatter is in the unit that the YAML says.

    Raises:
        SceneError: It looks like another one.
        UnreadableRasterError: A sample cannot be read.
    """
    if any(acquisition.is_gamma0 for acquisition in acquisitions):
        log.warning(
            "%s: looks like gamma0 (a collection of Sentinel-1 RTC), 0.6 to 1.6 dB above the sigma0"
            " of Earth Engine's GRD, which the competition seems to have had",
            where,
        )
    for acquisition in _choose({"": acquisitions}, grid):
        load = Load(acquisition.bands, "float32", math.nan)
        for band, values in _sample(acquisition, load, grid, patience).items():
            _judge_unit(values, description.s1.unit, f"{where}: item {acquisition.item.id}: {band}")


def _judge_unit(values: NDArray[np.float32], unit: str, where: str) -> None:
    known = values[np.isfinite(values) & (values != 0) & (values > -1000)]
    if not known.size:
        return
    median = float(np.median(known))
    if unit == "linear" and median < 0:
        raise SceneError(
            f"expected backscatter in linear power, got a median of {median:.4g}, which looks like"
            f" dB, at {where}; write `s1: {{unit: db}}`"
        )
    if unit == "linear" and median > _MOST_POWER:
        raise SceneError(
            f"expected backscatter in linear power, got a median of {median:.4g}, which looks like"
            f" the uncalibrated DN of GRD, at {where}; search in a terrain-corrected collection"
            " such as sentinel-1-rtc"
        )
    if unit == "db" and (known >= 0).mean() > 0.9:
        raise SceneError(
            f"expected backscatter in dB, got a median of {median:.4g}, which looks like linear"
            f" power, at {where}; write `s1: {{unit: linear}}`"
        )


def check_s2(
    acquisitions: list[S2Acquisition],
    description: StacDescription,
    grid: Grid,
    where: str,
    patience: Patience,
) -> None:
    """Check that reflectance is in DN, and that 1000 is taken off it once.

    Where the YAML says an offset, a contradiction is only logged.

    Raises:
        SceneError: It looks otherwise.
        UnreadableRasterError: A sample cannot be read.
    """
    kinds: dict[str, list[S2Acquisition]] = {}
    for acquisition in acquisitions:
        kinds.setdefault(f"{acquisition.evidence} {acquisition.offset}", []).append(acquisition)
    for acquisition in _choose(kinds, grid):
        nir = "B8" if "B8" in acquisition.bands else "B8A"
        wanted = tuple(band for band in ("B4", nir) if band in acquisition.bands)
        load = Load(wanted or acquisition.bands[:1], "float32", 0)
        sample = _sample(acquisition, load, grid, patience)
        place = f"{where}: item {acquisition.item.id}"
        scaled = {name: values * description.s2.scale for name, values in sample.items()}
        for name, values in scaled.items():
            _judge_scale(values, f"{place}: {name}")
        if len(wanted) == 2:
            _judge_offset(scaled["B4"], scaled[nir], acquisition, description, place)


def _judge_scale(values: NDArray[Any], where: str) -> None:
    known = values[np.isfinite(values) & (values != 0)]
    if known.size and np.percentile(known, 99) <= 3:
        raise SceneError(
            f"expected reflectance in DN (10,000 = 1), got values to"
            f" {float(np.percentile(known, 99)):.3g}, which look like reflectance of 0-1, at"
            f" {where}; write `s2: {{scale: 10000}}`"
        )


def _judge_offset(
    red: NDArray[Any],
    nir: NDArray[Any],
    acquisition: S2Acquisition,
    description: StacDescription,
    where: str,
) -> None:
    state = looks_offset(red, nir)
    offset, item_id = acquisition.offset, acquisition.item.id
    if state is None or (state, offset) in (("raw", RAW_OFFSET), ("applied", 0)):
        return
    looks = {
        "raw": "which look as if 1000 were still to be taken off",
        "applied": "which look as if it were taken off already",
        "twice": "of which many are 0, as if 1000 had been taken off twice",
    }[state]
    wanted = RAW_OFFSET if state == "raw" else 0
    remedy = f"write `s2: {{offset: {wanted}}}`, or `s2: {{offsets: {{{item_id}: {wanted}}}}}`"
    if state == "twice":
        remedy = "take such items from another catalogue: the values are lost"
    told = (
        f"expected reflectance to which {offset} is to be added, as the metadata say"
        f" ({acquisition.evidence}), got DN of vegetation {looks}, at {where}; {remedy}"
    )
    if description.s2.offset != "auto" or item_id in description.s2.offsets:
        log.warning("%s", told.replace("as the metadata say", "as the scene says"))
        return
    raise SceneError(told)


def _choose(kinds: dict[str, list[AcquisitionT]], grid: Grid) -> Iterator[AcquisitionT]:
    """Yield the first few of each kind that lie on the map, those of the least clouds first."""

    def cover(acquisition: AcquisitionT) -> float:
        return acquisition.cover if isinstance(acquisition, S2Acquisition) else 0.0

    for same in kinds.values():
        on_it = (acquisition for acquisition in same if acquisition.touches(grid, grid.extent))
        yield from sorted(on_it, key=cover)[:SAMPLED]


def _sample(
    acquisition: Acquisition, load: Load, grid: Grid, patience: Patience
) -> dict[str, NDArray[Any]]:
    west, south, east, north = grid.bounds(grid.extent)
    own = acquisition.footprint
    bounds = max(west, own[0]), max(south, own[1]), min(east, own[2]), min(north, own[3])
    step = max(1, math.ceil(max(_sides(bounds)) / (SAMPLE_SIDE * grid.resolution)))
    coarse = Grid.from_bounds(grid.crs, grid.resolution * step, bounds, acquisition.item.id)
    return load_block(acquisition.item, load, coarse, coarse.extent, patience)


def _sides(bounds: Iterable[float]) -> tuple[float, float]:
    west, south, east, north = bounds
    return east - west, north - south
