import pytest
import torch

from biomassters.model.kept_months import find_kept_months, ignore_absent_months, merge_ignored

CPU = torch.device("cpu")


def mask(*rows: str) -> torch.Tensor:
    return torch.tensor([[letter == "x" for letter in row] for row in rows])


def test_kept_months_come_in_the_order_of_chips_and_months() -> None:
    ignored = mask("x..", "...", ".xx")
    kept = find_kept_months(ignored, torch.Size([3, 3, 5]), CPU)
    assert kept.positions.tolist() == [1, 2, 3, 4, 5, 6]
    values = torch.arange(9.0).reshape(3, 3)
    assert kept.pick(values).tolist() == [1, 2, 3, 4, 5, 6]


def test_spread_undoes_pick_and_fills_the_rest() -> None:
    kept = find_kept_months(mask("x..", ".x."), torch.Size([2, 3]), CPU)
    values = torch.arange(6.0).reshape(2, 3)
    assert kept.spread(kept.pick(values), -1).tolist() == [[-1, 1, 2], [3, -1, 5]]


@pytest.mark.parametrize("ignored", [None, mask("...", "...")])
def test_nothing_is_copied_where_nothing_is_ignored(ignored: torch.Tensor | None) -> None:
    kept = find_kept_months(ignored, torch.Size([2, 3]), CPU)
    assert kept.positions is None
    values = torch.rand(2, 3, 4)
    assert kept.spread(kept.pick(values), 0).data_ptr() == values.data_ptr()


def test_chip_that_would_ignore_all_months_keeps_all() -> None:
    kept = find_kept_months(mask("xxx", "x.."), torch.Size([2, 3]), CPU)
    assert kept.positions.tolist() == [0, 1, 2, 4, 5]


def test_absent_months_are_ignored_unless_the_chip_has_no_other() -> None:
    present = mask("x.x", "...", "xxx")
    assert torch.equal(ignore_absent_months(present), mask(".x.", "...", "..."))


def test_months_are_ignored_for_either_reason_but_never_all() -> None:
    absent = mask("x..", "xx.", "...")
    dropped = mask("..x", "..x", ".xx")
    assert torch.equal(merge_ignored(absent, dropped), mask("x.x", "xx.", ".xx"))


def test_no_reason_is_none() -> None:
    months = mask("x..")
    assert merge_ignored(None, None) is None
    assert merge_ignored(months, None) is months
    assert merge_ignored(None, months) is months
