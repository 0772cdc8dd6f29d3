from collections.abc import Sequence

import pytest

from biomassters.batches.order import EpochOrder, StoreOrder
from biomassters.errors import ParamsError

CHIPS = range(100, 119)


def order(
    batch_size: int,
    micro_batch_size: int,
    *,
    chips: Sequence[int] = CHIPS,
    rank: int = 0,
    size: int = 1,
) -> EpochOrder:
    return EpochOrder(
        chips,
        batch_size=batch_size,
        micro_batch_size=micro_batch_size,
        seed=3,
        rank=rank,
        size=size,
    )


def test_epoch_has_full_steps_of_chips_that_occur_once() -> None:
    batches = list(order(8, 8))
    assert [len(batch) for batch in batches] == [8, 8]
    assert len({chip for batch in batches for chip in batch}) == 16


def test_order_depends_on_seed_and_epoch_alone() -> None:
    first, second = order(8, 8), order(8, 8)
    assert list(first) == list(second) == list(first)
    first.epoch = 1
    assert list(first) != list(second)


def test_micro_batches_are_consecutive_parts_of_the_batch() -> None:
    whole, parts = list(order(8, 8)), list(order(8, 2))
    assert [len(part) for part in parts] == [2] * 8
    assert [chip for part in parts for chip in part] == [chip for batch in whole for chip in batch]


@pytest.mark.parametrize(
    ("batch_size", "micro_batch_size", "size"),
    [(8, 4, 2), (8, 2, 2), (8, 2, 4), (8, 8, 2), (8, 4, 4), (8, 8, 8), (8, 4, 8)],
)
def test_processes_together_take_the_steps_of_one(
    batch_size: int, micro_batch_size: int, size: int
) -> None:
    alone = order(batch_size, micro_batch_size)
    ranks = [order(batch_size, micro_batch_size, rank=rank, size=size) for rank in range(size)]
    assert {rank.steps for rank in ranks} == {alone.steps}
    parts = [list(rank) for rank in ranks]
    assert [len(rank) for rank in ranks] == [len(batches) for batches in parts]
    per_step = ranks[0].micro_batches_per_step
    together = [
        chip
        for step in range(alone.steps)
        for batches in parts
        for batch in batches[step * per_step : (step + 1) * per_step]
        for chip in batch
    ]
    assert together == [chip for batch in alone for chip in batch]


@pytest.mark.parametrize(
    ("micro_batch_size", "size", "expected"),
    [
        (4, 1, [(0, 2, 1, 0)]),
        (4, 2, [(0, 1, 1, 0), (1, 1, 1, 0)]),
        (8, 2, [(0, 1, 2, 0), (0, 1, 2, 1)]),
        (4, 4, [(0, 1, 2, 0), (0, 1, 2, 1), (1, 1, 2, 0), (1, 1, 2, 1)]),
        (2, 2, [(0, 2, 1, 0), (2, 2, 1, 0)]),
    ],
)
def test_each_process_knows_its_micro_batches_and_its_part(
    micro_batch_size: int, size: int, expected: list[tuple[int, int, int, int]]
) -> None:
    ranks = [order(8, micro_batch_size, rank=rank, size=size) for rank in range(size)]
    found = [
        (rank.first_micro_batch, rank.micro_batches_per_step, rank.sharers, rank.part)
        for rank in ranks
    ]
    assert found == expected


def test_fewer_chips_than_a_batch_are_one_step_of_even_micro_batches() -> None:
    few = order(8, 4, chips=range(5))
    assert (few.steps, few.batch_size) == (1, 5)
    assert [len(batch) for batch in few] == [3, 2]
    assert sorted(chip for batch in few for chip in batch) == list(range(5))


def test_fewer_chips_than_a_batch_cannot_be_shared() -> None:
    with pytest.raises(ParamsError, match=r"at least 8 chips .* 2 processes, got 5, at optimi"):
        order(8, 4, chips=range(5), size=2)


def test_micro_batch_that_does_not_divide_the_batch_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"divisor of optimisation.batch_size \(8\), got 3, at"):
        order(8, 3)


@pytest.mark.parametrize(("micro_batch_size", "size"), [(8, 3), (4, 3), (2, 3), (1, 16), (4, 16)])
def test_processes_that_cannot_share_evenly_are_refused(micro_batch_size: int, size: int) -> None:
    with pytest.raises(ParamsError, match=rf"{size} processes can share evenly.*micro_batch_size"):
        order(8, micro_batch_size, size=size)


def test_store_order_is_each_chip_once_as_given() -> None:
    assert list(StoreOrder([4, 2, 9], 2)) == [[4, 2], [9]]
    assert len(StoreOrder([4, 2, 9], 2)) == 2


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_processes_share_the_batches_of_the_store(size: int) -> None:
    parts = [StoreOrder(range(7), 2, rank=rank, size=size) for rank in range(size)]
    assert [len(part) for part in parts] == [len(list(part)) for part in parts]
    batches = sorted(batch for part in parts for batch in part)
    assert batches == [[0, 1], [2, 3], [4, 5], [6]]
