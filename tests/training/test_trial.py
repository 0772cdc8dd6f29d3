from pathlib import Path

import numpy as np
import pytest
from stage_scripts import read_script
from tiny_trainers import make_recipe, make_trainer, no_workers_nor_repository  # noqa: F401
from tiny_training import (
    IDS,
    NO_AUGMENTATION,
    build_tiny_model,
    one_thread,  # noqa: F401
    optimise,
    pack_chips,
)

from biomassters.batches.distributed import ALONE
from biomassters.batches.order import EpochOrder
from biomassters.errors import ModelError
from biomassters.model.weights import save_weights
from biomassters.params.sections import PredictParams
from biomassters.store.chips import ChipStore
from biomassters.training.engine import Recipe


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ChipStore:
    return pack_chips(tmp_path_factory.mktemp("chips"), *IDS)


ONE_CHIP = optimise(batch_size=1)


def test_micro_batch_of_one_small_chip_that_may_lose_months_is_refused(store: ChipStore) -> None:
    with pytest.raises(ModelError, match=r"1 chip of 32 pixels, .*micro_batch_size"):
        make_trainer(store, make_recipe(optimisation=ONE_CHIP))


@pytest.mark.parametrize(
    "recipe",
    [
        make_recipe(optimisation=ONE_CHIP, augmentation=NO_AUGMENTATION),
        make_recipe(optimisation=ONE_CHIP, phase={"epochs": 2, "plain_epochs": 2}),
        make_recipe(),  # two chips
    ],
)
def test_micro_batch_with_several_values_a_channel_is_taken(
    store: ChipStore, recipe: Recipe
) -> None:
    make_trainer(store, recipe)


@pytest.mark.parametrize(
    ("n_chips", "batch_size", "micro_batch_size", "smallest"),
    [(3, 4, 2, 1), (9, 16, 8, 4), (8, 8, 4, 4), (20, 8, 8, 8), (5, 8, 8, 5)],
)
def test_smallest_micro_batch_is_that_of_the_only_step_that_is_not_full(
    n_chips: int, batch_size: int, micro_batch_size: int, smallest: int
) -> None:
    order = EpochOrder(
        range(n_chips), batch_size=batch_size, micro_batch_size=micro_batch_size, seed=0
    )
    assert order.smallest_micro_batch == min(map(len, order)) == smallest


def test_last_smaller_micro_batch_counts(store: ChipStore) -> None:
    recipe = make_recipe(optimisation=optimise(batch_size=4, micro_batch_size=2))
    with pytest.raises(ModelError, match="got one of 1 chip"):
        make_trainer(store, recipe, indices=(0, 1, 2))


@pytest.mark.parametrize(("present", "is_taken"), [(1, False), (2, True), (0, True)])
def test_masked_months_count_as_lost(store: ChipStore, present: int, is_taken: bool) -> None:
    """A chip without any Sentinel-2 image keeps all its months."""
    sparse = ChipStore.open(store.path)
    sparse.s2_present = np.ones_like(store.s2_present)
    sparse.s2_present[2, present:] = False
    recipe = make_recipe(optimisation=ONE_CHIP, augmentation=NO_AUGMENTATION)
    model = build_tiny_model(missing_months="mask")
    if is_taken:
        make_trainer(sparse, recipe, model=model)
        return
    with pytest.raises(ModelError, match="1 month may be left"):
        make_trainer(sparse, recipe, model=model)


def test_training_refuses_a_backbone_of_another_size_before_any_step(store: ChipStore) -> None:
    model = build_tiny_model(backbone="test_coatnet")
    with pytest.raises(ModelError, match=r"got test_coatnet with .* at model\.backbone"):
        make_trainer(store, make_recipe(), model=model)
    assert not list(Path().iterdir())


def test_prediction_refuses_weights_that_do_not_run_at_the_chips_size(
    store: ChipStore, tmp_path: Path
) -> None:
    Path("chips").mkdir()
    Path("chips/test.zarr").symlink_to(store.path)
    path = Path("models/final/final.safetensors")
    save_weights(path, build_tiny_model(backbone="test_coatnet"), {})
    script = read_script("predict")
    predict = PredictParams(
        models="final",
        calibration="calibration.json",  # not looked at before the weights
        tta="none",
        clamp=True,
        batch_size=1,
        engine="torch",
        precision="fp32",
    )
    with pytest.raises(ModelError, match=f"32 pixels .* at {path}; choose"):
        script.predict_chips(script.Params(cleaning="none", predict=predict), ALONE)
    assert not (tmp_path / "predictions").exists()
