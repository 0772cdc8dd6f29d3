"""Boxes of rasters: exact values, whatever box, mosaics and absent data."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
import rasterio.warp
from raster_examples import (
    CRS,
    NORTH,
    WEST,
    describe_scene,
    lay_grid,
    open_scene,
    simulate_pixels,
    write_months,
    write_raster,
)
from rasterio.windows import Window

from biomassters.scenes.grid import Box, Grid
from biomassters.store.bands import BANDS, S1_STORED_NODATA, S2_STORED_NODATA


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A scene of simulated pixels: its scene, its pixels, its folder and its YAML."""
    folder = tmp_path_factory.mktemp("rasters")
    pixels = simulate_pixels("rasters", 96)
    pixels.s1[3, 2:] = S1_STORED_NODATA  # an orbit that did not pass
    pixels.s1[4, 0, :40, :9] = S1_STORED_NODATA
    pixels.s2[11, :, 30:50, 60:] = S2_STORED_NODATA
    document = write_months(folder, pixels, lay_grid(96))
    return open_scene(document, folder, check=True), pixels, folder, document


def test_written_pixels_are_read_back_exactly(written) -> None:
    scene, pixels, _, _ = written
    read = scene.read(scene.grid.extent)
    assert np.array_equal(read.s1, pixels.s1)
    assert np.array_equal(read.s2, pixels.s2)
    assert (pixels.s1 == S1_STORED_NODATA).any()
    assert scene.bands == BANDS
    assert scene.period == ("2020-09-01", "2021-08-31")


def test_what_lies_beyond_the_scene_is_nodata(written) -> None:
    scene, pixels, _, _ = written
    box = scene.grid.extent.grow(5)
    read = scene.read(box)
    place = scene.grid.extent.within(box)
    assert np.array_equal(read.cut(*place).s2, pixels.s2)
    assert (read.s1[..., :5, :] == S1_STORED_NODATA).all()
    assert (read.s2[..., -5:] == S2_STORED_NODATA).all()
    assert not scene.read(Box(0, 0, 3, 4)).find_valid().any()


def test_pixel_is_the_same_in_whatever_box(written) -> None:
    scene, pixels, _, _ = written
    extent = scene.grid.extent
    for side in (7, 33, 50):
        for box in list(extent.split(side))[::5]:
            part = pixels.cut(*box.within(extent))
            read = scene.read(box)
            assert np.array_equal(read.s1, part.s1)
            assert np.array_equal(read.s2, part.s2)


def test_threads_read_what_one_reads(written) -> None:
    scene, pixels, _, _ = written
    extent = scene.grid.extent
    boxes = list(extent.split(40))
    with ThreadPoolExecutor(4) as pool:
        for box, read in zip(boxes, pool.map(scene.read, boxes), strict=True):
            assert np.array_equal(read.s2, pixels.cut(*box.within(extent)).s2)


def test_first_valid_pixel_of_a_mosaic_wins(tmp_path) -> None:
    grid = lay_grid(8)
    transform = grid.transform(grid.extent)
    first = np.full((11, 8, 8), 100, np.uint16)
    first[:, :, 4:] = 0  # beyond the swath: nothing at all
    first[:10, 0, 0] = 0  # and here with a cloud probability
    first[2, 1, 1] = 0  # one band of a measured pixel
    second = np.full((11, 8, 6), 50, np.uint16)
    write_raster(tmp_path / "one.tif", first, transform=transform)
    moved = grid.transform(Box(grid.extent.row, grid.extent.column + 2, 8, 6))
    write_raster(tmp_path / "two.tif", second, transform=moved)
    document = describe_scene(grid, [])
    files = {"files": ["one.tif", "two.tif"], "months": "July"}
    document["rasters"] = [document["rasters"][2] | files]
    s2 = open_scene(document, tmp_path).read(grid.extent).s2[10]
    assert (s2[:10, 2:, :4] == 100).all()
    assert (s2[:, :, 4:] == 50).all()
    assert (s2[:, 0, 0] == S2_STORED_NODATA).all()
    assert s2[2, 1, 1] == 0
    assert s2[3, 1, 1] == 100


