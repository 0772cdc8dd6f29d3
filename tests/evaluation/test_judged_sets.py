from pathlib import Path

import numpy as np
import pytest
from example_chips import simulate_record

from biomassters.calibration.calibration import Calibration
from biomassters.errors import ChipDataError
from biomassters.evaluation.intervals import judge_intervals
from biomassters.evaluation.judged_sets import open_held_out, open_predictions
from biomassters.packing.assembly import pack_split
from biomassters.prediction.maps import (
    HEAD_TAG,
    QUANTILES,
    WEIGHTS_TAG,
    PixelIntervals,
    write_prediction,
)
from biomassters.sources.synthetic_source import SyntheticSource
from biomassters.store.chips import ChipStore

N_CHIPS = 7
"""At a level of 0.8 four chips make a calibration, so that each of seven is judged by others."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ChipStore:
    folder = tmp_path_factory.mktemp("store")
    chips = [simulate_record(f"5eed000{number}") for number in range(N_CHIPS)]
    pack_split(chips, SyntheticSource(32), folder / "a.zarr", folder / "scratch", chip_size=32)
    return ChipStore.open(folder / "a.zarr")


def write_fold(store: ChipStore, folder: Path, n_chips: int = N_CHIPS) -> None:
    random = np.random.default_rng(0)
    for index in range(n_chips):
        target = store.read_target(index)
        prediction = np.maximum(target + random.normal(0, 10, target.shape), 0)
        tags = {WEIGHTS_TAG: "0123456789abcdef"}
        write_prediction(folder, store.chip_ids[index], prediction.astype(np.float32), tags)


def test_held_out_chip_is_judged_by_other_chips_alone(
    store: ChipStore, calibration: Calibration, tmp_path: Path
) -> None:
    write_fold(store, tmp_path / "fold-2")
    [judged] = open_held_out(store, tmp_path, [2], calibration).values()
    chips = list(judged.read_chips())
    assert all(chip.calibration.chips < N_CHIPS for chip in chips)
    # One error of 500 t/ha: no other chip tells of it, and its own calibration does not know it.
    spoiled = store.chip_ids[0]
    write_prediction(
        tmp_path / "fold-2", spoiled, store.read_target(0) + 500, {WEIGHTS_TAG: "0123456789abcdef"}
    )
    [judged] = open_held_out(store, tmp_path, [2], calibration).values()
    before, after = chips[0].calibration, next(judged.read_chips()).calibration
    assert after.pixel == before.pixel
    figures = judge_intervals(judged)
    assert figures is not None
    assert figures["level"] == calibration.level
    assert figures["pixel"]["coverage"] < 1


def test_held_out_chip_of_a_model_of_quantiles_is_judged_by_its_own_bounds(
    store: ChipStore, calibration: Calibration, tmp_path: Path
) -> None:
    tags = {WEIGHTS_TAG: "0123456789abcdef", HEAD_TAG: QUANTILES}
    for index in range(N_CHIPS):  # off by 10 t/ha, where the model allows for 4 below and 7 above
        target = store.read_target(index)
        bounds = PixelIntervals(target * np.nan, target + 6, target + 17)
        chip_id = store.chip_ids[index]
        write_prediction(tmp_path / "fold-2", chip_id, target + 10, tags, intervals=bounds)
    [judged] = open_held_out(store, tmp_path, [2], calibration).values()
    chip = next(judged.read_chips())
    assert chip.calibration.bounds is not None
    assert chip.calibration.bounds.shift == pytest.approx(
        [6.0] * len(chip.calibration.bounds.shift)
    )
    np.testing.assert_allclose(chip.intervals.lower, chip.target, atol=1e-3)
    np.testing.assert_allclose(chip.intervals.upper, chip.target + 23, atol=1e-3)


def test_too_few_held_out_chips_are_not_judged_and_said(
    store: ChipStore, calibration: Calibration, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_fold(store, tmp_path / "fold-0", n_chips=1)
    assert open_held_out(store, tmp_path, [0], calibration) == {}
    assert "the folds' intervals are not judged: expected at least 4 held-out chips" in caplog.text


def test_fold_that_is_missing_is_named(
    store: ChipStore, calibration: Calibration, tmp_path: Path
) -> None:
    write_fold(store, tmp_path / "fold-0")
    with pytest.raises(ChipDataError, match=r"held-out chips, got none, at .*fold-1; run"):
        open_held_out(store, tmp_path, [0, 1], calibration)


def test_predictions_carry_the_intervals_that_are_judged(
    store: ChipStore, calibration: Calibration, tmp_path: Path
) -> None:
    for index, chip_id in enumerate(store.chip_ids):
        target = store.read_target(index)
        write_prediction(tmp_path, chip_id, target, {}, intervals=calibration.intervals(target))
    judged = open_predictions(store, tmp_path, calibration)
    assert judged is not None
    figures = judge_intervals(judged)
    assert figures is not None
    assert figures["pixel"]["coverage"] == 1
    write_prediction(tmp_path, store.chip_ids[3], store.read_target(3), {})
    with pytest.raises(ChipDataError, match=r"got AGBM alone, at .*5eed0003_agbm\.tif; run"):
        judge_intervals(judged)


def test_without_a_calibration_there_is_nothing_to_judge(store: ChipStore, tmp_path: Path) -> None:
    assert open_predictions(store, tmp_path, None) is None
    assert open_held_out(store, tmp_path, [0], None) == {}
