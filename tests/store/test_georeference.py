from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray
from example_chips import hash_folder
from forked_scripts import run_script
from rasterio.io import MemoryFile
from together import make_environment
from workspace import TINY, Workspace, copy_repository

from biomassters.dataset.files import (
    ChipFiles,
    ChipRecord,
    FileRecord,
    feature_filename,
    target_filename,
)
from biomassters.errors import ChipDataError
from biomassters.packing.assembly import pack_split
from biomassters.simulator.official_files import simulate_files
from biomassters.sources.folder_source import FolderSource
from biomassters.store.chips import ChipStore
from biomassters.store.georeference import (
    NOWHERE,
    Georeference,
    allow_nowhere,
    describe_fault,
    georeference_profile,
    lie_together,
    read_georeference,
)

SIZE = 32
UTM35 = Georeference("EPSG:32635", (10.0, 0.0, 500_000.0, 0.0, -10.0, 6_900_000.0))
EAST = Georeference("EPSG:32635", (10.0, 0.0, 500_320.0, 0.0, -10.0, 6_900_000.0))
ROTATED = Georeference("EPSG:3067", (8.0, 6.0, 385_000.5, 6.0, -8.0, 6_671_000.25))
LAEA = "+proj=laea +lat_0=60 +lon_0=25 +ellps=GRS80 +units=m"


def put(data: bytes, place: Georeference) -> bytes:
    """Write a raster again, somewhere."""
    with allow_nowhere(), MemoryFile(data) as memory, memory.open() as raster:
        profile = {**raster.profile, **georeference_profile(place)}
        bands = raster.read()
    with allow_nowhere(), MemoryFile() as memory:
        with memory.open(**profile) as raster:
            raster.write(bands)
        return bytes(memory.read())


@cache
def simulate(chip_id: str) -> ChipFiles:
    return simulate_files(chip_id, SIZE)


def write_chips(
    folder: Path, *chip_ids: str, place: Georeference, but: Mapping[str, Georeference] | None = None
) -> list[ChipRecord]:
    """Write files that lie somewhere, but those that lie elsewhere; return their records."""
    chips = []
    for chip_id in chip_ids:
        records = {}
        for name, data in simulate(chip_id).items():
            data = put(data, (but or {}).get(name, place))
            path = folder / "train_features" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            records[name] = FileRecord(name, "train_features", len(data), None)
        s1, s2 = (
            tuple(records.get(feature_filename(chip_id, sensor, month)) for month in range(12))
            for sensor in ("S1", "S2")
        )
        chips.append(ChipRecord(chip_id, "train", s1, s2, records[target_filename(chip_id)]))
    return chips


def pack(chips: list[ChipRecord], folder: Path, store: str = "train.zarr") -> ChipStore:
    """Pack the files under a folder."""
    path = folder / store
    pack_split(chips, FolderSource(folder), path, folder / "scratch", chip_size=SIZE)
    return ChipStore.open(path)


def reread(place: Georeference) -> Georeference:
    data = put(simulate("5eed0001")["5eed0001_agbm.tif"], place)
    with allow_nowhere(), MemoryFile(data) as memory, memory.open() as raster:
        return read_georeference(raster)


@pytest.mark.parametrize(
    "place",
    [NOWHERE, UTM35, ROTATED, UTM35._replace(crs=""), UTM35._replace(transform=NOWHERE.transform)],
)
def test_what_is_written_somewhere_is_read_from_there(place: Georeference) -> None:
    assert reread(place) == place


def test_crs_without_a_number_is_kept_as_wkt() -> None:
    wkt = rasterio.CRS.from_user_input(LAEA).to_wkt()
    place = reread(UTM35._replace(crs=wkt))
    assert "Lambert_Azimuthal_Equal_Area" in place.crs
    assert reread(place) == place


def test_places_are_one_but_for_rounding() -> None:
    nudged = UTM35._replace(transform=(10.000000001, *UTM35.transform[1:]))
    assert lie_together(UTM35, nudged)
    assert lie_together(NOWHERE, Georeference("", (float("nan"),) * 6))
    assert not lie_together(UTM35, EAST)
    assert not lie_together(UTM35, UTM35._replace(crs="EPSG:32634"))
    assert not lie_together(UTM35, NOWHERE)


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        (NOWHERE, None),
        (UTM35, None),
        (UTM35._replace(crs="x" * 9000), "a CRS of 9000 characters"),
        (UTM35._replace(crs="one\ntwo"), r"a CRS with the character '\n'"),
        (UTM35._replace(transform=(1.0, 0.0, 2.5, 0.0, float("nan"), 7.0)), "1, 0, 2.5, 0, nan, 7"),
    ],
)
def test_place_that_no_sound_raster_has_is_a_fault(place: Georeference, fault: str | None) -> None:
    found = describe_fault(place)
    assert found is None if fault is None else fault in str(found)


