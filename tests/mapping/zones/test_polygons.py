import json
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import shapely
from example_tiles import lay_metres

from biomassters.errors import SceneError
from biomassters.mapping.zones.polygons import read_zones
from biomassters.scenes.grid import Grid

GRID = lay_metres(200, 300)
WEST, SOUTH, EAST, NORTH = GRID.bounds(GRID.extent)
LEGACY = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3067"}}
SQUARE = [
    [WEST + x, NORTH - y] for x, y in ((100, 100), (100, 400), (600, 400), (600, 100), (100, 100))
]


def feature(ring: Any = SQUARE, kind: str = "Polygon", **members: Any) -> dict[str, Any]:
    coordinates = {"Polygon": [ring], "MultiPolygon": [[ring]]}.get(kind, ring)
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "properties": {}, "geometry": geometry, **members}


def write(folder: Path, *features: Any, **members: Any) -> Path:
    document = {"type": "FeatureCollection", "crs": LEGACY, **members, "features": list(features)}
    path = folder / "z.geojson"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("kind", ["Polygon", "MultiPolygon"])
def test_polygon_in_the_crs_of_the_map_stays_as_it_is(tmp_path: Path, kind: str) -> None:
    (zone,) = read_zones(write(tmp_path, feature(kind=kind)), GRID).zones
    assert zone.name == "1"
    assert zone.polygon.bounds == (WEST + 100, NORTH - 400, WEST + 600, NORTH - 100)
    assert zone.polygon.area == 500 * 300


def test_degrees_are_what_geojson_has(tmp_path: Path) -> None:
    """A long edge along a parallel bends in the map; its zone bends with it."""
    change = pyproj.Transformer.from_crs("EPSG:4326", GRID.crs, always_xy=True)
    ring = [[26.01, 62.095], [26.055, 62.095], [26.055, 62.1], [26.01, 62.1], [26.01, 62.095]]
    path = write(tmp_path, feature(ring))
    document = json.loads(path.read_text())
    del document["crs"]
    path.write_text(json.dumps(document))
    (zone,) = read_zones(path, GRID).zones
    for corner in ring:
        point = shapely.Point(change.transform(*corner))
        assert zone.polygon.exterior.distance(point) < 1e-6
    middle = shapely.Point(change.transform(26.0325, 62.1))
    assert zone.polygon.exterior.distance(middle) < 0.05


def test_single_feature_is_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "z.geojson"
    path.write_text(json.dumps({**feature(id=7), "crs": LEGACY}))
    zones = read_zones(path, GRID)
    assert [zone.name for zone in zones.zones] == ["7"]
    assert zones.document["type"] == "FeatureCollection"
    assert zones.document["crs"] == LEGACY


def test_names_are_the_features_or_their_properties(tmp_path: Path) -> None:
    found = read_zones(
        write(tmp_path, feature(id="a"), feature(properties={"id": 4}), feature(id=0)), GRID
    )
    assert [zone.name for zone in found.zones] == ["a", "4", "0"]


def test_heights_are_left_out(tmp_path: Path) -> None:
    (zone,) = read_zones(write(tmp_path, feature([[*xy, 12.5] for xy in SQUARE])), GRID).zones
    assert not zone.polygon.has_z


BOW = [SQUARE[0], SQUARE[2], SQUARE[1], SQUARE[3], SQUARE[0]]
FAR = (np.array(SQUARE) - (0, 50_000)).tolist()
TOUCHING = (np.array(SQUARE) - (600, 0)).tolist()
HUGE = [[0, 0], [9e6, 0], [9e6, 9e6], [0, 0]]

REFUSED: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("got no features", [], {}),
    ("got the type 'Topology'", [feature()], {"type": "Topology"}),
    ("got Point, at .*feature 2 \\('2'\\)", [feature(), feature([1, 2], "Point")], {}),
    ("got LineString, at .*feature 1", [feature(SQUARE, "LineString")], {}),
    ("got no geometry, at .*feature 1", [feature(geometry=None)], {}),
    ("got no geometry, at .*feature 1", ["a polygon"], {}),
    ("does not cross itself, got Self-intersection.*'lake'", [feature(BOW, id="lake")], {}),
    ("got broken coordinates", [feature(SQUARE[:2])], {}),
    ("got broken coordinates", [feature([["a", 1], ["b", 2], ["c", 3], ["a", 1]])], {}),
    ("got broken coordinates", [feature([[1, 1], [2, float("nan")], [3, 1], [1, 1]])], {}),
    ("got an empty one", [feature([])], {}),
    ("got an empty one", [feature([], "MultiPolygon")], {}),
    ("beyond it, at .*feature 2", [feature(), feature(FAR)], {}),
    ("beyond it, at .*feature 1", [feature(TOUCHING)], {}),
    ("beyond it.*read as OGC:CRS84", [feature()], {"crs": None}),
    ("beyond it.*read as OGC:CRS84", [feature(HUGE)], {"crs": None}),
    ("got none, at .*feature 2", [feature(id="a"), feature()], {}),
    ("got 'a' 2 times, at .*features 1, 3", [feature(id=i) for i in "aba"], {}),
    ("expected the name of a CRS", [feature()], {"crs": {"type": "link"}}),
    ("CRSError", [feature()], {"crs": {"properties": {"name": "EPSG:1"}}}),
]


@pytest.mark.parametrize(("message", "features", "members"), REFUSED)
def test_what_cannot_be_summed_is_refused_in_one_line(
    tmp_path: Path, message: str, features: list[Any], members: dict[str, Any]
) -> None:
    path = write(tmp_path, *features, **members)
    with pytest.raises(SceneError, match=message) as caught:
        read_zones(path, GRID)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "got No such file"),
        (b"<kml/>", "expected GeoJSON, got JSONDecodeError"),
        (b"PK\3\4\xff", "expected GeoJSON, got UnicodeDecodeError"),
        (b"[" * 100_000, "expected GeoJSON, got RecursionError"),
        (b"[1, 2]", "got the type None"),
        (b'{"type": "FeatureCollection", "features": 3}', "got no features"),
    ],
)
def test_what_is_no_geojson_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "z.geojson"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SceneError, match=message):
        read_zones(path, GRID)


def test_map_in_a_crs_that_distorts_areas_is_refused(tmp_path: Path) -> None:
    """At 62 degrees north web maps show areas 4.5 times as large as they are."""
    mercator = Grid.from_bounds("EPSG:3857", 10.0, (2.9e6, 8.86e6, 2.91e6, 8.87e6), "a.yaml")
    with pytest.raises(SceneError, match=r"got EPSG:3857, where they are 4\.\d+ times as large"):
        read_zones(write(tmp_path, feature()), mercator)
