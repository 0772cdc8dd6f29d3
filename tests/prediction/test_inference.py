from pathlib import Path
from typing import Any, cast
from zlib import crc32

import numpy as np
import pytest
import torch
from example_models import Pixelwise, Ramp
from tiny_training import (  # noqa: F401
    BOTH,
    IDS,
    PLAIN,
    build_tiny_model,
    evaluated_model,
    no_workers,
    one_thread,
    pack_chips,
    three_chips,
)
from together import run_together
from torch import Tensor

from biomassters.batches import symmetries
from biomassters.batches.distributed import join_processes
from biomassters.batches.order import StoreOrder
from biomassters.batches.reading import Batch, open_batches
from biomassters.errors import ModelError
from biomassters.model.biomass_model import BiomassModel
from biomassters.prediction.alone import predict_chips_alone
from biomassters.prediction.ensemble import try_ensemble
from biomassters.prediction.inference import predict_batches, predict_view_sets, predict_views
from biomassters.store.chips import ChipStore


def predict(models: list[Any], batch: Batch, tta: Any) -> Tensor:
    return predict_views(cast(list[BiomassModel], models), batch, symmetries.views(tta), "fp32")


def make_batch(s1: float = 1.0, size: int = 4) -> Batch:
    """One chip of `s1` dB everywhere."""
    return Batch(
        torch.zeros(1, dtype=torch.int64),
        torch.full((1, 12, 4, size, size), round(s1 * 100), dtype=torch.int16),
        torch.zeros(1, 12, 11, size, size, dtype=torch.uint16),
        torch.ones(1, 12, dtype=torch.bool),
        torch.full((1, size, size), torch.nan),
    )


@pytest.mark.parametrize("tta", ["none", "flips", "dihedral"])
def test_prediction_is_the_average_of_the_undone_views(
    store: ChipStore, model: BiomassModel, tta: Any
) -> None:
    [batch] = open_batches(store, StoreOrder([0, 1], 2))
    images = model.normalise(batch.s1, batch.s2, batch.s2_present)
    undone = []
    with torch.no_grad():
        for view in symmetries.views(tta):
            undone.append(symmetries.undo(model(symmetries.apply(images, view)), view))
    expected = torch.stack(undone).mean(0)
    torch.testing.assert_close(predict([model], batch, tta), expected, rtol=1e-5, atol=1e-3)
    assert len(undone) == 1 or not torch.allclose(undone[0], undone[1], atol=0.01)


@pytest.mark.parametrize("tta", ["flips", "dihedral"])
def test_views_change_nothing_for_a_model_that_is_the_same_in_all(
    store: ChipStore, tta: Any
) -> None:
    [batch] = open_batches(store, StoreOrder([0, 1], 2))
    plain = predict([Pixelwise(2.0)], batch, "none")
    assert plain.std() > 0.1
    torch.testing.assert_close(predict([Pixelwise(2.0)], batch, tta), plain)


def test_models_are_averaged_plainly() -> None:
    prediction = predict([Pixelwise(1.0), Pixelwise(2.0), Pixelwise(6.0)], make_batch(2.0), "none")
    assert torch.equal(prediction, torch.full((1, 4, 4), 6.0))


def test_flips_include_the_chip_as_it_is() -> None:
    """Columns 0 1 2 3 and, mirrored, 3 2 1 0: two views see each."""
    assert predict([Ramp(1.0)], make_batch(), "none")[0, 0].tolist() == [0, 1, 2, 3]
    assert predict([Ramp(1.0)], make_batch(), "flips")[0, 0].tolist() == [1.5] * 4


def test_models_and_views_are_averaged_together() -> None:
    assert predict([Ramp(1.0), Ramp(3.0)], make_batch(), "none")[0, 0].tolist() == [0, 2, 4, 6]
    assert predict([Ramp(1.0), Ramp(3.0)], make_batch(), "flips")[0, 0].tolist() == [3.0] * 4


@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize(("order", "batch_size"), [([2, 0, 1], 2), ([0, 1, 2], 3), ([1, 0, 2], 2)])
def test_prediction_depends_neither_on_the_batch_nor_on_the_threads(
    store: ChipStore, model: BiomassModel, order: list[int], batch_size: int, n_threads: int
) -> None:
    one_by_one = open_batches(store, StoreOrder([0, 1, 2], 1))
    expected = [
        chip.prediction for chip in predict_batches([model], one_by_one, (0, 5), precision="fp32")
    ]
    torch.set_num_threads(n_threads)
    batches = open_batches(store, StoreOrder(order, batch_size))
    found = list(predict_batches([model], batches, (0, 5), precision="fp32"))
    assert torch.get_num_threads() == n_threads
    torch.set_num_threads(1)
    assert [chip.chip_index for chip in found] == order
    for index, prediction, target, _ in found:
        np.testing.assert_array_equal(prediction, expected[index])
        np.testing.assert_array_equal(target, store.read_target(index))