def test_bands_may_lie_in_files_of_their_own(written, tmp_path) -> None:
    _, pixels, folder, _ = written
    grid = lay_grid(96)
    transform = grid.transform(grid.extent)
    entries = []
    for band, name in ((0, "B2"), (7, "B8A"), (10, "CLP")):
        write_raster(tmp_path / f"{name}.tif", pixels.s2[10, [band]], transform=transform)
        entries.append({"files": f"{name}.tif", "sensor": "S2", "bands": [name], "months": "July"})
    s1 = {"files": f"{folder}/s1_ascending_{{month}}.tif", "sensor": "S1", "absent": ["May"]}
    entries.append(s1 | {"bands": [None, "VV ascending"]})
    scene = open_scene(describe_scene(grid, []) | {"rasters": entries}, tmp_path)
    read = scene.read(grid.extent)
    assert scene.bands == ("VV ascending", "B2", "B8A", "CLP")
    assert np.array_equal(read.s2[10, [0, 7, 10]], pixels.s2[10, [0, 7, 10]])
    assert (read.s2[10, 1] == S2_STORED_NODATA).all()
    assert np.array_equal(read.s1[0, 0], pixels.s1[0, 1])  # the file's second band
    assert (read.s1[8] == S1_STORED_NODATA).all()


@pytest.mark.parametrize("crs", ["EPSG:32635", "EPSG:32634", "EPSG:4326"])
def test_warped_pixel_is_the_same_in_whatever_box(tmp_path, crs) -> None:
    """Rasters of 330 pixels, which lie over four squares of the lattice of places."""
    grid = Grid.from_bounds(CRS, 10.0, (WEST + 700, NORTH - 3100, WEST + 3700, NORTH - 500), "a")
    rng = np.random.default_rng(0)
    step = 10.0 if crs.startswith("EPSG:32") else 0.0001
    [x], [y] = rasterio.warp.transform(CRS, crs, [WEST + 2000], [NORTH - 1500])
    transform = rasterio.Affine(step, step / 9, x - 160 * step, 0, -step, y + 150 * step)
    s1 = rng.uniform(-25, -5, (2, 300, 330)).astype(np.float32)
    s1[:, 40:60] = -9999
    s2 = rng.integers(1, 4000, (11, 300, 330)).astype(np.uint16)
    write_raster(tmp_path / "s1_ascending_00.tif", s1, transform=transform, crs=crs)
    write_raster(tmp_path / "s2_00.tif", s2, transform=transform, crs=crs)
    document = describe_scene(grid, [0])
    document["rasters"] = [entry | {"months": "September"} for entry in document["rasters"][::2]]
    scene = open_scene(document, tmp_path)
    whole = scene.read(grid.extent)
    assert 0.3 < whole.find_valid().mean() < 1
    for side in (64, 97):
        for box in list(grid.extent.split(side))[::3]:
            part, read = whole.cut(*box.within(grid.extent)), scene.read(box)
            assert np.array_equal(read.s1, part.s1)
            assert np.array_equal(read.s2, part.s2)


def test_warped_values_are_those_of_gdal(tmp_path) -> None:
    """Held against GDAL's own nearest neighbour with an exact transformation."""
    grid = lay_grid(60)
    [x], [y] = rasterio.warp.transform(CRS, "EPSG:32634", [WEST], [NORTH])
    s2 = np.random.default_rng(1).integers(1, 4000, (11, 200, 200)).astype(np.uint16)
    transform = rasterio.Affine(10, 0, x - 700, 0, -10, y + 500)
    write_raster(tmp_path / "s2_00.tif", s2, transform=transform, crs="EPSG:32634")
    document = describe_scene(grid, [0])
    document["rasters"] = document["rasters"][2:]
    ours = open_scene(document, tmp_path).read(grid.extent).s2[0]
    theirs = np.zeros((11, 60, 60), np.uint16)
    rasterio.warp.reproject(
        s2,
        theirs,
        src_transform=transform,
        src_crs="EPSG:32634",
        dst_transform=grid.transform(grid.extent),
        dst_crs=CRS,
        tolerance=0,
    )
    assert (ours == theirs).mean() > 0.999


