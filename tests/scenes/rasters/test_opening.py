"""What is wrong with a scene of rasters is said before any work, and how to mend it."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from raster_examples import lay_grid, open_scene, simulate_pixels, write_months, write_raster

from biomassters.errors import SceneError
from biomassters.scenes.grid import Box
from biomassters.scenes.rasters.opening import list_sample_boxes
from biomassters.store.bands import S2_BANDS

SIZE = 48
GRID = lay_grid(SIZE)
PIXELS = simulate_pixels("opening", SIZE)


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """A folder of right rasters, and the YAML of their scene."""
    folder = tmp_path_factory.mktemp("right")
    return folder, write_months(folder, PIXELS, GRID)


def refer_to(folder: Path, document: dict) -> dict:
    """Return a YAML whose files lie in another folder."""
    entries = [e | {"files": f"{folder}/{e['files']}"} for e in document["rasters"]]
    return document | {"rasters": entries}


def test_undeclared_missing_files_are_named_and_declared_ones_are_absent(right, tmp_path) -> None:
    folder, document = right
    for name in ("s1_ascending_04.tif", "s1_ascending_05.tif"):
        (folder / name).rename(tmp_path / name)
    try:
        told = r"got none of .*s1_ascending_04.tif \(January\), .*\(February\), at .*absent"
        with pytest.raises(SceneError, match=told):
            open_scene(refer_to(folder, document), tmp_path)
        changed = refer_to(folder, document)
        changed["rasters"][0]["absent"] = ["January", "February"]
        read = open_scene(changed, tmp_path).read(GRID.extent)
        assert (read.s1[4:6, :2] == -32768).all()
        assert np.array_equal(read.s1[4:6, 2:], PIXELS.s1[4:6, 2:])
    finally:
        for name in ("s1_ascending_04.tif", "s1_ascending_05.tif"):
            (tmp_path / name).rename(folder / name)


@pytest.mark.parametrize(
    ("kind", "change", "mend"),
    [
        ("linear_backscatter", lambda db: 10 ** (db / 10), {"S1": {"unit": "linear"}}),
        ("amplitude_backscatter", lambda db: 10 ** (db / 20), {"S1": {"unit": "amplitude"}}),
        ("backscatter_numbers", lambda db: np.rint(db * 100), {"S1": {"scale": 0.01}}),
    ],
)
def test_backscatter_of_another_unit_is_refused_and_converted(tmp_path, kind, change, mend) -> None:
    document = write_months(tmp_path, PIXELS, GRID, change_s1=lambda db, _: change(db))
    with pytest.raises(SceneError, match=rf"scene.yaml: radiometry: .*accept: \[{kind}\]"):
        open_scene(document, tmp_path, check=True)
    read = open_scene(document | {"radiometry": mend}, tmp_path, check=True).read(GRID.extent)
    assert np.abs(read.s1.astype(int) - PIXELS.s1).max() <= 1


def shift(dn: np.ndarray, by: int) -> np.ndarray:
    """Return an image with another offset of its reflectance."""
    moved = dn.astype(np.int32)
    moved[:10] += by
    return np.clip(moved, 0, 65534).astype(np.uint16)


def fraction(dn: np.ndarray) -> np.ndarray:
    """Return an image of reflectance 0 to 1."""
    values = dn.astype(np.float32)
    values[:10] /= 10_000
    return values


@pytest.mark.parametrize(
    ("kind", "change", "mend"),
    [
        ("reflectance_fraction", fraction, {"scale": 10_000}),
        ("offset_not_applied", lambda dn: shift(dn, 1000), {"offset": -1000}),
    ],
)
def test_reflectance_of_another_scale_is_refused_and_converted(
    tmp_path, kind, change, mend
) -> None:
    document = write_months(tmp_path, PIXELS, GRID, change_s2=lambda dn, _: change(dn))
    with pytest.raises(SceneError, match=rf"accept: \[{kind}\]"):
        open_scene(document, tmp_path, check=True)
    mended = document | {"radiometry": {"S2": mend}}
    read = open_scene(mended, tmp_path, check=True).read(GRID.extent)
    assert np.array_equal(read.s2, PIXELS.s2)
    accepted = document | {"radiometry": {"accept": [kind]}}
    open_scene(accepted, tmp_path, check=True)


def test_mixed_baselines_are_mended_by_an_entry_of_their_own(tmp_path) -> None:
    document = write_months(
        tmp_path, PIXELS, GRID, change_s2=lambda dn, month: shift(dn, 1000 * (month > 5))
    )
    with pytest.raises(SceneError, match=r"offset_mixed"):
        open_scene(document, tmp_path, check=True)
    s1, other, s2 = document["rasters"]
    months = s2["months"]
    late = [
        month for month in months if month in ("March", "April", "May", "June", "July", "August")
    ]
    early = [month for month in months if month not in late]
    entries = [s1, other, s2 | {"months": early}, s2 | {"months": late, "offset": -1000}]
    scene = open_scene(document | {"rasters": entries}, tmp_path, check=True)
    assert np.array_equal(scene.read(GRID.extent).s2, PIXELS.s2)


def test_declared_offset_that_lies_is_named(tmp_path) -> None:
    document = write_months(tmp_path, PIXELS, GRID)
    for path in tmp_path.glob("s2_*.tif"):
        with rasterio.open(path, "r+") as dataset:
            dataset.scales, dataset.offsets = (0.0001,) * 10 + (1,), (-0.1,) * 10 + (0,)
    with pytest.raises(SceneError, match=r"s2_\d\d.tif says `offset not applied`.*offset: 0"):
        open_scene(document, tmp_path, check=True)
    mended = document | {"radiometry": {"S2": {"offset": 0}}}
    assert np.array_equal(open_scene(mended, tmp_path, check=True).read(GRID.extent).s2, PIXELS.s2)


def test_same_file_for_two_months_is_refused(right, tmp_path) -> None:
    folder, document = right
    changed = refer_to(folder, document)
    name = f"{folder}/s1_ascending_07.tif"
    entry = changed["rasters"][0] | {"files": name, "months": "May"}
    changed["rasters"][0]["absent"] = "May"
    changed["rasters"] = [changed["rasters"][0], entry]
    with pytest.raises(SceneError, match=r"same pixels twice, .*S1 of April, May"):
        open_scene(changed, tmp_path, check=True)


def test_other_years_are_refused(right, tmp_path) -> None:
    folder, _ = right
    (tmp_path / "S2_20180714.tif").write_bytes((folder / "s2_10.tif").read_bytes())
    document = right[1] | {"rasters": [right[1]["rasters"][2] | {"files": "S2_20180714.tif"}]}
    document["rasters"][0]["months"] = "July"
    with pytest.raises(
        SceneError, match=r"from 2020-09 to 2021-08, got .*S2_20180714.tif \(2018-07\)"
    ):
        open_scene(document, tmp_path)
    open_scene(document | {"start": "2017-09"}, tmp_path)
    open_scene(document | {"radiometry": {"accept": "mixed_years"}}, tmp_path)


def test_gamma0_by_name_is_refused(right, tmp_path) -> None:
    folder, document = right
    entry = document["rasters"][0] | {"files": "gamma0_{month}.tif", "months": "July"}
    (tmp_path / "gamma0_10.tif").write_bytes((folder / "s1_ascending_10.tif").read_bytes())
    with pytest.raises(SceneError, match=r"gamma0 by the name .*gamma0_10.tif .pixels cannot tell"):
        open_scene(document | {"rasters": [entry]}, tmp_path, check=True)


def test_wrong_number_of_bands_is_named(right, tmp_path) -> None:
    changed = refer_to(*right)
    changed["rasters"][2]["bands"] = list(S2_BANDS[:10])
    with pytest.raises(SceneError, match=r"expected 10 bands .*got 11, at .*s2_.*mend `bands`"):
        open_scene(changed, tmp_path)


def test_scene_elsewhere_is_refused_with_the_extents(right, tmp_path) -> None:
    changed = refer_to(*right) | {"bounds": [500_000, 7_000_000, 501_000, 7_001_000]}
    with pytest.raises(SceneError, match=r"within the bounds 500000, .*theirs are .*s1_.*400000, "):
        open_scene(changed, tmp_path)


def test_raster_without_a_place_is_refused(tmp_path) -> None:
    document = write_months(tmp_path, PIXELS, GRID)
    path = tmp_path / "s1_ascending_00.tif"
    s1 = np.full((2, SIZE, SIZE), -10, np.float32)
    write_raster(path, s1, transform=GRID.transform(GRID.extent), crs=None)
    with pytest.raises(SceneError, match=r"got no CRS, at .*s1_ascending_00.tif; georeference"):
        open_scene(document, tmp_path)


def test_declared_unit_is_refused_unless_the_yaml_says_one(right, tmp_path) -> None:
    (tmp_path / "a.tif").write_bytes((right[0] / "s1_ascending_10.tif").read_bytes())
    with rasterio.open(tmp_path / "a.tif", "r+") as dataset:
        dataset.units = ("1", "1")
    entry = right[1]["rasters"][0] | {"files": "a.tif", "months": "July"}
    with pytest.raises(SceneError, match=r"in dB, got the declared unit '1', at .*a.tif"):
        open_scene(right[1] | {"rasters": [entry]}, tmp_path)
    open_scene(right[1] | {"rasters": [entry | {"unit": "db"}]}, tmp_path)


def test_undeclared_nodata_is_named_when_it_is_read(right, tmp_path) -> None:
    s1 = np.full((2, SIZE, SIZE), -10, np.float32)
    s1[0, 0, 0] = 1e20
    write_raster(tmp_path / "a.tif", s1, transform=GRID.transform(GRID.extent))
    entry = right[1]["rasters"][0] | {"files": "a.tif", "months": "July"}
    scene = open_scene(right[1] | {"rasters": [entry]}, tmp_path)
    with pytest.raises(SceneError, match=r"got 1e\+20 dB, at .*a.tif; .*nodata"):
        scene.read(GRID.extent)
    scene = open_scene(right[1] | {"rasters": [entry | {"nodata": 1e20}]}, tmp_path)
    assert scene.read(GRID.extent).s1[10, 0, 0, :2].tolist() == [-32768, -1000]


def test_identity_is_that_of_values_and_files(right, tmp_path) -> None:
    folder, document = right
    document = refer_to(folder, document)
    one = open_scene(document, tmp_path).identity
    assert open_scene(document, tmp_path).identity == one
    accepting = document | {"radiometry": {"accept": "gamma0"}}
    assert open_scene(accepting, tmp_path).identity == one
    others = [
        document | {"start": "2019-09"},
        document | {"radiometry": {"S2": {"offset": 1}}},
        document | {"rasters": document["rasters"][::-1]},
    ]
    found = {open_scene(other, tmp_path).identity for other in others}
    path = folder / "s2_10.tif"
    path.write_bytes(path.read_bytes())
    found.add(open_scene(document, tmp_path).identity)
    assert len(found | {one}) == 5


def test_samples_are_spread_over_the_scene() -> None:
    boxes = list_sample_boxes(Box(-100, 50, 1000, 2000))
    assert len(boxes) == 9
    assert all(box.intersect(Box(-100, 50, 1000, 2000)) == box for box in boxes)
    assert list_sample_boxes(Box(0, 0, 30, 60)) == [Box(0, 2, 30, 48)]
