"""Zones: the polygons of a GeoJSON whose biomass is asked for, checked, in the CRS of a map.

They may overlap, have holes and be of many parts.

Source: RFC 7946 (GeoJSON), whose coordinates are degrees of WGS 84; its forerunner of 2008 let a
member `crs` name another CRS, as many files still do.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import CRSError, ProjError

from biomassters.errors import SceneError
from biomassters.mapping.pixel_areas import measure_distortion
from biomassters.scenes.grid import Grid

LONGEST_EDGE_M: Final = 1000.0
LONGEST_EDGE_DEGREES: Final = 0.01
"""Edges are cut to this before they are projected: their bend over it is centimetres."""

MOST_EDGES: Final = 100_000
"""Of a polygon, after that: metres may be read as degrees by mistake."""

MOST_DISTORTION: Final = 0.05
"""Of areas in the map's CRS: tonnes are wrong by as much."""

GEOJSON_CRS: Final = "OGC:CRS84"
POLYGONS: Final = ("Polygon", "MultiPolygon")


@dataclass(frozen=True)
class Zone:
    """A polygon.

    Attributes:
        name: What its feature's `id`, or its property `id` says, else its number, from 1 on.
        polygon: In the map's CRS: a shapely Polygon or MultiPolygon.
    """

    name: str
    polygon: Any


@dataclass(frozen=True)
class Zones:
    """The zones of a file.

    Attributes:
        path: The file.
        document: What is in it, as a FeatureCollection.
        zones: Of its features, in their order.
    """

    path: Path
    document: dict[str, Any]
    zones: tuple[Zone, ...]


def read_zones(path: Path, grid: Grid) -> Zones:
    """Read zones, and check all that can be wrong with them.

    A polygon that crosses itself is refused, not mended: which area is meant is the user's to say.

    Args:
        path: A GeoJSON file.
        grid: Of the map.

    Raises:
        SceneError: It is no GeoJSON, has anything but polygons, one that crosses itself or lies
            beyond the map, or names that are missing or not unique; or the map's CRS shows areas
            far from true.
    """
    _check_areas(path, grid)
    document = _read_document(path)
    crs = _read_crs(document, path)
    names = _name_features(document["features"], path)
    polygons = [
        _read_polygon(feature, f"{path}: feature {number} ({name!r})")
        for number, (name, feature) in enumerate(
            zip(names, document["features"], strict=True), start=1
        )
    ]
    projected = _project(polygons, crs, grid)
    extent = shapely.box(*grid.bounds(grid.extent))
    for number, (name, polygon) in enumerate(zip(names, projected, strict=True), start=1):
        if not shapely.is_valid(polygon) or not extent.intersection(polygon).area > 0:
            raise SceneError(
                f"expected zones that the map covers, got one beyond it, at {path}: feature"
                f" {number} ({name!r}); take it out, or write its CRS (coordinates are read as"
                f" {crs.to_string()})"
            )
    zones = tuple(Zone(*pair) for pair in zip(names, projected, strict=True))
    return Zones(path, document, zones)


def _check_areas(path: Path, grid: Grid) -> None:
    """Refuse what would make tonnes of a Mercator's areas."""
    distortion = measure_distortion(grid)
    if abs(distortion - 1) > MOST_DISTORTION:
        raise SceneError(
            f"expected a map whose CRS shows areas within {MOST_DISTORTION:.0%}, got {grid.crs},"
            f" where they are {distortion:.3g} times as large, at {path}; map the scene in another"
            " CRS, such as that of its UTM zone or EPSG:4326, to sum it up"
        )


