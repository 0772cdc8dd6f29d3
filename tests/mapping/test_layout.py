from pathlib import Path

from biomassters.mapping.layout import list_tiles, tile_path
from biomassters.scenes.grid import Box, Grid


def test_tile_is_named_by_its_corner() -> None:
    metres = Grid.from_bounds("EPSG:3067", 10.0, (448_000, 6_886_400, 449_000, 6_887_400), "a.yaml")
    degrees = Grid.from_bounds("EPSG:4326", 0.0001, (25.1, 62.3, 25.2, 62.4), "a.yaml")
    assert tile_path(Path("m"), metres, metres.extent) == Path("m/tiles/x448000_y6887400.tif")
    assert tile_path(Path("m"), degrees, Box(-624_000, 251_234, 8, 8)).name == "x25.1234_y62.4.tif"


def test_only_tiles_are_listed(tmp_path: Path) -> None:
    (tmp_path / "tiles").mkdir()
    for name in ("x1_y2.tif", "x1_y10.tif", ".x1_y2.tif.7.partial", "x1_y2.json"):
        (tmp_path / "tiles" / name).touch()
    assert [path.name for path in list_tiles(tmp_path)] == ["x1_y10.tif", "x1_y2.tif"]
