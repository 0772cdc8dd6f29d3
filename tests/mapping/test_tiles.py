import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray
from example_tiles import TAGS, grow_forest, lay_degrees, lay_metres, surround
from rio_cogeo.cogeo import cog_validate

from biomassters.mapping.tiles import read_tile_tags, write_tile
from biomassters.prediction.maps import BANDS

SHAPES = [(40, 17), (256, 256), (300, 520)]


def write_example(path: Path, shape: tuple[int, int], *, calibrated: bool = True) -> Path:
    grid, agbm = lay_metres(*shape), grow_forest(*shape)
    write_tile(path, grid, grid.extent, agbm, surround(agbm) if calibrated else None, TAGS)
    return path


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("calibrated", [True, False])
def test_tile_is_a_cog_without_faults(
    tmp_path: Path, shape: tuple[int, int], calibrated: bool
) -> None:
    path = write_example(tmp_path / "t.tif", shape, calibrated=calibrated)
    assert cog_validate(path, strict=True, quiet=True) == (True, [], [])
    assert [path.name for path in tmp_path.iterdir()] == ["t.tif"]


def test_pixels_come_back_with_what_they_are(tmp_path: Path) -> None:
    path, agbm = write_example(tmp_path / "t.tif", (300, 520)), grow_forest(300, 520)
    with rasterio.open(path) as raster:
        np.testing.assert_array_equal(raster.read(), [agbm, *surround(agbm)])
        assert raster.descriptions == BANDS
        assert raster.units == ("t/ha",) * 4
        assert np.isnan(raster.nodatavals).all()
        assert raster.crs.to_epsg() == 3067
        assert raster.transform == lay_metres(300, 520).transform(lay_metres(300, 520).extent)
        assert raster.tags().items() >= {"AGBM_UNITS": "t/ha", **TAGS}.items()


def test_tile_may_lie_anywhere_in_its_grid(tmp_path: Path) -> None:
    grid, agbm = lay_degrees(64, 64), grow_forest(16, 32)
    _, box, *_ = grid.extent.split(33)
    write_tile(tmp_path / "t.tif", grid, box, grow_forest(*box.shape), None, {})
    with rasterio.open(tmp_path / "t.tif") as raster:
        np.testing.assert_allclose(raster.bounds, grid.bounds(box), rtol=1e-12)
    with pytest.raises(ValueError, match="shape"):
        write_tile(tmp_path / "u.tif", grid, box, agbm, None, {})
    assert not (tmp_path / "u.tif").exists()


def test_overview_is_the_mean_of_the_pixels_that_are_known(tmp_path: Path) -> None:
    grid, agbm = lay_metres(512, 512), np.full((512, 512), 7, np.float32)
    agbm[:2, :2] = [[1, 2], [np.nan, 6]]
    agbm[2:4, :2] = np.nan
    write_tile(tmp_path / "t.tif", grid, grid.extent, agbm, None, {})
    with rasterio.open(tmp_path / "t.tif", overview_level=0) as raster:
        assert raster.shape == (256, 256)
        np.testing.assert_array_equal(raster.read(1)[:3, 0], [3, np.nan, 7])


@pytest.mark.parametrize("threads", ["1", "ALL_CPUS"])
def test_equal_tiles_have_equal_bytes(tmp_path: Path, threads: str) -> None:
    first = write_example(tmp_path / "a.tif", (300, 520)).read_bytes()
    with rasterio.Env(GDAL_NUM_THREADS=threads):
        assert write_example(tmp_path / "b.tif", (300, 520)).read_bytes() == first


def test_tags_of_a_whole_tile_are_read(tmp_path: Path) -> None:
    tags = read_tile_tags(write_example(tmp_path / "t.tif", (300, 520)))
    assert tags is not None
    assert tags.items() >= {"AGBM_UNITS": "t/ha", **TAGS}.items()


def test_tile_of_nothing_but_nodata_is_whole(tmp_path: Path) -> None:
    grid, nothing = lay_metres(300, 300), np.full((300, 300), np.nan, np.float32)
    write_tile(tmp_path / "t.tif", grid, grid.extent, nothing, None, TAGS)
    assert read_tile_tags(tmp_path / "t.tif") is not None


@pytest.mark.parametrize("lost", [1, 4, 5, 1000, 40_000])
def test_tile_that_is_cut_off_counts_as_absent(tmp_path: Path, lost: int) -> None:
    path = write_example(tmp_path / "t.tif", (300, 520))
    path.write_bytes(path.read_bytes()[:-lost])
    assert read_tile_tags(path) is None


def test_what_is_no_tile_has_no_tags(tmp_path: Path) -> None:
    assert read_tile_tags(tmp_path / "absent.tif") is None
    assert read_tile_tags(tmp_path) is None
    for content in (b"", b"II*\0", b"no TIFF at all"):
        (tmp_path / "t.tif").write_bytes(content)
        assert read_tile_tags(tmp_path / "t.tif") is None


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # rioxarray's own
def test_xarray_opens_a_tile_with_its_mask_and_its_units(tmp_path: Path) -> None:
    path, agbm = write_example(tmp_path / "t.tif", (40, 17)), grow_forest(40, 17)
    with rioxarray.open_rasterio(path, masked=True) as opened:
        np.testing.assert_array_equal(opened[0], agbm)
        assert np.isnan(opened[0]).any()
        assert opened.rio.crs.to_epsg() == 3067
        assert opened.attrs["units"] == ("t/ha",) * 4
        assert opened.attrs["long_name"] == BANDS


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="gdalinfo is not installed")
def test_gdalinfo_says_what_a_tile_is(tmp_path: Path) -> None:
    path = write_example(tmp_path / "t.tif", (300, 520))
    run = subprocess.run(["gdalinfo", "-json", path], capture_output=True, text=True, check=True)
    said = json.loads(run.stdout)
    assert run.stderr == ""
    assert said["metadata"]["IMAGE_STRUCTURE"]["LAYOUT"] == "COG"
    assert [band["description"] for band in said["bands"]] == list(BANDS)
    assert {band["unit"] for band in said["bands"]} == {"t/ha"}
    assert said["bands"][0]["noDataValue"] == "NaN"
    assert [level["size"] for level in said["bands"][0]["overviews"]] == [[260, 150], [130, 75]]
