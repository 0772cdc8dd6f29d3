from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import IDS, pack_chips

from biomassters.batches import Batch, EpochOrder, StoreOrder, open_batches
from biomassters.chips import ChipStore
from biomassters.errors import ParamsError, StoreError


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ChipStore:
    return pack_chips(tmp_path_factory.mktemp("chips"), *IDS[:3])


def order_of(indices: range, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    order = EpochOrder(indices, batch_size, seed)
    order.epoch = epoch
    return list(order)


def read_all(
    store: ChipStore, workers: int, monkeypatch: pytest.MonkeyPatch, n_epochs: int = 1
) -> list[Batch]:
    monkeypatch.setenv("BIOMASSTERS_WORKERS", str(workers))
    order = EpochOrder(range(len(store)), 2, 0)
    batches = open_batches(store, order)
    found = []
    for order.epoch in range(n_epochs):
        found += list(batches)
    return found


def test_order_depends_on_seed_and_epoch_alone() -> None:
    visited = EpochOrder(range(20), 4, 7)
    for visited.epoch in range(5):
        list(visited)
    visited.epoch = 2
    assert list(visited) == order_of(range(20), 4, 7, 2)


def test_epochs_and_seeds_differ() -> None:
    orders = [order_of(range(20), 4, seed, epoch) for seed in range(3) for epoch in range(3)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


@pytest.mark.parametrize(
    ("n_chips", "batch_size", "n_batches"),
    [(20, 4, 5), (19, 4, 4), (5, 4, 1), (3, 8, 1), (1, 8, 1)],
)
def test_epoch_has_full_batches_of_different_chips(
    n_chips: int, batch_size: int, n_batches: int
) -> None:
    order = EpochOrder(range(100, 100 + n_chips), batch_size, 1)
    batches = list(order)
    chips = [index for batch in batches for index in batch]
    assert len(batches) == len(order) == n_batches
    assert {len(batch) for batch in batches} == {min(batch_size, n_chips)}
    assert len(set(chips)) == len(chips)
    assert set(chips) <= set(range(100, 100 + n_chips))


def test_no_chip_is_left_out_of_every_epoch() -> None:
    seen = {i for epoch in range(10) for batch in order_of(range(7), 4, 0, epoch) for i in batch}
    assert seen == set(range(7))


def test_store_order_gives_each_chip_once_as_given() -> None:
    order = StoreOrder([5, 3, 9, 1, 7], 2)
    assert list(order) == [[5, 3], [9, 1], [7]]
    assert len(order) == 3


def test_batches_hold_what_is_stored_in_its_own_types(
    store: ChipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIOMASSTERS_WORKERS", "0")
    [batch] = open_batches(store, StoreOrder([2, 0], 2))
    types = (torch.int64, torch.int16, torch.uint16, torch.bool, torch.float32)
    assert tuple(tensor.dtype for tensor in batch) == types
    assert batch.chip_index.tolist() == [2, 0]
    for row, index in enumerate((2, 0)):
        chip = store.read_chip(index)
        for tensor, array in zip(batch[1:], chip[1:5], strict=True):
            np.testing.assert_array_equal(tensor[row].numpy(), array)


def test_target_is_nan_where_the_split_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIOMASSTERS_WORKERS", "0")
    store = pack_chips(tmp_path, IDS[0], target=False)
    [batch] = open_batches(store, StoreOrder([0], 1))
    assert batch.target.shape == (1, 32, 32)
    assert batch.target.dtype == torch.float32
    assert batch.target.isnan().all()


def test_number_of_workers_changes_no_batch(
    store: ChipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = (read_all(store, workers, monkeypatch, n_epochs=3) for workers in (0, 2))
    assert len(here) == len(there) == 3
    for a, b in zip(here, there, strict=True):
        assert all(x.numpy().tobytes() == y.numpy().tobytes() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_reading_draws_nothing_from_the_global_generator(
    store: ChipStore, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    before = torch.get_rng_state()
    read_all(store, workers, monkeypatch)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_chip_is_the_same_single_line_from_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    store = pack_chips(tmp_path, *IDS[:2])
    [file] = (store.path / "s1").glob("c.1.*")
    file.unlink()
    with pytest.raises(StoreError, match="expected s1 of chip 5eed0002") as caught:
        read_all(store, workers, monkeypatch)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["two", "-1", ""])
def test_other_than_a_number_of_workers_is_refused(
    store: ChipStore, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("BIOMASSTERS_WORKERS", value)
    with pytest.raises(ParamsError, match=f"got '{value}', at the environment variable BIOMASST"):
        open_batches(store, StoreOrder([0], 1))
