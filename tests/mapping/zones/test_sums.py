import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from example_tiles import grow_forest, lay_degrees, lay_metres, surround, write_tiles
from held_out_examples import draw_chips
from pyproj import Geod
from shapely.geometry import mapping

from biomassters.calibration.fitting import calibrate
from biomassters.mapping.virtual_raster import write_vrt
from biomassters.mapping.zones import sums
from biomassters.mapping.zones.polygons import read_zones
from biomassters.mapping.zones.sums import ZoneSum, sum_zones
from biomassters.prediction.maps import Map
from biomassters.scenes.grid import Grid

CALIBRATION = calibrate(draw_chips(12), 0.8, {"fold-0": "0123456789abcdef"})
LEGACY = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3067"}}


def sum_up(
    folder: Path, grid: Grid, agbm: Map, *polygons: Any, calibrated: bool = True
) -> list[ZoneSum]:
    """Sum a map of tiles of 64 pixels over polygons in its CRS."""
    write_vrt(folder, grid, write_tiles(folder, grid, agbm, 64, calibrated=calibrated))
    features = [{"type": "Feature", "geometry": mapping(polygon)} for polygon in polygons]
    crs = {} if grid.is_geographic else {"crs": LEGACY}
    document = {"type": "FeatureCollection", **crs, "features": features}
    path = folder / "asked.geojson"
    path.write_text(json.dumps(document))
    return sum_zones(read_zones(path, grid), folder, grid, CALIBRATION)


def place(grid: Grid, *corners: tuple[float, float]) -> shapely.Polygon:
    """Return a polygon with corners (column, row) of a grid's extent."""
    return shapely.Polygon([grid.transform(grid.extent) @ corner for corner in corners])


def place_box(grid: Grid, left: float, top: float, right: float, bottom: float) -> shapely.Polygon:
    return place(grid, (left, top), (right, top), (right, bottom), (left, bottom))


def test_half_a_pixel_counts_half(tmp_path: Path) -> None:
    """Pixels of 0.01 ha: one of 100 t/ha, and half of one of 40."""
    agbm = np.array([[100, 40], [7, 9]], np.float32)
    grid = lay_metres(2, 2)
    (found,) = sum_up(tmp_path, grid, agbm, place_box(grid, 0, 0, 1.5, 1))
    assert found.area_ha == pytest.approx(0.015)
    assert found.mapped_ha == pytest.approx(0.015)
    assert found.total_t == pytest.approx(100 * 0.01 + 40 * 0.005)
    assert found.mean == pytest.approx(80)
    assert found.mapped_share == 1


def test_what_is_not_mapped_is_no_part_of_the_sum_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agbm = np.array([[100, np.nan], [7, 9]], np.float32)
    grid = lay_metres(2, 2)
    whole, beyond, nothing = sum_up(
        tmp_path,
        grid,
        agbm,
        *(place_box(grid, 0, 0, 2, 1), place_box(grid, -1, 0, 1, 1)),
        place_box(grid, 1.2, 0.1, 1.8, 0.9),
    )
    for one in (whole, beyond):
        assert one.total_t == pytest.approx(1)
        assert one.mean == pytest.approx(100)
        assert one.mapped_share == pytest.approx(0.5)
    assert (nothing.mean, nothing.total_t, nothing.interval) == (None, None, None)
    assert nothing.mapped_share == 0
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "parts of 3 zones are not mapped: 1 (50 %), 2 (50 %), 3 (100 %)" in record.getMessage()


STAR = [(20.3, 5.2), (60.7, 30.1), (110.4, 8.8), (80.2, 70.9), (95.1, 85.4), (33.3, 60.6)]


def share_of_pixels(polygon: Any, grid: Grid) -> Any:
    """Return the share of each pixel within, (H, W), by shapely's intersections."""
    height, width = grid.extent.shape
    west, _, _, north = grid.bounds(grid.extent)
    left = west + grid.resolution * np.arange(width)
    top = north - grid.resolution * np.arange(height)[:, None]
    pixels = shapely.box(left, top - grid.resolution, left + grid.resolution, top)
    return shapely.area(shapely.intersection(polygon, pixels)) / grid.resolution**2


