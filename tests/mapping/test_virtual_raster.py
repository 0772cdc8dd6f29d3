import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rasterio
from example_tiles import grow_forest, lay_degrees, lay_metres, surround, write_tiles

from biomassters.mapping.layout import tile_path
from biomassters.mapping.tiles import write_tile
from biomassters.mapping.virtual_raster import write_vrt
from biomassters.prediction.maps import BANDS
from biomassters.scenes.grid import Grid


@pytest.mark.parametrize("grid", [lay_metres(90, 130), lay_degrees(90, 130)])
def test_map_has_the_pixels_of_its_tiles_and_nodata_between(tmp_path: Path, grid: Grid) -> None:
    agbm = grow_forest(90, 130)
    tiles = write_tiles(tmp_path, grid, agbm, 64)
    path, lost = tiles.pop(1)
    path.unlink()
    agbm[lost.within(grid.extent)] = np.nan
    with rasterio.open(write_vrt(tmp_path, grid, tiles)) as raster:
        np.testing.assert_array_equal(raster.read(), [agbm, *surround(agbm)])
        assert raster.crs == rasterio.CRS.from_user_input(grid.crs)
        assert raster.transform == grid.transform(grid.extent)
        assert np.isnan(raster.nodatavals).all()


def test_map_says_what_its_bands_and_its_scene_are(tmp_path: Path) -> None:
    grid = lay_metres(40, 40)
    tags = {"SCENE": "toy", "MAP_FINGERPRINT": "0123456789abcdef"}
    tiles = write_tiles(tmp_path, grid, grow_forest(40, 40), 64, tags=tags)
    with rasterio.open(write_vrt(tmp_path, grid, tiles)) as raster:
        assert raster.descriptions == BANDS
        assert raster.units == ("t/ha",) * 4
        assert raster.tags() == {"AGBM_UNITS": "t/ha", "SCENE": "toy"}


def test_map_that_is_not_calibrated_has_one_band(tmp_path: Path) -> None:
    grid = lay_metres(40, 40)
    tiles = write_tiles(tmp_path, grid, grow_forest(40, 40), 64, calibrated=False)
    with rasterio.open(write_vrt(tmp_path, grid, tiles)) as raster:
        assert raster.count == 1


def test_map_without_tiles_is_nodata(tmp_path: Path) -> None:
    with rasterio.open(write_vrt(tmp_path, lay_metres(5, 7), [])) as raster:
        assert raster.shape == (5, 7)
        assert np.isnan(raster.read()).all()


def test_file_does_not_depend_on_the_order_of_the_tiles_and_moves_with_them(tmp_path: Path) -> None:
    grid, folder = lay_metres(90, 130), tmp_path / "map"
    tiles = write_tiles(folder, grid, grow_forest(90, 130), 64)
    before = write_vrt(folder, grid, tiles).read_bytes()
    assert write_vrt(folder, grid, tiles[::-1]).read_bytes() == before
    assert str(tmp_path).encode() not in before
    folder.rename(tmp_path / "moved")
    with rasterio.open(tmp_path / "moved/map.vrt") as raster:
        np.testing.assert_array_equal(raster.read(1), grow_forest(90, 130))


def test_coarse_map_is_the_mean_of_what_is_known(tmp_path: Path) -> None:
    grid = lay_metres(512, 1024)
    agbm = np.full((512, 1024), 8, np.float32)
    agbm[:256], agbm[:, :8] = 4, np.nan
    tiles = write_tiles(tmp_path, grid, agbm, 512)
    with rasterio.open(write_vrt(tmp_path, grid, tiles)) as raster:
        coarse = raster.read(1, out_shape=(64, 128))
    assert np.isnan(coarse[:, 0]).all()
    np.testing.assert_array_equal(np.unique(coarse[:, 1:]), [4, 8])


def test_coarse_map_is_read_from_overviews(tmp_path: Path) -> None:
    grid, agbm = lay_metres(512, 512), grow_forest(512, 512)
    path = tile_path(tmp_path, grid, grid.extent)
    write_tile(path, grid, grid.extent, agbm, None, {})
    vrt = write_vrt(tmp_path, grid, [(path, grid.extent)])
    content = bytearray(path.read_bytes())
    with rasterio.open(path) as raster:
        start = int(raster.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    content[start:] = bytes(len(content) - start)  # the full resolution, which comes last
    path.write_bytes(content)
    with rasterio.open(vrt) as raster:
        assert np.isfinite(raster.read(1, out_shape=(256, 256))).mean() > 0.9
        with pytest.raises(rasterio.RasterioIOError):
            raster.read(1)


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="gdalinfo is not installed")
def test_gdalinfo_opens_the_map(tmp_path: Path) -> None:
    grid = lay_metres(90, 130)
    path = write_vrt(tmp_path, grid, write_tiles(tmp_path, grid, grow_forest(90, 130), 64))
    run = subprocess.run(
        ["gdalinfo", "-json", "-checksum", path], capture_output=True, text=True, check=True
    )
    said = json.loads(run.stdout)
    assert run.stderr == ""
    assert said["size"] == [130, 90]
    assert [band["unit"] for band in said["bands"]] == ["t/ha"] * 4
