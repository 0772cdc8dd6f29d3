"""Which acquisitions make a scene: those of its twelve months that lie on it."""

import logging
from collections.abc import Sequence
from typing import TypeVar

from biomassters.errors import SceneError, name_few
from biomassters.scenes.grid import Grid
from biomassters.scenes.stac.acquisitions import Acquisition, Found
from biomassters.scenes.stac.loading import BLOCK
from biomassters.store.bands import N_MONTHS

log = logging.getLogger(__name__)

AcquisitionT = TypeVar("AcquisitionT", bound=Acquisition)


def select_acquisitions(found: Found, year: int, grid: Grid, where: str) -> Found:
    """Return the acquisitions that make a scene; the log tells how many are left out, and why.

    Args:
        found: Of all items.
        year: Of the scene's September.
        grid: Of the map.
        where: The scene's file, for errors and the log.

    Raises:
        SceneError: None is of these months, or none lies on the map.
    """
    s1, s2 = (_select_months(acquisitions, where) for acquisitions in found)
    if not (s1 or s2):
        raise _miss_months([*found[0], *found[1]], year, where)
    placed = _select_place(s1, grid, where), _select_place(s2, grid, where)
    if not any(a.touches(grid, grid.extent) for a in (*placed[0], *placed[1])):
        raise _miss_place([*s1, *s2], grid, where)
    for acquisitions, sensor in zip(placed, ("Sentinel-1", "Sentinel-2"), strict=True):
        if not acquisitions:
            log.warning("%s: no items of %s: its bands are nodata in all months", where, sensor)
        _tell_partial(acquisitions, where)
    return placed


def _select_months(acquisitions: list[AcquisitionT], where: str) -> list[AcquisitionT]:
    kept = [a for a in acquisitions if 0 <= a.month < N_MONTHS]
    _tell_left_out(len(acquisitions) - len(kept), "are not of its twelve months", where)
    return kept


def _select_place(acquisitions: list[AcquisitionT], grid: Grid, where: str) -> list[AcquisitionT]:
    # A margin: what is read of a scene may begin beside it.
    kept = [a for a in acquisitions if a.touches(grid, grid.extent.grow(BLOCK))]
    _tell_left_out(len(acquisitions) - len(kept), "do not lie on it", where)
    return kept


def _tell_partial(acquisitions: Sequence[Acquisition], where: str) -> None:
    bands = {band for a in acquisitions for band in a.bands}
    partial = [a.item.id for a in acquisitions if set(a.bands) != bands]
    if partial:
        few = name_few(partial)
        log.warning("%s: item(s) without all of %s: %s", where, ", ".join(sorted(bands)), few)


def _tell_left_out(n_items: int, why: str, where: str) -> None:
    if n_items:
        log.warning("%s: %d item(s) %s: left out", where, n_items, why)


def _miss_months(acquisitions: list[Acquisition], year: int, where: str) -> SceneError:
    first, last = (get(a.when for a in acquisitions) for get in (min, max))
    wanted = first.year if first.month >= 9 else first.year - 1
    return SceneError(
        f"expected items of {year}-09 to {year + 1}-08, got items of {first:%Y-%m} to"
        f" {last:%Y-%m}, at {where}: start; write `start: {wanted:04}-09`, or search in these"
        " twelve months"
    )


def _miss_place(acquisitions: list[Acquisition], grid: Grid, where: str) -> SceneError:
    wests, souths, easts, norths = zip(*(a.footprint for a in acquisitions), strict=True)
    sides = (min(wests), min(souths), max(easts), max(norths))
    return SceneError(
        f"expected items that lie on the bounds {_name_box(grid.bounds(grid.extent))}, got items"
        f" within {_name_box(sides)} ({grid.crs}), at {where}: bounds; search there, or mend the"
        " bounds"
    )


def _name_box(sides: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{side:.7g}" for side in sides) + "]"
