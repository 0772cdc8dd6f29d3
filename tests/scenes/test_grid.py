import pytest

from biomassters.errors import SceneError
from biomassters.scenes.grid import Box, Grid

GRID = Grid.from_bounds("EPSG:3067", 10.0, (400_000, 6_800_000, 400_120, 6_800_060), "a.yaml")


def test_pixels_are_those_of_the_whole_crs() -> None:
    assert GRID.extent == Box(row=-680_006, column=40_000, height=6, width=12)
    assert GRID.transform(GRID.extent) @ (0, 0) == (400_000, 6_800_060)
    assert GRID.bounds(GRID.extent) == (400_000, 6_800_000, 400_120, 6_800_060)


def test_bounds_within_a_pixel_touch_it() -> None:
    grid = Grid.from_bounds("EPSG:3067", 10.0, (400_001, 6_800_001, 400_002, 6_800_012), "a.yaml")
    assert grid.extent == Box(row=-680_002, column=40_000, height=2, width=1)


def test_degrees_of_a_millionth_do_not_add_a_pixel() -> None:
    grid = Grid.from_bounds("EPSG:4326", 0.0001, (25.1, 62.3, 25.2, 62.4), "a.yaml")
    assert grid.extent.shape == (1000, 1000)
    assert grid.is_geographic
    assert not GRID.is_geographic


def test_parts_lie_on_the_lattice_and_cover_each_pixel_once() -> None:
    box = Box(row=-5, column=3, height=9, width=8)
    parts = list(box.split(4))
    assert parts[0] == Box(row=-5, column=3, height=1, width=1)
    assert sum(part.height * part.width for part in parts) == 72
    assert all(part.row // 4 == (part.end_row - 1) // 4 for part in parts)


def test_boxes_meet_where_both_are() -> None:
    assert Box(0, 0, 4, 4).intersect(Box(2, 3, 9, 9)) == Box(2, 3, 2, 1)
    assert Box(0, 0, 4, 4).intersect(Box(4, 0, 4, 4)) is None
    assert Box(2, 3, 2, 1).within(Box(1, 1, 9, 9)) == (slice(1, 3), slice(2, 3))
    assert Box(2, 3, 2, 1).grow(1) == Box(1, 2, 4, 3)


@pytest.mark.parametrize(
    ("crs", "bounds", "told"),
    [
        ("EPSG:3067", (1, 0, 0, 1), "bounds west < east"),
        ("EPSG:3067", (0, 0, float("inf"), 1), "bounds west < east"),
        ("EPSG:99999", (0, 0, 1, 1), "a CRS such as EPSG:3067"),
        ("Finland", (0, 0, 1, 1), "a CRS such as EPSG:3067"),
    ],
)
def test_bad_place_is_refused_by_name(
    crs: str, bounds: tuple[float, float, float, float], told: str
) -> None:
    with pytest.raises(SceneError, match=rf"expected {told}.*at a\.yaml"):
        Grid.from_bounds(crs, 10.0, bounds, "a.yaml")
