from pathlib import Path

import pytest
import torch
from tiny_training import AUGMENTATION, IDS, build_tiny_model, pack_chips, run_phase

from biomassters.batches.order import StoreOrder
from biomassters.batches.reading import Batches, open_batches
from biomassters.params.sections import AugmentationParams
from biomassters.store.chips import ChipStore
from biomassters.training.optimisation import Schedule
from biomassters.training.preparation import Preparation, Prepared, PreparedChips

EVERYTHING = AUGMENTATION.model_copy(
    update={"symmetries": True, "rotation_p": 0.5, "month_dropout_p": 0.5}
)
INDICES = [3, 0, 1, 2, 1, 0]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ChipStore:
    packed = pack_chips(tmp_path_factory.mktemp("chips"), *IDS[:4])
    assert not packed.s2_present.all()
    return packed


def make_preparation(
    store: ChipStore,
    missing_months: str = "zero",
    augmentation: AugmentationParams = EVERYTHING,
    **phase: int,
) -> Preparation:
    model = build_tiny_model(missing_months=missing_months)
    schedule = Schedule(lr=1e-3, phase=run_phase(**phase))
    preparation = Preparation(model, store, schedule, augmentation, seed=5)
    preparation.epoch = 1
    return preparation


def prepare_chip_by_chip(preparation: Preparation, n_threads: int) -> list[Prepared]:
    order = StoreOrder(INDICES, 3)
    return list(Batches(PreparedChips(preparation), order, n_threads))


def prepare_at_once(preparation: Preparation) -> list[Prepared]:
    batches = open_batches(preparation.store, StoreOrder(INDICES, 3))
    return [preparation.prepare(batch) for batch in batches]


@pytest.mark.parametrize("missing_months", ["zero", "nearest", "mask"])
@pytest.mark.parametrize("plain_epochs", [0, 2])
def test_chips_prepared_one_by_one_are_those_of_a_whole_batch(
    store: ChipStore, missing_months: str, plain_epochs: int
) -> None:
    preparation = make_preparation(store, missing_months, epochs=2, plain_epochs=plain_epochs)
    batches = zip(prepare_chip_by_chip(preparation, 0), prepare_at_once(preparation), strict=True)
    for got, expected in batches:
        assert got.chip_index.tolist() == expected.chip_index.tolist()
        assert (got.changes is None) is (plain_epochs == 2)
        positions = got.kept.positions, expected.kept.positions
        assert all(p is None for p in positions) or torch.equal(*positions)
        # Of pixels that are interpolated, the last digit may depend on the CPU's instructions.
        torch.testing.assert_close(got.images, expected.images, rtol=0, atol=1e-6)
        torch.testing.assert_close(got.target, expected.target, equal_nan=True, rtol=1e-6, atol=0)


def test_what_is_not_interpolated_is_the_same_to_the_byte(store: ChipStore) -> None:
    turned = EVERYTHING.model_copy(update={"rotation_p": 0.0})
    preparation = make_preparation(store, augmentation=turned)
    batches = zip(prepare_chip_by_chip(preparation, 0), prepare_at_once(preparation), strict=True)
    for got, expected in batches:
        assert torch.equal(got.images, expected.images)
        assert torch.equal(got.target, expected.target)


def test_threads_change_no_byte(store: ChipStore) -> None:
    preparation = make_preparation(store)
    alone, others = (prepare_chip_by_chip(preparation, n) for n in (0, 3))
    for one, other in zip(alone, others, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.target, other.target)


def test_months_that_are_not_encoded_have_no_images(store: ChipStore) -> None:
    for batch in prepare_chip_by_chip(make_preparation(store, "mask"), 0):
        assert batch.kept.positions is not None
        assert len(batch.images) == len(batch.kept.positions) < 36
        assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_chip_without_a_target_has_nan(tmp_path: Path) -> None:
    without = pack_chips(tmp_path, *IDS[:4], target=False)
    [first, _] = prepare_chip_by_chip(make_preparation(without), 0)
    assert first.target.isnan().all()


def test_reading_threads_compute_without_helpers(store: ChipStore) -> None:
    seen = []

    class Noting(PreparedChips):
        def read_chip(self, index: int, batch: Prepared, row: int) -> None:
            super().read_chip(index, batch, row)
            seen.append(torch.get_num_threads())

    before = torch.get_num_threads()
    list(Batches(Noting(make_preparation(store)), StoreOrder(INDICES, 3), 2))
    assert seen == [1] * len(INDICES)
    assert torch.get_num_threads() == before
