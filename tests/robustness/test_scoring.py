from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import (  # noqa: F401
    IDS,
    build_tiny_model,
    no_workers,
    one_thread,
    pack_chips,
    three_chips,
)

from biomassters.batches.order import StoreOrder
from biomassters.batches.reading import open_batches
from biomassters.batches.symmetries import views
from biomassters.errors import ModelError
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.execution import place_model
from biomassters.model.weights import save_weights
from biomassters.params.reading import read_document
from biomassters.params.sections import PredictParams, RobustnessParams, SplitParams
from biomassters.prediction.inference import predict_batches
from biomassters.prediction.metrics import ErrorSums
from biomassters.robustness.scoring import (
    draw_chips,
    find_held_out_chips,
    find_test_chips,
    score_conditions,
)
from biomassters.store.chips import ChipStore
from biomassters.training.folds import split_chips
from repository_copy import ROOT

CONDITIONS = RobustnessParams(
    chips=9, months_removed=(12,), conditions=("no_s1", "no_s2", "no_clp"), tta="flips", seed=0
)
PREDICT = PredictParams.model_validate(
    {**read_document(ROOT / "params.yaml")["predict"], "batch_size": 2, "engine": "torch"}
)
SPLIT = SplitParams(method="random", n_folds=3, seed=0)


def build_model(*blind: int, seed: int = 0) -> BiomassModel:
    """Build a model that sees 0 in some bands, whatever a chip has there."""
    model = build_tiny_model(seed).eval()
    model.normalisation.scale[list(blind)] = 0
    return model


@pytest.fixture(name="models")
def models_folder(tmp_path: Path) -> Path:
    """Return a new folder for models."""
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def score(store: ChipStore, models: Path, params: RobustnessParams = CONDITIONS) -> dict:
    chips = find_test_chips(store, models)
    assert chips is not None
    results = score_conditions(chips, params, PREDICT, cleaning="none")
    return {condition.name: sums.chip_rmses.tolist() for condition, sums in results.errors.items()}


def test_model_that_never_looks_at_s1_does_as_well_without(store: ChipStore, models: Path) -> None:
    save_weights(models / "blind.safetensors", build_model(0, 1, 2, 3), {"cleaning": "none"})
    rmses = score(store, models)
    assert rmses["no_s1"] == rmses["plain"]
    assert rmses["no_s2"] != rmses["plain"]
    assert rmses["no_clp"] != rmses["plain"]


def test_model_that_looks_at_s1_alone_does_as_well_without_s2(
    store: ChipStore, models: Path
) -> None:
    save_weights(models / "s1.safetensors", build_model(*range(4, 15)), {"cleaning": "none"})
    rmses = score(store, models)
    assert rmses["no_s2"] == rmses["no_clp"] == rmses["months_12"] == rmses["plain"]
    assert rmses["no_s1"] != rmses["plain"]


def test_without_twelve_months_is_without_s2(store: ChipStore, models: Path) -> None:
    save_weights(models / "final.safetensors", build_model(), {"cleaning": "none"})
    rmses = score(store, models)
    assert rmses["months_12"] == rmses["no_s2"] != rmses["plain"]


def test_plain_errors_are_those_of_what_predict_writes(store: ChipStore, models: Path) -> None:
    both = [place_model(build_model(seed=seed), torch.device("cpu")) for seed in (0, 1)]
    for seed, model in enumerate(both):
        save_weights(models / f"{seed}.safetensors", model, {"cleaning": "none"})
    expected = ErrorSums()
    batches = open_batches(store, StoreOrder(range(3), 2))
    for index, agbm, target, _ in predict_batches(both, batches, views("flips"), precision="fp32"):
        expected.add(store.chip_ids[index], np.maximum(agbm, 0), target)
    assert score(store, models)["plain"] == expected.chip_rmses.tolist()


def test_model_of_other_chips_is_refused(store: ChipStore, models: Path) -> None:
    save_weights(models / "final.safetensors", build_model(), {"cleaning": "third"})
    with pytest.raises(ModelError, match="trained with cleaning: third"):
        score(store, models)


def test_test_chips_need_targets_and_models(store: ChipStore, models: Path, tmp_path: Path) -> None:
    assert find_test_chips(pack_chips(tmp_path, IDS[0], target=False), models) is None
    with pytest.raises(ModelError, match=r"expected models at .*models, got none; run `dvc repro"):
        find_test_chips(store, models)


def test_fold_predicts_the_chips_that_it_held_out(store: ChipStore, models: Path) -> None:
    held_out = []
    for fold in range(3):
        weights = models / f"fold-{fold}.safetensors"
        found = find_held_out_chips(store, SPLIT, fold, weights)
        assert found is not None
        assert (found.name, found.weights) == (f"fold-{fold}", [weights])
        assert found.chips == split_chips(store, SPLIT, fold)[1]
        held_out += found.chips
    assert sorted(held_out) == [0, 1, 2]


def test_no_train_chips_or_no_targets_of_them_hold_out_none(tmp_path: Path) -> None:
    assert find_held_out_chips(pack_chips(tmp_path / "none"), SPLIT, 0, tmp_path) is None
    store = pack_chips(tmp_path, *IDS[:3], target=False)
    assert find_held_out_chips(store, SPLIT, 0, tmp_path) is None


def test_of_many_chips_as_many_are_drawn_as_may_be_in_the_order_of_the_store(
    store: ChipStore, models: Path
) -> None:
    few = draw_chips(range(40, 90), 30, seed=0)
    assert len(set(few)) == 30
    assert few == sorted(few) == draw_chips(range(40, 90), 30, seed=0)
    assert few != draw_chips(range(40, 90), 30, seed=1)
    assert draw_chips(range(40, 90), 1000, seed=0) == list(range(40, 90))
    save_weights(models / "final.safetensors", build_model(), {"cleaning": "none"})
    assert len(score(store, models, CONDITIONS.model_copy(update={"chips": 2}))["plain"]) == 2