def _read_document(path: Path) -> dict[str, Any]:
    """Return a file as a FeatureCollection."""
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise SceneError(
            f"expected zones, got {error.strerror or error}, at {path}; give a GeoJSON file"
        ) from None
    except (ValueError, RecursionError) as error:
        raise SceneError(
            f"expected GeoJSON, got {type(error).__name__}: {error}, at {path}; convert the zones,"
            " for instance with `ogr2ogr zones.geojson ...`"
        ) from None
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "Feature":
        crs = {"crs": document.pop("crs")} if "crs" in document else {}
        document = {"type": "FeatureCollection", **crs, "features": [document]}
    features = document.get("features") if kind in ("Feature", "FeatureCollection") else None
    if not isinstance(features, list) or not features:
        got = "no features" if kind == "FeatureCollection" else f"the type {kind!r}"
        raise SceneError(
            f"expected a FeatureCollection with polygons, got {got}, at {path}; give the file that"
            " has them"
        )
    return dict(document)


def _read_crs(document: dict[str, Any], path: Path) -> pyproj.CRS:
    member = document.get("crs")
    if member is None:
        return pyproj.CRS.from_user_input(GEOJSON_CRS)
    try:
        return pyproj.CRS.from_user_input(member["properties"]["name"])
    except (CRSError, KeyError, TypeError) as error:
        raise SceneError(
            f"expected the name of a CRS, got {json.dumps(member)} ({type(error).__name__}), at"
            f" {path}: crs; write the zones in WGS 84 without this member"
        ) from None


def _name_features(features: Sequence[Any], path: Path) -> list[str]:
    """Return the features' names; numbers where none has one."""
    found = [_find_name(feature) for feature in features]
    nameless = [number for number, name in enumerate(found, start=1) if name is None]
    if len(nameless) == len(found):
        return [str(number) for number in nameless]
    if nameless:
        raise SceneError(
            f"expected an id of each feature or of none, got none, at {path}: feature"
            f" {nameless[0]}; write it as the feature's or as its property `id`"
        )
    names = [str(name) for name in found]
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        numbers = [number for number, other in enumerate(names, start=1) if other == name]
        raise SceneError(
            f"expected ids that differ, got {name!r} {times} times, at {path}: features"
            f" {', '.join(map(str, numbers[:5]))}; change them"
        )
    return names


def _find_name(feature: Any) -> str | None:
    if not isinstance(feature, dict):
        return None
    properties = feature.get("properties")
    name = feature.get("id", properties.get("id") if isinstance(properties, dict) else None)
    return None if name is None or isinstance(name, dict | list) else str(name)


def _read_polygon(feature: Any, where: str) -> Any:
    """Return a feature's polygon, without heights."""
    geometry = feature.get("geometry") if isinstance(feature, dict) else None
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in POLYGONS:
        raise SceneError(
            f"expected a polygon, got {kind or 'no geometry'}, at {where}; keep the polygons only"
        )
    try:
        polygon = shapely.force_2d(shapely.from_geojson(json.dumps(geometry)))
    except (shapely.errors.GEOSException, ValueError) as error:
        reason = f"broken coordinates ({' '.join(str(error).split())})"
    else:
        reason = shapely.is_valid_reason(polygon)
        if reason == "Valid Geometry" and not polygon.is_empty and polygon.area > 0:
            return polygon
        reason = "an empty one" if reason == "Valid Geometry" else reason
    raise SceneError(
        f"expected a polygon that does not cross itself, got {reason}, at {where}; mend it, for"
        " instance with `Fix geometries` of QGIS"
    )


def _project(polygons: Sequence[Any], crs: pyproj.CRS, grid: Grid) -> list[Any]:
    """Return polygons in the map's CRS; infinite where that has no place for them."""
    target = pyproj.CRS.from_user_input(grid.crs)
    if crs.equals(target, ignore_axis_order=True):
        return list(polygons)
    change = pyproj.Transformer.from_crs(crs, target, always_xy=True)
    edge = LONGEST_EDGE_DEGREES if crs.is_geographic else LONGEST_EDGE_M
    edges = np.maximum(edge, shapely.length(polygons) / MOST_EDGES)

    def move(points: NDArray[np.float64]) -> NDArray[np.float64]:
        try:
            return np.column_stack(change.transform(*points.T))
        except ProjError:
            return np.full_like(points, np.inf)

    return list(shapely.transform(shapely.segmentize(polygons, edges), move))
