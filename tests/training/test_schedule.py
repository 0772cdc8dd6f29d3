import pytest
from tiny_training import run_phase

from biomassters.training.schedule import Schedule


def follow(schedule: Schedule, *moments: float) -> list[float]:
    return [schedule.learning_rate(moment) for moment in moments]


def test_cosine_leads_from_lr_to_lr_min() -> None:
    schedule = Schedule(lr=1e-3, phase=run_phase(epochs=4, lr_min=1e-4))
    expected = [1e-3, 8.6819805e-4, 5.5e-4, 2.3180195e-4, 1e-4]
    assert follow(schedule, 0, 1, 2, 3, 4) == pytest.approx(expected, rel=1e-7)


def test_lr_min_above_lr_leaves_lr_as_it_is() -> None:
    schedule = Schedule(lr=1e-4, phase=run_phase(lr_min=1e-2))
    assert follow(schedule, 0, 1.3, 3) == [1e-4] * 3


def test_warmup_rises_from_zero_and_the_cosine_has_the_epochs_that_are_left() -> None:
    schedule = Schedule(lr=1e-3, phase=run_phase(epochs=6, lr_min=1e-4, warmup_epochs=2))
    expected = [0, 2.5e-4, 5e-4, 1e-3, 8.6819805e-4, 1e-4]
    assert follow(schedule, 0, 0.5, 1, 2, 3, 6) == pytest.approx(expected, rel=1e-7)


def test_warmup_of_all_epochs_only_rises() -> None:
    schedule = Schedule(lr=1e-3, phase=run_phase(epochs=2, warmup_epochs=2))
    assert follow(schedule, 0, 1, 1.5) == pytest.approx([0, 5e-4, 7.5e-4])


def test_first_epochs_are_frozen_and_last_ones_plain() -> None:
    schedule = Schedule(lr=1, phase=run_phase(epochs=5, frozen_encoder_epochs=2, plain_epochs=1))
    assert [schedule.is_encoder_frozen(epoch) for epoch in range(5)] == [True] * 2 + [False] * 3
    assert [schedule.is_plain(epoch) for epoch in range(5)] == [False] * 4 + [True]
    assert [schedule.is_last(epoch) for epoch in range(5)] == [False] * 4 + [True]


def test_no_epoch_is_frozen_or_plain_unless_asked() -> None:
    schedule = Schedule(lr=1, phase=run_phase(epochs=2))
    assert not any(schedule.is_encoder_frozen(e) or schedule.is_plain(e) for e in range(2))
