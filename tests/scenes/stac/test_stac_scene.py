import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
from numpy.typing import NDArray
from pyproj import Transformer
from stac_examples import (
    BOUNDS,
    CORNER,
    REFLECTANCE,
    Raster,
    make_s1,
    make_s2,
    serve_assets,
    write_items,
    write_s1_item,
    write_s2_item,
)

from biomassters.errors import SceneError
from biomassters.scenes.grid import Box, Grid
from biomassters.scenes.patience import Patience
from biomassters.scenes.scene import Pixels, Scene
from biomassters.scenes.stac.description import StacDescription
from biomassters.scenes.stac.stac_scene import StacScene, open_stac_scene
from biomassters.store.bands import CLP, S1_STORED_NODATA, S2_STORED_NODATA

SEPTEMBER, JUNE = 0, 9
CLOUDS_OF_CLASSES = {4: 0, 5: 0, 6: 0, 11: 5, 2: 10, 7: 30, 3: 40, 10: 50, 8: 65, 9: 95}


def open_scene(folder: Path, name: str = "items.json", **changes: object) -> StacScene:
    described = {"source": "stac", "items": name, "start": "2020-09", "crs": "EPSG:3067"}
    description = StacDescription.model_validate({**described, "bounds": BOUNDS, **changes})
    return open_stac_scene(description, folder / "tampere.yaml", patience=Patience(3, 0.001))


