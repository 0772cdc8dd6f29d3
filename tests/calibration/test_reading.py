from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import rasterio
from stage_scripts import read_script
from tiny_training import IDS, pack_chips

from biomassters.calibration.calibration import Calibration, read_calibration
from biomassters.calibration.reading import read_held_out
from biomassters.errors import ChipDataError
from biomassters.params.sections import CalibrationParams
from biomassters.prediction.maps import PixelIntervals, prediction_path, write_prediction
from biomassters.store.chips import ChipStore
from biomassters.store.georeference import allow_nowhere


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ChipStore:
    return pack_chips(tmp_path_factory.mktemp("chips"), *IDS)


def write(store: ChipStore, folder: Path, chip: int, weights: str = "ab", shift: float = 2) -> None:
    target = store.read_target(chip)
    write_prediction(folder, store.chip_ids[chip], target + shift, {"WEIGHTS": weights})


def write_raster(path: Path, shape: tuple[int, int] = (32, 32), **profile: Any) -> None:
    """Write a GeoTIFF as another program would."""
    defaults = {"driver": "GTiff", "count": 1, "dtype": "float32"}
    defaults |= {"height": shape[0], "width": shape[1]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with allow_nowhere(), rasterio.open(path, "w", **{**defaults, **profile}) as raster:
        raster.write(np.zeros((raster.count, *shape), raster.dtypes[0]))


def test_chips_of_the_listed_folds_are_read_with_their_errors(
    store: ChipStore, tmp_path: Path
) -> None:
    for fold, chips in enumerate([(0, 3), (1,), (2,)]):
        for chip in chips:
            write(store, tmp_path / f"fold-{fold}", chip, weights=f"weights-{fold}")
    chips, models = read_held_out(store, tmp_path, [1, 0])
    assert [chip.chip_id for chip in chips] == sorted(store.chip_ids[chip] for chip in (0, 1, 3))
    assert models == {"fold-0": "weights-0", "fold-1": "weights-1"}
    for chip in chips:
        np.testing.assert_allclose(chip.error, -2, atol=1e-4)


def test_missing_fold_is_named(store: ChipStore, tmp_path: Path) -> None:
    write(store, tmp_path / "fold-0", 0)
    (tmp_path / "fold-1").mkdir()
    for fold in (1, 2):
        with pytest.raises(ChipDataError, match=rf"got none, at .*fold-{fold}; run `dvc repro`"):
            read_held_out(store, tmp_path, [0, fold])


def test_quantiles_of_some_chips_alone_are_refused(store: ChipStore, tmp_path: Path) -> None:
    write(store, tmp_path / "fold-0", 0)
    target = store.read_target(1)
    tags = {"WEIGHTS": "cd", "HEAD": "quantiles"}
    intervals = PixelIntervals(target * np.nan, target - 5, target + 9)
    write_prediction(tmp_path / "fold-1", store.chip_ids[1], target, tags, intervals=intervals)
    [chip], _ = read_held_out(store, tmp_path, [1])
    np.testing.assert_allclose(chip.bounds[1] - target, 9, atol=1e-4)
    with pytest.raises(ChipDataError, match=r"models of one head, got quantiles .* some alone"):
        read_held_out(store, tmp_path, [0, 1])


def test_predictions_of_two_models_or_of_an_unnamed_one_are_refused(
    store: ChipStore, tmp_path: Path
) -> None:
    write(store, tmp_path / "fold-0", 0, weights="ab")
    write(store, tmp_path / "fold-0", 1, weights="cd")
    with pytest.raises(ChipDataError, match="one model, got those of the weights ab, cd, at"):
        read_held_out(store, tmp_path, [0])
    write_prediction(tmp_path / "fold-1", store.chip_ids[2], store.read_target(2), {})
    with pytest.raises(ChipDataError, match="of the weights unnamed, at"):
        read_held_out(store, tmp_path, [1])


def test_prediction_of_a_chip_that_is_not_in_the_store_is_named(
    store: ChipStore, tmp_path: Path
) -> None:
    write(store, tmp_path / "fold-0", 0)
    write_raster(tmp_path / "fold-0/stranger_agbm.tif")
    with pytest.raises(ChipDataError, match=r"train chips, got stranger_agbm\.tif, at"):
        read_held_out(store, tmp_path, [0])


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ({"shape": (32, 16)}, r"height and width \(32, 32\), got \(32, 16\)"),
        ({"dtype": "uint16"}, "type float32, got uint16"),
        ({"nodata": -9999.0}, r"nodata value None, got -9999\.0"),
        ({"count": 2}, "bands 1 or 4, got 2"),
    ],
)
def test_prediction_of_another_kind_is_refused(
    store: ChipStore, tmp_path: Path, profile: dict[str, Any], said: str
) -> None:
    path = prediction_path(tmp_path / "fold-0", store.chip_ids[1])
    write_raster(path, **profile)
    with pytest.raises(ChipDataError, match=f"expected a prediction with the {said}, at {path}"):
        read_held_out(store, tmp_path, [0])


def run_stage(method: Literal["conformal", "none"], level: float) -> Calibration | None:
    script = read_script("calibrate")
    calibration = CalibrationParams(method=method, level=level)
    script.calibrate_models(script.Params(folds=(0,), calibration=calibration))
    return read_calibration(Path("calibration.json"))


def test_stage_calibrates_the_listed_folds_or_says_why_not(
    store: ChipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("chips").mkdir()
    Path("chips/train.zarr").symlink_to(store.path)
    assert run_stage("none", 0.5) is None
    assert "calibration.method is none" in Path("calibration.json").read_text()
    for chip in range(4):
        write(store, Path("validation/fold-0"), chip, shift=chip)
    calibration = run_stage("conformal", 0.5)
    assert calibration is not None
    assert (calibration.chips, calibration.models) == (4, {"fold-0": "ab"})
    before = Path("calibration.json").read_bytes()
    with pytest.raises(ChipDataError, match=r"at least 9 held-out chips .* level 0\.9, got 4"):
        run_stage("conformal", 0.9)
    assert Path("calibration.json").read_bytes() == before


def test_chip_without_any_target_does_not_count(
    store: ChipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for chip in range(3):
        write(store, tmp_path / "fold-0", chip)
    targets = {0: np.full((32, 32), np.nan, np.float32)}
    read = store.read_target
    monkeypatch.setattr(store, "read_target", lambda index: targets.get(index, read(index)))
    chips, _ = read_held_out(store, tmp_path, [0])
    assert [chip.chip_id for chip in chips] == sorted(store.chip_ids[1:3])
