import numpy as np
import pytest
import shapely
from example_tiles import lay_degrees, lay_metres
from pyproj import Geod

from biomassters.mapping.pixel_areas import (
    measure_distortion,
    measure_polygon,
    measure_rows,
    measure_sides,
)
from biomassters.scenes.grid import Box, Grid

WGS84 = Geod(ellps="WGS84")


def test_pixel_of_ten_metres_is_a_hundredth_of_a_hectare() -> None:
    grid = lay_metres(3, 4)
    np.testing.assert_array_equal(measure_rows(grid, grid.extent), [100] * 3)
    assert measure_sides(grid, grid.extent) == (10, 10)
    assert measure_polygon(shapely.box(0, 0, 20, 30), grid) == 600


def test_feet_are_made_metres() -> None:
    grid = Grid("EPSG:2263", 10.0, Box(-20_000, 98_000, 2, 2))  # New York, US survey feet
    assert measure_sides(grid, grid.extent)[0] == pytest.approx(3.048, rel=1e-5)
    assert measure_rows(grid, grid.extent)[0] == pytest.approx(3.048**2, rel=1e-5)


def test_all_pixels_of_the_earth_are_the_earth() -> None:
    """Source: the surface of WGS 84's ellipsoid is 510,065,622 km²."""
    grid = Grid("EPSG:4326", 0.5, Box(-180, -360, 360, 720))
    assert measure_rows(grid, grid.extent).sum() * 720 == pytest.approx(510_065_622e6, rel=1e-8)


@pytest.mark.parametrize("row", [-623_000, -1, 0, 540_000])
def test_pixel_in_degrees_has_the_area_that_geodesics_around_it_have(row: int) -> None:
    grid = Grid("EPSG:4326", 1e-4, Box(row, 251_000, 1, 1))
    west, south, east, north = grid.bounds(grid.extent)
    area, _ = WGS84.polygon_area_perimeter([west, east, east, west], [south, south, north, north])
    assert measure_rows(grid, grid.extent)[0] == pytest.approx(area, rel=1e-6)


def test_polygon_in_degrees_has_the_area_of_its_pixels() -> None:
    grid = lay_degrees(500, 300, 0.001)
    box = shapely.box(*grid.bounds(grid.extent))
    assert measure_polygon(box, grid) == pytest.approx(
        300 * measure_rows(grid, grid.extent).sum(), rel=1e-9
    )


def test_sides_of_a_pixel_in_degrees_are_metres() -> None:
    grid = lay_degrees(100, 100)
    height, width = measure_sides(grid, grid.extent)
    assert height == pytest.approx(11.145, rel=1e-3)
    assert height * width == pytest.approx(measure_rows(grid, grid.extent)[50], rel=1e-4)


def test_distortion_of_areas_is_that_of_the_projection() -> None:
    assert measure_distortion(lay_metres(10, 10)) == pytest.approx(0.9996**2, rel=2e-4)
    assert measure_distortion(lay_degrees(10, 10)) == 1
    mercator = Grid("EPSG:3857", 10.0, Box(0, 0, 2, 2))
    assert measure_distortion(mercator) == pytest.approx(1, rel=0.01)