def test_store_knows_where_each_chip_lies(tmp_path: Path) -> None:
    west = write_chips(tmp_path, "5eed0001", place=UTM35)
    east = write_chips(tmp_path, "5eed0002", place=EAST)
    store = pack(west + east, tmp_path)
    assert [store.georeference(index) for index in range(2)] == [UTM35, EAST]
    assert store.read_chip(1).georeference == EAST


def test_store_of_chips_without_a_place_says_nowhere(tmp_path: Path) -> None:
    store = pack(write_chips(tmp_path, "5eed0001", place=NOWHERE), tmp_path)
    assert store.georeference(0) == NOWHERE
    assert store.read_chip(0).georeference == NOWHERE


def test_xarray_sees_the_place_beside_the_pixels(tmp_path: Path) -> None:
    pack(write_chips(tmp_path, "5eed0001", place=ROTATED), tmp_path)
    with xarray.open_zarr(tmp_path / "train.zarr", chunks=None) as dataset:
        assert {"crs", "transform"} <= set(dataset.coords)
        assert dataset.crs.values.tolist() == ["EPSG:3067"]
        coefficients = dataset.transform.isel(chip=0)
        assert tuple(coefficients.values.tolist()) == ROTATED.transform
        assert float(coefficients.sel(coefficient="f")) == 6_671_000.25


def test_bytes_of_a_placed_store_do_not_depend_on_how_it_was_made(tmp_path: Path) -> None:
    chips = write_chips(tmp_path, "5eed0001", "5eed0002", place=UTM35)
    pack(chips, tmp_path, "once.zarr")
    pack(chips[1:], tmp_path, "twice.zarr")
    pack(chips, tmp_path, "twice.zarr")
    assert hash_folder(tmp_path / "once.zarr") == hash_folder(tmp_path / "twice.zarr")


def test_place_is_part_of_the_content(tmp_path: Path) -> None:
    ids = set()
    for number, place in enumerate((NOWHERE, UTM35, EAST)):
        folder = tmp_path / str(number)
        ids.add(pack(write_chips(folder, "5eed0001", place=place), folder).content_id)
    assert len(ids) == 3


def test_file_that_does_not_say_its_place_lies_with_the_others(tmp_path: Path) -> None:
    silent = {f"5eed0001_{name}.tif": NOWHERE for name in ("S1_00", "agbm")}
    store = pack(write_chips(tmp_path, "5eed0001", place=UTM35, but=silent), tmp_path)
    assert store.georeference(0) == UTM35


@pytest.mark.parametrize("name", ["5eed0001_S1_07.tif", "5eed0001_agbm.tif"])
@pytest.mark.parametrize(
    ("place", "got"),
    [
        (EAST, r"EPSG:32635 \(10, 0, 500320, 0, -10, 6900000\)"),
        (UTM35._replace(crs="EPSG:3067"), "EPSG:3067"),
        (UTM35._replace(crs=""), "no CRS"),
    ],
)
def test_file_that_lies_elsewhere_is_refused(
    tmp_path: Path, name: str, place: Georeference, got: str
) -> None:
    chips = write_chips(tmp_path, "5eed0001", place=UTM35, but={name: place})
    expected = rf"expected the place of 5eed0001_S1_00\.tif, EPSG:32635 .*got {got}.*at {name};"
    with pytest.raises(ChipDataError, match=expected) as caught:
        pack(chips, tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "train.zarr").exists()


def run(workspace: Workspace, *script: str) -> None:
    environment = make_environment(BIOMASSTERS_WORKERS="0", BIOMASSTERS_PROCESSES="1")
    done = run_script(workspace.folder, *script, environment=environment)
    assert done.returncode == 0, done.stderr


def test_predictions_of_a_folders_chips_lie_where_the_chips_do(tmp_path: Path) -> None:
    workspace = copy_repository(tmp_path)
    uncalibrated = {"predict.calibration": "presets/uncalibrated.json"}
    workspace.set_params({**TINY, "train.epochs": 1, **uncalibrated})
    workspace.commit("A tiny experiment")
    chips = write_chips(tmp_path, "5eed0001", "5eed0002", "5eed0003", place=UTM35)
    pack(chips, tmp_path, "chips/train.zarr")
    pack(chips[:1], tmp_path, "chips/test.zarr")
    run(workspace, "src/band_statistics.py")
    run(workspace, "src/train.py", "0")
    (tmp_path / "models/folds").rename(tmp_path / "models/final")
    run(workspace, "src/predict.py")
    maps = [*tmp_path.glob("validation/fold-0/*.tif"), *tmp_path.glob("predictions/*.tif")]
    assert len(maps) == 2
    for path in maps:
        with rasterio.open(path) as raster:
            assert read_georeference(raster) == UTM35
            assert np.isfinite(raster.read(1)).all()