def test_coarse_band_fills_its_pixels_and_fine_one_is_averaged(tmp_path) -> None:
    grid = lay_grid(4)
    coarse = np.array([[[100, 200], [300, 400]]], np.uint16)
    fine = np.array([[[1, 3], [5, 7]]], np.uint16).repeat(4, 1).repeat(4, 2)[:, :8, :8]
    fine[0, :2, :2] = [[10, 20], [30, 0]]  # 0 is no measurement
    west, _, _, north = grid.bounds(grid.extent)
    entries = []
    for name, bands, step in (("B5", coarse, 20), ("B4", fine, 5)):
        transform = rasterio.Affine(step, 0, west, 0, -step, north)
        write_raster(tmp_path / f"{name}.tif", bands, transform=transform)
        entries.append({"files": f"{name}.tif", "sensor": "S2", "bands": [name], "months": "July"})
    s2 = open_scene(describe_scene(grid, []) | {"rasters": entries}, tmp_path).read(grid.extent).s2
    assert s2[10, 3].tolist() == coarse[0].repeat(2, 0).repeat(2, 1).tolist()
    assert s2[10, 2, 0].tolist() == [20, 1, 3, 3]


def test_backscatter_is_interpolated_as_power_and_nodata_does_not_spread(tmp_path) -> None:
    grid = lay_grid(4)
    west, _, _, north = grid.bounds(grid.extent)
    s1 = np.full((2, 4, 6), -10, np.float32)
    s1[:, :, 2] = -20
    s1[:, :, 4:] = -9999
    transform = rasterio.Affine(
        10, 0, west - 2.5, 0, -10, north
    )  # a quarter of a pixel to the west
    write_raster(tmp_path / "s1.tif", s1, transform=transform)
    document = describe_scene(grid, [])
    document["rasters"] = [document["rasters"][0] | {"files": "s1.tif", "months": "July"}]
    row = open_scene(document, tmp_path).read(grid.extent).s1[10, 0, 0]
    mixed = [round(1000 * np.log10(power)) for power in (0.1, 0.0775, 0.0325, 0.1)]
    assert row.tolist() == mixed  # 0.75 of a pixel's own power, 0.25 of the next one's


def test_masks_scales_and_declared_nodata_are_followed(tmp_path) -> None:
    grid = lay_grid(4)
    transform = grid.transform(grid.extent)
    path = tmp_path / "s1_ascending_00.tif"
    write_raster(path, np.full((2, 4, 4), -1234, np.int16), transform=transform, nodata=-1)
    mask = np.full((4, 4), 255, np.uint8)
    mask[0, 0] = 0
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (0.01, 0.01), (0, -1)
        dataset.write(np.array([[-1]], np.int16), 1, window=Window(3, 3, 1, 1))
    write_raster(tmp_path / "s2_00.tif", np.full((11, 4, 4), 1500, np.uint16), transform=transform)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(tmp_path / "s2_00.tif", "r+") as d,
    ):
        d.write_mask(mask)
        d.scales, d.offsets = (0.0001,) * 10 + (1,), (-0.1,) * 10 + (0,)
    document = describe_scene(grid, [0])
    document["rasters"] = [entry | {"months": "September"} for entry in document["rasters"][::2]]
    read = open_scene(document, tmp_path).read(grid.extent)
    assert read.s1[0, :2, 1, 1].tolist() == [-1234, -1334]
    assert read.s1[0, 0, 3, 3] == S1_STORED_NODATA
    assert read.s2[0, :10, 1, 1].tolist() == [500] * 10
    assert (read.s2[0, :, 0, 0] == S2_STORED_NODATA).all()
    document["rasters"][1] |= {"offset": 0}
    assert open_scene(document, tmp_path).read(grid.extent).s2[0, 0, 1, 1] == 1500