@pytest.mark.parametrize("grid", [lay_metres(90, 120), lay_degrees(90, 120, 0.01)])
def test_total_is_the_sum_over_pixels_of_value_share_and_area(tmp_path: Path, grid: Grid) -> None:
    """Areas of pixels in degrees by geodesics around each; they fall by 2.5 % over 90 rows here."""
    agbm = grow_forest(90, 120)
    polygon = place(grid, *STAR)
    (found,) = sum_up(tmp_path, grid, agbm, polygon)
    areas = np.full(90, 100.0)
    if grid.is_geographic:
        west, _, _, north = grid.bounds(grid.extent)
        lines = north - grid.resolution * np.arange(91)
        around = [(west, west, west + 0.01, west + 0.01)] * 90
        areas = np.array(
            [
                abs(Geod(ellps="WGS84").polygon_area_perimeter(x, (low, high, high, low))[0])
                for x, high, low in zip(around, lines, lines[1:], strict=False)
            ]
        )
        assert areas[-1] / areas[0] > 1.025
    parts = agbm.astype(np.float64) * share_of_pixels(polygon, grid) * areas[:, None]
    assert found.total_t == pytest.approx(float(np.nansum(parts)) / 1e4, rel=1e-6)


def test_area_of_a_polygon_in_degrees_is_that_on_the_ellipsoid(tmp_path: Path) -> None:
    grid = lay_degrees(60, 60, 0.001)
    polygon = place_box(grid, 10, 10, 50, 50)
    (found,) = sum_up(tmp_path, grid, np.ones((60, 60), np.float32), polygon)
    area, _ = Geod(ellps="WGS84").geometry_area_perimeter(shapely.segmentize(polygon, 1e-4))
    assert found.area_ha == pytest.approx(abs(area) / 1e4, rel=1e-6)
    assert found.mapped_share == pytest.approx(1, abs=1e-9)


def test_zones_may_overlap_and_have_holes_and_many_parts(tmp_path: Path) -> None:
    grid, agbm = lay_metres(90, 120), grow_forest(90, 120)
    outer, inner = place_box(grid, 10, 10, 70, 80), place_box(grid, 20.5, 20, 40, 60.2)
    far = place_box(grid, 100, 3, 110, 9)
    all_of_it, ring, hole, many, other = sum_up(
        tmp_path, grid, agbm, outer, outer.difference(inner), inner, inner.union(far), far
    )
    assert all_of_it.total_t is not None
    assert ring.total_t is not None
    assert hole.total_t is not None
    assert other.total_t is not None
    assert ring.total_t + hole.total_t == pytest.approx(all_of_it.total_t, rel=1e-9)
    assert many.total_t == pytest.approx(hole.total_t + other.total_t, rel=1e-9)


def test_interval_is_that_of_the_calibration(tmp_path: Path) -> None:
    grid, agbm = lay_metres(90, 120), grow_forest(90, 120)
    (found,) = sum_up(tmp_path, grid, agbm, place(grid, *STAR))
    points = shapely.contains_xy(
        place(grid, *STAR),
        *np.meshgrid(448_005.0 + 10 * np.arange(120), 6_886_395.0 - 10 * np.arange(90)),
    )
    weights = np.where(np.isfinite(agbm), points, 0)
    expected = CALIBRATION.area_interval(agbm, surround(agbm).deviation, weights)
    assert found.interval is not None
    np.testing.assert_allclose(found.interval, expected, rtol=0.01)  # whole pixels against shares


def test_interval_of_whole_pixels_is_that_of_the_calibration_to_rounding(tmp_path: Path) -> None:
    grid, agbm = lay_metres(90, 120), grow_forest(90, 120)
    (found,) = sum_up(tmp_path, grid, agbm, place_box(grid, 7, 3, 101, 86))
    weights = np.zeros((90, 120))
    weights[3:86, 7:101] = np.isfinite(agbm[3:86, 7:101])
    expected = CALIBRATION.area_interval(agbm, surround(agbm).deviation, weights)
    assert found.interval is not None
    np.testing.assert_allclose(found.interval, expected, rtol=1e-6)
    assert found.interval.naive_standard_error < found.interval.standard_error / 3


def test_map_without_intervals_gives_sums_without(tmp_path: Path) -> None:
    grid, agbm = lay_metres(90, 120), grow_forest(90, 120)
    (found,) = sum_up(tmp_path, grid, agbm, place(grid, *STAR), calibrated=False)
    assert found.interval is None
    assert found.mean is not None


def test_sums_do_not_depend_on_the_parts_that_a_map_is_read_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, agbm = lay_metres(90, 120), grow_forest(90, 120)
    (one,) = sum_up(tmp_path, grid, agbm, place(grid, *STAR))
    monkeypatch.setattr(sums, "PART_SIDE", 16)
    (other,) = sum_up(tmp_path, grid, agbm, place(grid, *STAR))
    assert one.total_t == pytest.approx(other.total_t, rel=1e-12)
    np.testing.assert_allclose(one.interval or (), other.interval or (), rtol=1e-9)
