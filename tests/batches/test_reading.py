import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import IDS, pack_chips

from biomassters.batches.order import EpochOrder, StoreOrder
from biomassters.batches.reading import (
    Batch,
    Batches,
    StoredChips,
    open_batches,
    prefetch,
    send,
)
from biomassters.errors import ParamsError, StoreError
from biomassters.store.chips import ChipStore
from biomassters.store.cleaning import clean_chip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ChipStore:
    return pack_chips(tmp_path_factory.mktemp("chips"), *IDS[:3])


def read_all(
    store: ChipStore, workers: int, monkeypatch: pytest.MonkeyPatch, n_epochs: int = 1
) -> list[Batch]:
    monkeypatch.setenv("BIOMASSTERS_WORKERS", str(workers))
    order = EpochOrder(range(len(store)), batch_size=2, micro_batch_size=2, seed=0)
    batches = open_batches(store, order)
    found = []
    for order.epoch in range(n_epochs):
        found += list(batches)
    return found


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


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_cleaned_chips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setenv("BIOMASSTERS_WORKERS", str(workers))
    path = pack_chips(tmp_path, "5eed0011", IDS[3]).path
    plain, store = (
        ChipStore.open(path, clean=partial(clean_chip, name=name)) for name in ("none", "third")
    )
    [batch], [uncleaned] = (open_batches(s, StoreOrder([1, 0], 2)) for s in (store, plain))
    for row, index in enumerate((1, 0)):
        chip = store.read_chip(index)
        assert (batch.s2[row].numpy() != uncleaned.s2[row].numpy()).any()
        for tensor, array in zip(batch[1:], chip[1:5], strict=True):
            np.testing.assert_array_equal(tensor[row].numpy(), array)


def test_number_of_workers_changes_no_batch(
    store: ChipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = (read_all(store, workers, monkeypatch, n_epochs=3) for workers in (0, 2))
    assert len(here) == len(there) == 3
    for a, b in zip(here, there, strict=True):
        assert all(x.numpy().tobytes() == y.numpy().tobytes() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_no_more_is_read_ahead_than_two_batches_or_two_chips_a_thread(
    store: ChipStore, batch_size: int
) -> None:
    asked: list[int] = []

    class Noting(StoreOrder):
        def __iter__(self):
            for indices in super().__iter__():
                asked.append(len(indices))
                yield indices

    batches = Batches(StoredChips(store), Noting([0, 1, 2] * 10, batch_size), n_threads=2)
    assert len(batches) == 30 // batch_size
    for n_taken, batch in enumerate(batches, start=1):
        assert batch.chip_index.shape == (batch_size,)
        n_ahead = sum(asked) - n_taken * batch_size
        assert n_ahead == min(max(2 * batch_size, 4), 30 - n_taken * batch_size)


def test_threads_end_with_the_iteration_that_started_them(store: ChipStore) -> None:
    before = set(threading.enumerate())
    iterator = iter(Batches(StoredChips(store), StoreOrder([0, 1, 2] * 10, 1), n_threads=2))
    next(iterator)
    assert set(threading.enumerate()) - before
    del iterator
    assert not set(threading.enumerate()) - before


@pytest.mark.parametrize("workers", [0, 1])
def test_reading_draws_nothing_from_the_global_generator(
    store: ChipStore, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    before = torch.get_rng_state()
    read_all(store, workers, monkeypatch)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_chip_is_the_same_single_line_from_a_thread(
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


@pytest.mark.parametrize(
    ("cores", "processes", "workers"), [(2, 1, 1), (16, 1, 8), (16, 4, 3), (1, 1, 0), (2, 4, 0)]
)
def test_processes_of_one_machine_share_its_cores(
    store: ChipStore, monkeypatch: pytest.MonkeyPatch, cores: int, processes: int, workers: int
) -> None:
    monkeypatch.delenv("BIOMASSTERS_WORKERS", raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    assert open_batches(store, StoreOrder([0], 1)).n_threads == workers


def test_prefetching_on_a_cpu_passes_batches_on_one_by_one(
    store: ChipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIOMASSTERS_WORKERS", "0")
    read = iter(open_batches(store, StoreOrder([2, 0, 1], 1)))
    fetched = prefetch(read, torch.device("cpu"))
    assert next(fetched).chip_index.tolist() == [2]
    assert next(read).chip_index.tolist() == [0]  # not yet taken
    assert [batch.chip_index.tolist() for batch in fetched] == [[1]]


def test_what_python_decides_by_stays_on_the_cpu(
    store: ChipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIOMASSTERS_WORKERS", "0")
    [batch] = open_batches(store, StoreOrder([1], 1))
    elsewhere = batch.to(torch.device("meta"))
    places = [tensor.device.type for tensor in elsewhere]
    assert dict(zip(Batch._fields, places, strict=True)) == {
        "chip_index": "cpu",
        "s1": "meta",
        "s2": "meta",
        "s2_present": "cpu",
        "target": "meta",
    }


def test_sending_to_a_cpu_changes_nothing() -> None:
    tensor = torch.arange(3)
    assert send(tensor, torch.device("cpu")) is tensor