def test_model_of_quantiles_gives_its_median_and_its_bounds(store: ChipStore) -> None:
    model = build_tiny_model(head="quantiles").eval()
    batches = open_batches(store, StoreOrder([2, 0, 1], 2))
    [batch, _] = batches
    lower, median, upper = predict([model], batch, "flips").numpy().swapaxes(0, 1)
    first, second, _ = predict_batches([model], batches, symmetries.FLIPS, precision="fp32")
    for row, chip in enumerate((first, second)):
        np.testing.assert_array_equal(chip.prediction, median[row])
        np.testing.assert_array_equal(chip.bounds, np.stack([lower[row], upper[row]]))
        assert (lower[row] < median[row]).all()
        assert (median[row] < upper[row]).all()


def test_model_of_one_number_gives_no_bounds(store: ChipStore, model: BiomassModel) -> None:
    batches = open_batches(store, StoreOrder([0], 1))
    [chip] = predict_batches([model], batches, (0,), precision="fp32")
    assert chip.bounds is None


def test_models_of_different_heads_are_not_averaged() -> None:
    models = {
        Path("a.safetensors"): build_tiny_model(),
        Path("b.safetensors"): build_tiny_model(head="quantiles"),
    }
    with pytest.raises(
        ModelError, match=r"got model\.head mean at a\.safe.* of 0\.05, 0\.5, 0\.95 at b"
    ):
        try_ensemble(models, 32, precision="fp32")
    try_ensemble(dict.fromkeys(models, build_tiny_model()), 32, precision="fp32")


def test_error_of_one_chip_is_the_error_of_the_batch() -> None:
    def refuse(images: Tensor, _: Tensor | None) -> Tensor:
        raise ModelError(f"no chips of {images.shape[-1]} pixels")

    torch.set_num_threads(2)
    with pytest.raises(ModelError, match="no chips of 8 pixels"):
        predict_chips_alone(refuse, torch.zeros(3, 12, 15, 8, 8), None, "fp32")
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_model_in_training_mode_is_put_into_evaluation_mode(store: ChipStore) -> None:
    model = build_tiny_model().train()
    list(predict_batches([model], open_batches(store, StoreOrder([0], 1)), (0,), precision="fp32"))
    assert not model.training


def test_bf16_is_near_fp32_and_given_as_float32(store: ChipStore, model: BiomassModel) -> None:
    [batch] = open_batches(store, StoreOrder([0], 1))
    exact = predict_views([model], batch, (0,), "fp32")
    rounded = predict_views([model], batch, (0,), "bf16")
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 3


class Counting(Ramp):
    """Counts the views that it predicts, and notes which months it is told to ignore."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.ignored: list[Tensor] = []

    def ignore_months(self, s2_present: Tensor) -> Tensor:  # type: ignore[override]
        """Ignore absent months."""
        return ~s2_present

    def forward(self, images: Tensor, ignored: Tensor | None) -> Tensor:
        """Return (B, H, W)."""
        assert ignored is not None
        self.ignored.append(ignored)
        return super().forward(images, ignored)


def test_view_of_several_sets_is_predicted_once() -> None:
    model = Counting()
    found = predict_view_sets([cast(BiomassModel, model)], make_batch(), BOTH, "fp32")
    assert len(model.ignored) == 4
    assert {name: map_[0, 0].tolist() for name, map_ in found.items()} == {
        "none": [0, 1, 2, 3],
        "flips": [1.5] * 4,
    }


def test_model_is_told_the_months_that_it_says_it_ignores() -> None:
    batch = make_batch()
    batch.s2_present[0, 3:5] = False
    model = Counting()
    predict_views([cast(BiomassModel, model)], batch, (0, 4), "fp32")
    assert all(torch.equal(ignored, ~batch.s2_present) for ignored in model.ignored)


def predict_all(path: str) -> list[Any]:
    """Return chips and checksums of predictions; of one process or of several."""
    torch.set_num_threads(1)
    store, model = ChipStore.open(Path(path)), build_tiny_model()
    with join_processes() as processes:
        order = StoreOrder([2, 0, 1], 1, rank=processes.rank, size=processes.size)
        batches = open_batches(store, order)
        predicted = predict_batches([model], batches, (0, 4), precision="fp32", processes=processes)
        return [[index, crc32(map_), crc32(target)] for index, map_, target, _ in predicted]


def test_first_of_two_processes_predicts_all_in_order(store: ChipStore) -> None:
    alone = predict_all(str(store.path))
    first, second = run_together(__name__, "predict_all", str(store.path))
    assert [index for index, _, _ in alone] == [2, 0, 1]
    assert first == alone
    assert second == []
