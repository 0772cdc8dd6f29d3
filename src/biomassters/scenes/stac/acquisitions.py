"""Acquisitions: items of one sensor and month, with what of them is read, in order of time."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

import pystac
import rasterio.features
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds

from biomassters.errors import SceneError, name_few
from biomassters.scenes.grid import Box, Grid
from biomassters.scenes.stac.assets import (
    POLARISATION_NAMES,
    REFLECTANCE_NAMES,
    CloudsKind,
    choose_assets,
    choose_clouds,
)
from biomassters.scenes.stac.description import StacDescription, StacS2
from biomassters.scenes.stac.reflectance_offset import decide_offset, read_baseline, read_flag
from biomassters.scenes.stac.search_results import find_address, list_assets, redact

CLOUDS: Final = "clouds"
"""What an acquisition calls its asset of clouds; the others have the names of their bands."""

_ORBITS: Final = ("ascending", "descending")


@dataclass(frozen=True)
class Acquisition:
    """An item, as it is read.

    Attributes:
        item: Without all that is not read; assets by band.
        when: Its time, UTC.
        month: 0 = the scene's September.
        footprint: Bounds on the map, in its CRS's unit: west, south, east, north.
        facts: What the item says that decides pixels, as JSON.
    """

    item: pystac.Item
    when: datetime
    month: int
    footprint: tuple[float, float, float, float]
    facts: str

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands it has, without its clouds."""
        return tuple(name for name in self.item.assets if name != CLOUDS)

    def touches(self, grid: Grid, box: Box) -> bool:
        """Tell whether its footprint meets a box."""
        west, south, east, north = grid.bounds(box)
        own = self.footprint
        return own[0] < east and own[2] > west and own[1] < north and own[3] > south


@dataclass(frozen=True)
class S1Acquisition(Acquisition):
    """An item of Sentinel-1.

    Attributes:
        is_ascending: The direction of its orbit.
        swath: What the items of one pass have in common: they overlap, and count once.
        is_gamma0: Whether its collection is one of gamma0: sigma0 over the cosine of the angle of
            incidence, which is 29 to 46 degrees.
    """

    is_ascending: bool
    swath: str
    is_gamma0: bool = False


@dataclass(frozen=True)
class S2Acquisition(Acquisition):
    """An item of Sentinel-2.

    Attributes:
        clouds: What its asset of clouds holds.
        cover: Share of the item under clouds, %; infinite = it does not say.
        offset: Added to DN.
        evidence: What the offset was decided by; items of one evidence are checked together.
    """

    clouds: CloudsKind
    cover: float
    offset: int
    evidence: str


Found: TypeAlias = tuple[list[S1Acquisition], list[S2Acquisition]]


def list_acquisitions(
    items: Iterable[tuple[pystac.Item, Path]], description: StacDescription, grid: Grid, where: str
) -> Found:
    """Return the acquisitions of items, of each sensor by time, then by id.

    Args:
        items: With the files that they are in.
        description: Of the scene.
        grid: Of the map.
        where: The scene's file, for errors.

    Raises:
        SceneError: An item is not what it must be.
    """
    s1: list[S1Acquisition] = []
    s2: list[S2Acquisition] = []
    for item, path in items:
        sensor = _name_sensor(item, description, where)
        if sensor == "S1":
            s1.append(_describe_s1(item, path, description, grid, where))
        else:
            s2.append(_describe_s2(item, path, description, grid, where))
    _check_names(description, s1, s2, where)
    return sorted(s1, key=_order), sorted(s2, key=_order)


def _check_names(
    description: StacDescription,
    s1: list[S1Acquisition],
    s2: list[S2Acquisition],
    where: str,
) -> None:
    """Refuse names in the YAML that no item has: they would be passed over in silence."""
    absent = sorted(set(description.s2.offsets) - {a.item.id for a in s2})
    if absent:
        raise SceneError(
            f"expected ids of items, got {name_few(absent)}, at {where}: s2.offsets; mend or take"
            " them out"
        )
    given: list[tuple[str, str, str, Sequence[Acquisition]]] = [
        *(("s1", band, name, s1) for band, name in description.s1.assets.items()),
        *(("s2", band, name, s2) for band, name in description.s2.assets.items()),
    ]
    for section, band, name, acquisitions in given:
        if not any(band in acquisition.bands for acquisition in acquisitions):
            raise SceneError(
                f"expected an asset of the items, got {name}, which none has, at {where}:"
                f" {section}.assets.{band}; mend it"
            )


def _order(acquisition: Acquisition) -> tuple[datetime, str]:
    return acquisition.when, acquisition.item.id


def _name_sensor(item: pystac.Item, description: StacDescription, where: str) -> str:
    named = [str(item.properties.get(name, "")).lower() for name in ("constellation", "platform")]
    known = [name for name in named if name]
    is_s1, is_s2 = (any(name.startswith(f"sentinel-{n}") for name in known) for n in (1, 2))
    if known and not (is_s1 or is_s2):
        raise SceneError(
            f"expected items of Sentinel-1 or Sentinel-2, got {known[0]}, at {where}: item"
            f" {item.id}; search in `sentinel-2-l2a` and a terrain-corrected collection of"
            " Sentinel-1"
        )
    if not is_s2 and choose_assets(item, description.s1.assets, POLARISATION_NAMES):
        return "S1"
    if not is_s1 and choose_assets(item, description.s2.assets, REFLECTANCE_NAMES):
        return "S2"
    section = "s1" if is_s1 else "s2"
    bands = POLARISATION_NAMES if is_s1 else REFLECTANCE_NAMES
    raise SceneError(
        f"expected assets of {', '.join(bands)}, got {list_assets(item)}, at {where}: item"
        f" {item.id}; name them in `{section}: {{assets: {{{next(iter(bands))}: ...}}}}`, or take"
        " the item out"
    )


