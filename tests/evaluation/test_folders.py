from pathlib import Path

import numpy as np
import pytest
import rasterio
from example_chips import simulate_record

from biomassters.errors import ChipDataError
from biomassters.evaluation.folders import list_folder, list_targets, read_folder, score_folder
from biomassters.packing.assembly import pack_split
from biomassters.prediction.maps import PixelIntervals, prediction_path, write_prediction
from biomassters.sources.synthetic_source import SyntheticSource
from biomassters.store.chips import ChipStore
from biomassters.store.georeference import allow_nowhere

CHIP_IDS = ("5eed0001", "5eed0002", "5eed0003")
MAP = np.full((32, 32), 50, np.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ChipStore:
    """Three chips, the last of which has no target."""
    folder = tmp_path_factory.mktemp("store")
    chips = [simulate_record(chip_id, target=chip_id != CHIP_IDS[2]) for chip_id in CHIP_IDS]
    pack_split(chips, SyntheticSource(32), folder / "a.zarr", folder / "scratch", chip_size=32)
    return ChipStore.open(folder / "a.zarr")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Predictions of all three chips."""
    for chip_id in CHIP_IDS:
        write_prediction(tmp_path, chip_id, MAP, {})
    return tmp_path


def write_raster(path: Path, *, count: int = 1, dtype: str = "float32", **options: object) -> None:
    profile = {"driver": "GTiff", "height": 32, "width": 32, "count": count, "dtype": dtype}
    with allow_nowhere(), rasterio.open(path, "w", **profile, **options) as raster:
        raster.write(np.ones((count, 32, 32), dtype))


def test_missing_and_extra_files_are_told_apart(folder: Path) -> None:
    prediction_path(folder, CHIP_IDS[1]).unlink()
    for name in ("stranger_agbm.tif", "5eed0001.TIF", "notes.txt"):
        (folder / name).touch()
    contents = list_folder(folder, CHIP_IDS)
    assert contents.present == [CHIP_IDS[0], CHIP_IDS[2]]
    assert contents.missing == [CHIP_IDS[1]]
    assert contents.extra == ["5eed0001.TIF", "stranger_agbm.tif"]


def test_folder_is_scored_on_the_chips_that_have_a_target(store: ChipStore, folder: Path) -> None:
    assert list_targets(store) == list(CHIP_IDS[:2])
    errors = score_folder(store, list_folder(folder, CHIP_IDS))
    assert errors.chip_ids == list(CHIP_IDS[:2])
    bias = 50 - np.mean([store.read_target(index) for index in (0, 1)])
    assert errors.join().summarise()["bias"] == pytest.approx(bias, rel=1e-5)


def test_other_bands_change_no_score(store: ChipStore, folder: Path) -> None:
    before = score_folder(store, list_folder(folder, CHIP_IDS)).join().summarise()
    for chip_id in CHIP_IDS:
        write_prediction(folder, chip_id, MAP, {}, intervals=PixelIntervals(MAP, MAP, MAP))
    assert score_folder(store, list_folder(folder, CHIP_IDS)).join().summarise() == before


def test_all_files_that_are_no_predictions_are_named_at_once(folder: Path) -> None:
    write_prediction(folder, CHIP_IDS[0], MAP[:16], {})
    write_raster(prediction_path(folder, CHIP_IDS[1]), dtype="uint16")
    prediction_path(folder, CHIP_IDS[2]).write_bytes(b"no TIFF")
    with pytest.raises(ChipDataError) as caught:
        list(read_folder(list_folder(folder, CHIP_IDS), (32, 32)))
    message = str(caught.value)
    assert message.startswith("expected predictions of chips of 32x32 pixels, got 3 other files:")
    assert "5eed0001_agbm.tif (expected a prediction with the height and width (32, 32)" in message
    assert "5eed0002_agbm.tif (expected a prediction with the type float32, got uint16)" in message
    assert "5eed0003_agbm.tif (expected a prediction, got" in message
    assert message.endswith(f"at {folder}; write them again")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"nodata": -9999.0}, r"the nodata value None, got -9999\.0"),
        ({"count": 2}, "the bands 1 or 4, got 2"),
        ({"dtype": "float64"}, "the type float32, got float64"),
    ],
)
def test_other_nodata_bands_and_type_are_named(
    folder: Path, options: dict[str, object], fault: str
) -> None:
    write_raster(prediction_path(folder, CHIP_IDS[0]), **options)
    with pytest.raises(ChipDataError, match=fault):
        list(read_folder(list_folder(folder, CHIP_IDS), (32, 32)))


def test_folder_of_other_files_is_refused_and_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "stranger_agbm.tif").touch()
    with pytest.raises(ChipDataError, match=r"of 3 chips, got stranger_agbm\.tif, at"):
        list_folder(tmp_path, CHIP_IDS)
    with pytest.raises(ChipDataError, match="expected a folder of predictions, got none, at"):
        list_folder(tmp_path / "absent", CHIP_IDS)