class Archive:
    """A folder with the items of two months, and what they were made of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.s2 = [make_s2(seed) for seed in range(3)]
        self.other_zone = make_s2(3, "EPSG:32634")
        self.s1 = [make_s1(seed) for seed in range(4)]
        dates = ("2021-06-03T10:00:00", "2021-06-08T10:00:00", "2021-06-13T10:00:00")
        self.items = [
            write_s2_item(folder, f"S2_{day[:10]}", day, rasters)
            for day, rasters in zip(dates, self.s2, strict=True)
        ]
        self.items.append(
            write_s2_item(folder, "S2_zone34", "2020-09-30T10:00:00", self.other_zone)
        )
        passes = ("2021-06-01T04:50:00", "2021-06-01T04:50:25", "2021-06-07T04:50:00")
        self.items += [
            write_s1_item(folder, f"S1_{index}", moment, self.s1[index])
            for index, moment in enumerate(passes)
        ]
        radar = make_s1(3, "EPSG:32634")
        self.s1[3] = radar
        self.items.append(
            write_s1_item(folder, "S1_3", "2021-06-02T16:00:00", radar, is_ascending=False)
        )
        write_items(folder / "items.json", self.items)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return Archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def scene(archive: Archive) -> StacScene:
    return open_scene(archive.folder)


@pytest.fixture(scope="module")
def pixels(scene: StacScene) -> Pixels:
    return scene.read(scene.grid.extent)


def sample(raster: Raster, grid: Grid) -> NDArray[Any]:
    """Return the nearest pixel of a raster for each of the map; all lie on it."""
    height, width = grid.extent.shape
    rows, columns = np.mgrid[:height, :width] + 0.5
    x, y = grid.transform(grid.extent) @ (columns, rows)
    there = Transformer.from_crs(grid.crs, raster.crs, always_xy=True).transform(x, y)
    columns, rows = ~raster.affine @ there
    return raster.values[np.floor(rows).astype(int), np.floor(columns).astype(int)]


def test_scene_is_what_maps_are_made_of(scene: StacScene) -> None:
    taken: Scene = scene
    assert (taken.name, taken.period) == ("tampere", ("2020-09-01", "2021-08-31"))
    assert taken.bands[:4] == ("VV ascending", "VH ascending", "VV descending", "VH descending")
    assert taken.bands[4:] == (*REFLECTANCE, "CLP")
    assert taken.grid.extent.shape == (140, 130)


def test_month_of_s2_is_the_clearest_pixels_by_hand(
    archive: Archive, scene: StacScene, pixels: Pixels
) -> None:
    scores, values = [], []
    for rasters in archive.s2:
        classes = sample(rasters["SCL"], scene.grid)
        scores.append(np.vectorize(lambda c: CLOUDS_OF_CLASSES.get(c, 999))(classes))
        values.append([sample(rasters[band], scene.grid) for band in REFLECTANCE])
    best = np.argmin(scores, axis=0)
    least = np.min(scores, axis=0)
    expected = np.choose(best, np.swapaxes(values, 0, 1).swapaxes(0, 1))
    expected = np.where(least < 999, expected, S2_STORED_NODATA)
    np.testing.assert_array_equal(pixels.s2[JUNE, :CLP], expected)
    np.testing.assert_array_equal(
        pixels.s2[JUNE, CLP], np.where(least < 999, least, S2_STORED_NODATA)
    )
    assert len(set(best.ravel())) == 3


def test_month_of_s1_is_the_mean_power_of_passes_by_hand(
    archive: Archive, scene: StacScene, pixels: Pixels
) -> None:
    first, twin, second = (sample(r["vv"], scene.grid).astype(float) for r in archive.s1[:3])
    one_pass = np.where(np.isnan(first), twin, first)
    known = ~np.isnan(second)
    assert known.any()
    mean = np.where(known, (one_pass + np.where(known, second, 0)) / 2, one_pass)
    expected = np.rint(1000 * np.log10(mean))
    valid = ~np.isnan(mean)
    np.testing.assert_array_equal(pixels.s1[JUNE, 0][valid], expected[valid])
    assert (pixels.s1[JUNE, 0][~valid] == S1_STORED_NODATA).all()


def test_absent_months_and_orbits_are_nodata(pixels: Pixels) -> None:
    assert pixels.find_present_months().nonzero()[0].tolist() == [SEPTEMBER, JUNE]
    assert (pixels.s1[SEPTEMBER] == S1_STORED_NODATA).all()
    assert (pixels.s1[JUNE, 2:] != S1_STORED_NODATA).any()
    assert pixels.s2.dtype == np.uint16
    assert pixels.s1.dtype == np.int16


def test_other_zone_is_warped_to_the_nearest_pixel(
    archive: Archive, scene: StacScene, pixels: Pixels
) -> None:
    expected = sample(archive.other_zone["B4"], scene.grid)
    known = pixels.s2[SEPTEMBER, 2] != S2_STORED_NODATA
    # GDAL's way there errs by up to an eighth of a pixel.
    assert (pixels.s2[SEPTEMBER, 2] == expected)[known].mean() > 0.9
    classes = sample(archive.other_zone["SCL"], scene.grid)
    assert ((classes != 0) == known).mean() > 0.95


def test_pixel_has_the_same_values_in_whatever_box(scene: StacScene, pixels: Pixels) -> None:
    extent = scene.grid.extent
    corner = Box(int(-CORNER[1] // 10), int(CORNER[0] // 10), 1, 1)
    across = Box(corner.row - 3, corner.column - 1, 7, 2)
    for box in (across, Box(extent.row + 3, extent.column + 5, 61, 55), corner):
        rows, columns = box.within(extent)
        part = scene.read(box)
        np.testing.assert_array_equal(part.s1, pixels.s1[:, :, rows, columns])
        np.testing.assert_array_equal(part.s2, pixels.s2[:, :, rows, columns])


def test_pixels_beyond_the_data_are_nodata(scene: StacScene) -> None:
    far = scene.read(Box(0, 0, 3, 4))
    assert far.s1.shape == (12, 4, 3, 4)
    assert not far.find_valid().any()


def test_threads_and_bounds_change_no_value(
    archive: Archive, scene: StacScene, pixels: Pixels
) -> None:
    west, south, east, north = BOUNDS
    smaller = open_scene(archive.folder, bounds=(west + 200, south + 100, east, north - 300))
    box = Box(smaller.grid.extent.row, smaller.grid.extent.column, 30, 30)
    rows, columns = box.within(scene.grid.extent)
    with ThreadPoolExecutor(3) as pool:
        for part in pool.map(smaller.read, [box] * 3):
            np.testing.assert_array_equal(part.s2, pixels.s2[:, :, rows, columns])
            np.testing.assert_array_equal(part.s1, pixels.s1[:, :, rows, columns])


def test_order_of_items_changes_nothing(archive: Archive, scene: StacScene, pixels: Pixels) -> None:
    write_items(archive.folder / "turned.json", archive.items[::-1])
    write_items(archive.folder / "s1.json", archive.items[4:])
    write_items(archive.folder / "s2.json", archive.items[:4])
    turned = open_scene(archive.folder, "turned.json")
    several = open_scene(archive.folder, items=["s1.json", "s2.json"])
    box = Box(scene.grid.extent.row, scene.grid.extent.column, 9, 9)
    for other in (turned, several):
        part = other.read(box)
        np.testing.assert_array_equal(part.s1, pixels.s1[:, :, :9, :9])
        np.testing.assert_array_equal(part.s2, pixels.s2[:, :, :9, :9])


def test_identity_follows_what_decides_pixels(archive: Archive, scene: StacScene) -> None:
    document = json.loads((archive.folder / "items.json").read_text())

    def identify(change: Callable[[dict[str, Any]], None]) -> str:
        changed = json.loads(json.dumps(document))
        for feature in changed["features"]:
            change(feature)
        (archive.folder / "items.json").write_text(json.dumps(changed))
        try:
            return open_scene(archive.folder).identity
        finally:
            (archive.folder / "items.json").write_text(json.dumps(document))

    assert identify(lambda f: f.update(links=[])) == scene.identity
    assert identify(lambda f: f["properties"].update(updated="today")) == scene.identity
    assert identify(lambda f: f.update(id=f["id"] + "_1")) != scene.identity
    assert open_scene(archive.folder, s2={"clearest": "image"}).identity != scene.identity
    assert len(scene.identity) == 16


@pytest.mark.parametrize("catalogue", ["planetary-computer", "cdse"])
def test_catalogues_differ_in_names_alone(
    tmp_path: Path, archive: Archive, scene: StacScene, catalogue: str
) -> None:
    raw = make_s2(0, raw=1000)
    properties = {"s2__processing_baseline": "05.11"}
    item = write_s2_item(tmp_path, "A", "2021-06-03", raw, catalogue=catalogue, **properties)
    write_items(tmp_path / "items.json", [item])
    found = open_scene(tmp_path)
    part = found.read(found.grid.extent).s2[JUNE]
    if catalogue == "cdse":
        np.testing.assert_array_equal(part[CLP], sample(archive.s2[0]["CLP"], scene.grid))
    known = part[0] != S2_STORED_NODATA
    for index, band in enumerate(REFLECTANCE):
        expected = sample(archive.s2[0][band], scene.grid)
        np.testing.assert_array_equal(part[index][known], expected[known])
    assert known.mean() > 0.8


def test_clearest_image_goes_by_the_clouds_of_the_item(tmp_path: Path) -> None:
    items = [
        write_s2_item(tmp_path, f"A{day}", f"2021-06-0{day}", make_s2(day), eo__cloud_cover=cover)
        for day, cover in ((1, 60.0), (2, 10.0))
    ]
    for item, cover in zip(items, (60.0, 10.0), strict=True):
        item.properties["eo:cloud_cover"] = cover
    write_items(tmp_path / "items.json", items)
    found = open_scene(tmp_path, s2={"clearest": "image"})
    part = found.read(found.grid.extent).s2[JUNE]
    classes = sample(make_s2(2)["SCL"], found.grid)
    expected = sample(make_s2(2)["B4"], found.grid)
    np.testing.assert_array_equal(part[2][classes != 0], expected[classes != 0])
    assert (part[CLP][classes == 9] == 95).all()


def test_scene_without_clouds_has_no_clp(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rasters = {band: raster for band, raster in make_s2(0).items() if band in ("B4", "B8")}
    write_items(tmp_path / "items.json", [write_s2_item(tmp_path, "A", "2021-06-03", rasters)])
    with pytest.raises(SceneError, match=r"tampere\.yaml: item A.*clouds: none.*model\.bands"):
        open_scene(tmp_path)
    with caplog.at_level(logging.WARNING):
        found = open_scene(tmp_path, s2={"clouds": "none"})
    assert found.bands == ("B4", "B8")
    assert "no items of Sentinel-1" in caplog.text
    part = found.read(found.grid.extent).s2[JUNE]
    assert (part[[2, 6]] != S2_STORED_NODATA).all()
    assert (part[[0, CLP]] == S2_STORED_NODATA).all()


def test_scene_on_a_server_equals_the_one_on_disk(
    archive: Archive, scene: StacScene, pixels: Pixels
) -> None:
    box = Box(scene.grid.extent.row, scene.grid.extent.column, 30, 30)
    with serve_assets(archive.folder) as server:
        items = [pystac.Item.from_dict(item.to_dict()) for item in archive.items]
        for item in items:
            for asset in item.assets.values():
                asset.href = f"{server.address}/{asset.href}?sig=secret"
        write_items(archive.folder / "served.json", items)
        found = open_scene(archive.folder, "served.json")
        server.faults = [503]
        part = found.read(box)
        assert server.faults == []
    np.testing.assert_array_equal(part.s1, pixels.s1[:, :, :30, :30])
    np.testing.assert_array_equal(part.s2, pixels.s2[:, :, :30, :30])


def test_examples_are_items_by_the_standard(archive: Archive) -> None:
    for item in archive.items:
        item = pystac.Item.from_dict(item.to_dict())
        item.stac_extensions = []  # their schemas are on the web
        item.validate()