def _describe_s1(
    item: pystac.Item, path: Path, description: StacDescription, grid: Grid, where: str
) -> S1Acquisition:
    orbit = str(item.properties.get("sat:orbit_state", "")).lower()
    if orbit not in _ORBITS:
        raise SceneError(
            f"expected sat:orbit_state ascending or descending, got {orbit or 'none'}, at {where}:"
            f" item {item.id}; add it to the item's properties"
        )
    names = choose_assets(item, description.s1.assets, POLARISATION_NAMES)
    passage = item.properties.get("sat:absolute_orbit", item.properties.get("sat:relative_orbit"))
    shared = _describe_shared(item, names, path, description, grid, where)
    return S1Acquisition(
        **shared,
        is_ascending=orbit == _ORBITS[0],
        swath=f"{orbit} {item.properties.get('platform')} {passage} {shared['when'].date()}",
        is_gamma0=str(item.collection_id).lower().endswith("-rtc"),
    )


def _describe_s2(
    item: pystac.Item, path: Path, description: StacDescription, grid: Grid, where: str
) -> S2Acquisition:
    if "l1c" in str(item.collection_id).lower() or item.properties.get("s2:product_type") == (
        "S2MSI1C"
    ):
        raise SceneError(
            f"expected reflectance at the ground (Level-2A), got Level-1C, at {where}: item"
            f" {item.id}; search in a collection such as sentinel-2-l2a"
        )
    section = description.s2
    names = choose_assets(item, section.assets, REFLECTANCE_NAMES)
    clouds = choose_clouds(item, section, where)
    asset = item.assets[next(iter(names.values()))]
    if clouds.name:
        names[CLOUDS] = clouds.name
    cover = item.properties.get("eo:cloud_cover")
    flags = (item.collection_id, read_baseline(item), read_flag(item))
    return S2Acquisition(
        **_describe_shared(item, names, path, description, grid, where),
        clouds=clouds.kind,
        cover=float("inf") if cover is None else float(cover),
        offset=_choose_offset(item, asset, section, where),
        evidence=" ".join(map(str, flags)),
    )


def _choose_offset(item: pystac.Item, asset: pystac.Asset, section: StacS2, where: str) -> int:
    if item.id in section.offsets:
        return section.offsets[item.id]
    if section.offset != "auto":
        return section.offset
    offset = decide_offset(item, asset)
    if offset is None:
        raise SceneError(
            "expected s2:processing_baseline or another sign of whether 1000 is to be taken off"
            f" reflectance, got none, at {where}: item {item.id}; write `s2: {{offset: 0}}`, or"
            " -1000 if its baseline is 04.00 or later"
        )
    return offset


def _describe_shared(
    item: pystac.Item,
    names: dict[str, str],
    path: Path,
    description: StacDescription,
    grid: Grid,
    where: str,
) -> dict[str, Any]:
    when = item.datetime or item.common_metadata.start_datetime
    box = list(_find_bbox(item))
    if when is None or len(box) != 4:
        raise SceneError(
            f"expected a time and a place, got an item without, at {where}: item {item.id}; take"
            " it out"
        )
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    # A wide one: whether an item is read is decided by its footprint alone.
    west, south, east, north = (a + b for a, b in zip(box, (-1, -1, 1, 1), strict=True))
    south, north = max(south, -90.0), min(north, 90.0)
    ring = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    kept = pystac.Item(item.id, {"type": "Polygon", "coordinates": [ring]}, box, when, {})
    for band, name in names.items():
        address = find_address(item.assets[name].href, path.parent)
        kept.add_asset(band, pystac.Asset(address, media_type=pystac.MediaType.COG, roles=["data"]))
    return {
        "item": kept,
        "when": when,
        "month": (when.year - description.year) * 12 + when.month - 9,
        "footprint": _place(item, box, grid, where),
        "facts": _tell_facts(item, names, when),
    }


def _find_bbox(item: pystac.Item) -> Iterator[float]:
    """Yield west, south, east and north, degrees; nothing if the item does not say it."""
    if item.bbox is not None and len(item.bbox) in (4, 6):
        half = len(item.bbox) // 2
        yield from (*item.bbox[:2], *item.bbox[half : half + 2])
    elif item.geometry is not None:
        try:
            yield from rasterio.features.bounds(item.geometry)
        except (ValueError, KeyError, TypeError):
            return


def _place(
    item: pystac.Item, box: list[float], grid: Grid, where: str
) -> tuple[float, float, float, float]:
    try:
        west, south, east, north = transform_bounds("EPSG:4326", grid.crs, *box)
    except (RasterioError, ValueError, TypeError):
        west = south = east = north = math.inf
    if not all(map(math.isfinite, (west, south, east, north))):
        raise SceneError(
            f"expected a bbox that {grid.crs} can show, got {box}, at {where}: item {item.id};"
            " take it out"
        )
    return west, south, east, north


def _tell_facts(item: pystac.Item, names: dict[str, str], when: datetime) -> str:
    """Return what decides pixels: signatures change with each search, and decide none."""

    def keep(fields: dict[str, Any]) -> dict[str, Any]:
        kept = ("proj:", "raster:", "bands", "sat:orbit_state", "eo:cloud_cover")
        return {name: value for name, value in fields.items() if name.startswith(kept)}

    assets = {
        band: (redact(item.assets[name].href), keep(item.assets[name].extra_fields))
        for band, name in names.items()
    }
    facts = (item.id, when.isoformat(), keep(item.properties), assets)
    return json.dumps(facts, sort_keys=True, default=str)
