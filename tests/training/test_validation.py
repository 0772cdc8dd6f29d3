from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from example_models import Ramp
from tiny_training import (  # noqa: F401
    BOTH,
    IDS,
    PLAIN,
    build_tiny_model,
    evaluated_model,
    no_workers,
    one_thread,
    optimise,
    pack_chips,
    three_chips,
)
from together import run_together

from biomassters.batches import symmetries
from biomassters.batches.distributed import join_processes
from biomassters.batches.order import StoreOrder
from biomassters.batches.reading import open_batches
from biomassters.errors import StoreError
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.weights import identify_weights
from biomassters.prediction.inference import predict_batches
from biomassters.prediction.maps import read_prediction
from biomassters.prediction.metrics import ErrorSums
from biomassters.store.chips import ChipStore
from biomassters.training.validation import CHOOSING_SCORE, HeldOut, score_chips


def test_scores_are_those_computed_by_hand(store: ChipStore) -> None:
    model = cast(BiomassModel, Ramp(2.0))
    batches = open_batches(store, StoreOrder([0, 2], 1))
    scores = score_chips(model, batches, store.chip_ids, PLAIN, precision="fp32")["none"]
    errors = [np.arange(32) * 2.0 - store.read_target(index).astype(float) for index in (0, 2)]
    rmses = [np.sqrt((error**2).mean()) for error in errors]
    assert scores["chip_rmse"] == pytest.approx(np.mean(rmses))
    assert scores["pooled_rmse"] == pytest.approx(np.sqrt(np.mean(np.square(errors))))
    assert scores["bias"] == pytest.approx(np.mean(errors))
    assert scores["pooled_rmse"] > scores["chip_rmse"]


def test_scoring_chips_without_targets_is_refused(tmp_path: Path) -> None:
    store = pack_chips(tmp_path, IDS[0], target=False)
    batches = open_batches(store, StoreOrder([0], 1))
    with pytest.raises(StoreError, match="expected targets of the chips that a model is scored on"):
        score_chips(cast(BiomassModel, Ramp(1.0)), batches, store.chip_ids, PLAIN, precision="fp32")


def test_scores_of_one_pass_are_those_of_a_pass_for_each_set(
    store: ChipStore, model: BiomassModel
) -> None:
    batches = open_batches(store, StoreOrder([0, 2], 1))
    together = score_chips(model, batches, store.chip_ids, BOTH, precision="fp32")
    for name, views in BOTH.items():
        alone = score_chips(model, batches, store.chip_ids, {name: views}, precision="fp32")
        assert together[name] == alone[name]
    assert together["none"] != together["flips"]


def test_model_of_quantiles_is_scored_by_its_median(store: ChipStore) -> None:
    model = build_tiny_model(head="quantiles").eval()
    batches = open_batches(store, StoreOrder([0, 2], 2))
    scores = score_chips(model, batches, store.chip_ids, BOTH, precision="fp32")["flips"]
    sums = ErrorSums()
    for chip in predict_batches([model], batches, symmetries.FLIPS, precision="fp32"):
        sums.add(store.chip_ids[chip.chip_index], chip.prediction, chip.target)
    assert scores == sums.summarise()


def score_all(path: str) -> dict[str, dict[str, Any]]:
    """Return scores; of one process or of several."""
    torch.set_num_threads(1)
    store, model = ChipStore.open(Path(path)), build_tiny_model()
    with join_processes() as processes:
        order = StoreOrder([2, 0, 1], 1, rank=processes.rank, size=processes.size)
        batches = open_batches(store, order)
        return score_chips(
            model, batches, store.chip_ids, BOTH, precision="fp32", processes=processes
        )


def test_two_processes_have_the_scores_of_one(store: ChipStore) -> None:
    alone = score_all(str(store.path))
    assert run_together(__name__, "score_all", str(store.path)) == [alone, alone]


def test_held_out_chips_are_scored_and_predicted_with_their_views(
    store: ChipStore, tmp_path: Path
) -> None:
    """Columns 0 ... 31, and the mean of them and of their mirror image: 15.5 everywhere."""
    model = cast(BiomassModel, Ramp(1.0))
    held_out = HeldOut(store, [2, 0], optimise(micro_batch_size=2), symmetries.views("flips"))
    scores = held_out.score(model)
    targets = [store.read_target(index).astype(float) for index in (2, 0)]
    plain, tta = (
        np.mean([np.sqrt(((guess - target) ** 2).mean()) for target in targets])
        for guess in (np.arange(32), 15.5)
    )
    assert scores[CHOOSING_SCORE] == pytest.approx(plain)
    assert scores["validation/chip_rmse_tta"] == pytest.approx(tta)
    held_out.write_predictions(model, tmp_path, {"FOLD": "3"})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{store.chip_ids[index]}_agbm.tif" for index in (0, 2)
    ]
    prediction, tags, _ = read_prediction(tmp_path, store.chip_ids[2])
    assert (prediction == 15.5).all()
    assert tags["FOLD"] == "3"
    assert tags["WEIGHTS"] == identify_weights(model)


def test_held_out_chips_of_a_model_of_quantiles_have_its_bounds(
    store: ChipStore, tmp_path: Path
) -> None:
    model = build_tiny_model(head="quantiles").eval()
    held_out = HeldOut(store, [2, 0], optimise(micro_batch_size=2), (0,))
    held_out.write_predictions(model, tmp_path, {"FOLD": "3"})
    [chip, _] = predict_batches([model], held_out.batches, (0,), precision="fp32")
    file = read_prediction(tmp_path, store.chip_ids[2])
    np.testing.assert_array_equal(file.agbm, chip.prediction)
    np.testing.assert_array_equal(file.quantiles, chip.bounds)
    assert file.tags["HEAD"] == "quantiles"
    assert np.isnan(file.intervals.deviation).all()
