import json
import pickle
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import xarray
from example_chips import read_real_files, read_real_record, simulate_records

from biomassters.errors import StoreError
from biomassters.packing.assembly import pack_split
from biomassters.simulator.chip import simulate_chip
from biomassters.sources.source import FetchedChip
from biomassters.sources.synthetic_source import SyntheticSource
from biomassters.statistics.figures import PUBLISHED_MAXIMUM, PUBLISHED_MINIMUM
from biomassters.store.bands import MONTHS, S1_BANDS, S1_STORED_NODATA, S2_BANDS, S2_STORED_NODATA
from biomassters.store.chips import Chip, ChipStore
from biomassters.store.layout import FORMAT_VERSION

IDS = ("5eed0001", "5eed0002", "5eed0003")


class _RealSource:
    kind = "folder"

    def __init__(self, shared_folder: Path) -> None:
        self.shared_folder = shared_folder

    def prepare(self, chips):
        pass

    def fetch_chips(self, chips):
        for chip in chips:
            yield FetchedChip(chip, dict(read_real_files(self.shared_folder, chip.chip_id)))


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chips")
    path = folder / "train.zarr"
    pack_split(simulate_records(*IDS), SyntheticSource(32), path, folder / "scratch", chip_size=32)
    return path


@pytest.fixture
def copied(store_path: Path, tmp_path: Path) -> Path:
    """A store that a test may damage."""
    path = tmp_path / "train.zarr"
    for file in store_path.rglob("*"):
        if file.is_file():
            target = path / file.relative_to(store_path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return path


def read_in_worker(store: ChipStore, index: int) -> Chip:
    return store.read_chip(index)


def test_store_knows_its_chips_without_reading_pixels(store_path: Path) -> None:
    store = ChipStore.open(store_path)
    assert store.chip_ids == list(IDS)
    assert (len(store), store.chip_size, store.has_targets) == (3, 32, True)
    for index, chip_id in enumerate(IDS):
        simulated = simulate_chip(chip_id, 32)
        np.testing.assert_array_equal(store.s2_present[index], simulated.s2_present)
        np.testing.assert_allclose(
            store.agbm_mean[index], simulated.agbm.mean(dtype=np.float64), rtol=1e-12
        )


@pytest.mark.parametrize("index", [0, 1, 2])
def test_chip_is_what_was_simulated(store_path: Path, index: int) -> None:
    chip = ChipStore.open(store_path).read_chip(index)
    simulated = simulate_chip(IDS[index], 32)
    nodata = simulated.s1 == -9999
    np.testing.assert_array_equal(chip.s1 == S1_STORED_NODATA, nodata)
    np.testing.assert_allclose(chip.s1[~nodata] * 0.01, simulated.s1[~nodata], atol=0.00501)
    for month, present in enumerate(simulated.s2_present):
        image = simulated.s2[month]
        without = image[10] == 255
        expected = np.where(without, 65535, image) if present else np.zeros_like(image)
        np.testing.assert_array_equal(chip.s2[month], expected)
    np.testing.assert_array_equal(chip.agbm, simulated.agbm)


def test_chip_is_read_into_the_arrays_that_are_given(store_path: Path) -> None:
    store = ChipStore.open(store_path)
    arrays = store.make_arrays()
    chip, expected = store.read_chip(1, arrays), store.read_chip(1)
    for got, given in zip((chip.s1, chip.s2, chip.agbm), arrays, strict=True):
        assert got is given
    np.testing.assert_array_equal(chip.s1, expected.s1)
    np.testing.assert_array_equal(chip.s2, expected.s2)
    np.testing.assert_array_equal(chip.agbm, expected.agbm)


def test_xarray_opens_the_store_with_names_and_units(store_path: Path) -> None:
    chip = ChipStore.open(store_path).read_chip(1)
    with xarray.open_zarr(store_path, chunks=None) as dataset:
        assert dataset.s1.dims == ("chip", "month", "s1_band", "y", "x")
        assert dataset.s2.dims == ("chip", "month", "s2_band", "y", "x")
        assert dataset.chip_id.values.tolist() == list(IDS)
        assert dataset.month.values.tolist() == list(MONTHS)
        assert dataset.s1_band.values.tolist() == list(S1_BANDS)
        assert dataset.s2_band.values.tolist() == list(S2_BANDS)
        assert set(dataset.data_vars) == {"s1", "s2", "s2_present", "agbm"}
        s1 = dataset.s1.isel(chip=1).values
        np.testing.assert_array_equal(np.isnan(s1), chip.s1 == S1_STORED_NODATA)
        np.testing.assert_allclose(s1[~np.isnan(s1)], chip.s1[~np.isnan(s1)] * 0.01, rtol=1e-6)
        s2 = dataset.s2.isel(chip=1).values
        assert dataset.s2.encoding["_FillValue"] == S2_STORED_NODATA
        np.testing.assert_array_equal(np.isnan(s2), chip.s2 == S2_STORED_NODATA)
        np.testing.assert_array_equal(s2[~np.isnan(s2)], chip.s2[~np.isnan(s2)])
        np.testing.assert_array_equal(dataset.agbm.isel(chip=1), chip.agbm)
        np.testing.assert_array_equal(dataset.s2_present.isel(chip=1), chip.s2_present)


def test_read_target_is_the_chips_agbm(store_path: Path) -> None:
    store = ChipStore.open(store_path)
    np.testing.assert_array_equal(store.read_target(2), store.read_chip(2).agbm)


def test_store_reads_the_same_in_a_worker(store_path: Path) -> None:
    store = ChipStore.open(store_path)
    here = store.read_chip(1)
    with get_context("spawn").Pool(1) as pool:
        there = pool.apply(read_in_worker, (store, 1))
    np.testing.assert_array_equal(there.s2, here.s2)
    assert pickle.loads(pickle.dumps(store)).content_id == store.content_id  # noqa: S301


@pytest.mark.parametrize("name", ["s1", "s2", "agbm"])
@pytest.mark.parametrize("damage", ["absent", "cut", "other"])
def test_damaged_chip_is_refused(copied: Path, name: str, damage: str) -> None:
    [file] = (copied / name).glob("c.1.*")
    data = file.read_bytes()
    file.unlink()
    if damage == "cut":
        file.write_bytes(data[:-1])
    elif damage == "other":
        file.write_bytes(b"\0" * len(data))
    store = ChipStore.open(copied)
    store.read_chip(0)
    with pytest.raises(
        StoreError, match=f"expected {name} of chip 5eed0002.*/{name}/c.1.*; delete"
    ):
        store.read_chip(1)


@pytest.mark.parametrize("name", ["zarr.json", "chip_id/c.0", "agbm_mean/zarr.json"])
def test_store_without_its_metadata_is_refused(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(StoreError, match=r"expected a chip store, got .*; "):
        ChipStore.open(copied)


def test_store_of_another_format_is_refused(copied: Path) -> None:
    root = json.loads((copied / "zarr.json").read_text())
    root["attributes"]["format_version"] = 0
    (copied / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(
        StoreError, match=f"expected a chip store of format {FORMAT_VERSION}, got 0"
    ):
        ChipStore.open(copied)


def test_index_beyond_the_store_is_an_index_error(store_path: Path) -> None:
    with pytest.raises(IndexError):
        ChipStore.open(store_path).read_chip(3)


def test_split_without_targets_has_none(tmp_path: Path) -> None:
    chips = [chip._replace(agbm=None) for chip in simulate_records(*IDS[:2])]
    path = tmp_path / "test.zarr"
    pack_split(chips, SyntheticSource(32), path, tmp_path / "scratch", chip_size=32)
    store = ChipStore.open(path)
    assert not store.has_targets
    assert store.read_chip(0).agbm is None
    assert not (path / "agbm").exists()
    with pytest.raises(StoreError, match="expected targets, got a split without"):
        store.read_target(0)


def test_chip_without_target_among_others_is_nan(tmp_path: Path) -> None:
    first, second = simulate_records(*IDS[:2])
    path = tmp_path / "train.zarr"
    chips = [first._replace(agbm=None), second]
    pack_split(chips, SyntheticSource(32), path, tmp_path / "scratch", chip_size=32)
    store = ChipStore.open(path)
    assert np.isnan(store.read_target(0)).all()
    assert not np.isnan(store.read_target(1)).any()
    np.testing.assert_array_equal(np.isnan(store.agbm_mean), [True, False])


def test_real_chip_normalises_as_the_winners(shared_folder: Path, tmp_path: Path) -> None:
    record = read_real_record(shared_folder, "288afc34")
    path = tmp_path / "train.zarr"
    pack_split([record], _RealSource(shared_folder), path, tmp_path / "scratch", chip_size=256)
    chip = ChipStore.open(path).read_chip(0)
    low, high = (np.array(v)[:, None, None] for v in (PUBLISHED_MINIMUM, PUBLISHED_MAXIMUM))
    values = np.concatenate([chip.s1 * 0.01, chip.s2], axis=1)
    normalised = (values - low) / (high - low)
    normalised[:, :4][chip.s1 == S1_STORED_NODATA] = 0
    golden = np.load(shared_folder / "golden" / "normalised_288afc34.npz")
    got = normalised[tuple(golden["index"].T)]
    np.testing.assert_allclose(got, golden["value"], atol=1e-4)
    np.testing.assert_allclose(normalised.mean(axis=(2, 3)), golden["month_band_mean"], atol=1e-5)
