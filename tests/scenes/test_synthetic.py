"""Simulated scenes: georeferenced, endless, the same in whatever box, and stored as chips are."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from example_chips import pack, simulate_records

from biomassters.errors import SceneError
from biomassters.scenes.description import SyntheticDescription
from biomassters.scenes.grid import Box
from biomassters.scenes.scene import Scene, make_nodata
from biomassters.scenes.synthetic import SyntheticScene, open_synthetic_scene, store_simulated
from biomassters.simulator.chip import simulate_chip
from biomassters.store.bands import BANDS, CLP, S1_STORED_NODATA, S2_STORED_NODATA
from biomassters.store.chips import ChipStore

BOUNDS = (448_000, 6_886_400, 449_000, 6_887_000)


def open_scene(path: str = "scenes/toy.yaml", **changes: object) -> SyntheticScene:
    described = {
        "source": "synthetic",
        "landscape": "toy",
        "year": 2020,
        "crs": "EPSG:3067",
        "bounds": BOUNDS,
    }
    return open_synthetic_scene(SyntheticDescription(**described | changes), Path(path))


def test_a_scene_says_what_it_is() -> None:
    scene: Scene = open_scene()
    assert scene.name == "toy"
    assert scene.grid.crs == "EPSG:3067"
    assert scene.grid.extent == Box(-688_700, 44_800, 60, 100)
    assert scene.period == ("2020-09-01", "2021-08-31")
    assert scene.bands == BANDS
    assert len(scene.identity) == 16
    assert int(scene.identity, 16) >= 0


@pytest.mark.parametrize(
    "changes",
    [
        {"landscape": "other"},
        {"crs": "EPSG:32635"},
        {"resolution": 20.0},
        {"bounds": (448_000, 6_886_400, 449_000, 6_887_010)},
    ],
)
def test_identity_changes_with_what_decides_pixels(changes: dict[str, object]) -> None:
    assert open_scene(**changes).identity != open_scene().identity


def test_identity_is_no_matter_of_names_and_dates() -> None:
    same = open_scene(
        "elsewhere/b.yaml", year=2017, bounds=[448_000.0, 6_886_401, 449_000, 6887000]
    )
    assert same.identity == open_scene().identity


def test_bounds_that_hold_nothing_are_refused() -> None:
    with pytest.raises(SceneError, match=r"at scenes/toy\.yaml: bounds"):
        open_scene(bounds=(1, 0, 0, 1))


def test_a_pixel_is_the_same_in_whatever_box() -> None:
    # The larger one is simulated in parts, the smaller one crosses their border.
    scene = open_scene()
    inner = Box(-688_990, 44_950, 37, 301)
    outer = Box(-689_001, 44_700, 60, 600)
    cut, whole = scene.read(inner), scene.read(outer).cut(*inner.within(outer))
    assert cut.s1.tobytes() == whole.s1.tobytes()
    assert cut.s2.tobytes() == whole.s2.tobytes()
    targets = scene.read_target(inner), scene.read_target(outer)[inner.within(outer)]
    assert targets[0].tobytes() == targets[1].tobytes()


def test_boxes_have_the_types_and_shapes_of_a_store() -> None:
    pixels = open_scene().read(Box(3, -5, 7, 9))
    assert (pixels.s1.dtype, pixels.s1.shape) == (np.int16, (12, 4, 7, 9))
    assert (pixels.s2.dtype, pixels.s2.shape) == (np.uint16, (12, 11, 7, 9))
    target = open_scene().read_target(Box(3, -5, 7, 9))
    assert (target.dtype, target.shape) == (np.float32, (7, 9))
    assert target.min() >= 0


def test_the_landscape_goes_on_beyond_the_extent() -> None:
    scene = open_scene()
    around = scene.grid.extent.grow(30)
    assert scene.read(around).find_valid().all()
    assert scene.read_target(around)[:30].max() > 20


def test_threads_read_the_same() -> None:
    scene = open_scene()
    boxes = [*scene.grid.extent.split(32)][:4]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(scene.read, boxes))
    for box, pixels in zip(boxes, together, strict=True):
        assert pixels.s2.tobytes() == scene.read(box).s2.tobytes()


def test_images_are_stored_as_those_of_chips(tmp_path: Path) -> None:
    # They lack months, orbits and, beyond the edge of a swath, pixels.
    ids = ["stored-2", "stored-13", "stored-32"]
    pack(simulate_records(*ids), tmp_path)
    store = ChipStore.open(tmp_path / "train.zarr")
    for index, chip_id in enumerate(ids):
        stored = store.read_chip(index)
        pixels = make_nodata(Box(0, 0, 32, 32))
        store_simulated(simulate_chip(chip_id, 32), pixels)
        np.testing.assert_array_equal(pixels.s1, stored.s1)
        present = stored.s2_present
        np.testing.assert_array_equal(pixels.s2[present], stored.s2[present])
        assert (pixels.s2[~present] == S2_STORED_NODATA).all()
        np.testing.assert_array_equal(pixels.find_present_months(), present)
    assert (store.read_chip(2).s1 == S1_STORED_NODATA).any()
    missing = store.read_chip(1).s2[:, CLP] == S2_STORED_NODATA
    assert missing.any()
    assert not missing.all(axis=(1, 2)).any()
