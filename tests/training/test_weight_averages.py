import pytest
import torch
from torch import nn

from biomassters.training.weight_averages import MovingAverage


def make_model(value: float = 0.0) -> nn.Module:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    set_weights(model, value)
    return model


@torch.no_grad()
def set_weights(model: nn.Module, value: float) -> None:
    """Set what a step changes: a weight, a running statistic and a counter."""
    model[0].weight.fill_(value)
    model[1].running_mean.fill_(10 * value)
    model[1].num_batches_tracked.fill_(int(value))


def read(model: nn.Module) -> tuple[float, float, int]:
    norm = model[1]
    return model[0].weight.item(), norm.running_mean.item(), norm.num_batches_tracked.item()


def follow(average: MovingAverage, model: nn.Module, *values: float) -> None:
    for value in values:
        set_weights(model, value)
        average.update()


def test_average_is_that_computed_by_hand() -> None:
    model = make_model()
    average = MovingAverage(model, decay=0.2)
    follow(average, model, 11.0, 6.0)  # decays 2/11 and 0.2, which is below 3/12
    with average.in_place():
        expected = 0.2 * (9 / 11 * 11) + 0.8 * 6
        assert read(model) == (pytest.approx(expected), pytest.approx(10 * expected), 6)


def test_first_decays_rise_with_the_updates() -> None:
    model = make_model()
    average = MovingAverage(model, decay=0.999)
    follow(average, model, 1.0, 1.0, 1.0)
    with average.in_place():
        assert read(model)[0] == pytest.approx(1 - 2 / 11 * 3 / 12 * 4 / 13)


def test_weights_that_stay_are_their_own_average() -> None:
    model = make_model(0.7)
    average = MovingAverage(model, decay=0.9)
    follow(average, model, *[0.7] * 20)
    before = read(model)
    with average.in_place():
        assert read(model) == before


def test_weights_are_back_after_use_and_the_average_goes_on() -> None:
    model, twin = make_model(), make_model()
    average, unused = MovingAverage(model, 0.9), MovingAverage(twin, 0.9)
    follow(average, model, 4.0)
    with pytest.raises(KeyError), average.in_place():
        raise KeyError
    assert read(model) == (4.0, 40.0, 4)
    follow(average, model, 5.0)
    follow(unused, twin, 4.0, 5.0)
    average.swap()
    unused.swap()
    assert read(model) == read(twin)


def test_average_goes_on_from_a_checkpoint_with_the_same_bytes() -> None:
    whole, first, second = make_model(), make_model(), make_model()
    averages = [MovingAverage(model, 0.9) for model in (whole, first, second)]
    follow(averages[0], whole, 1.0, 3.0, 7.0)
    follow(averages[1], first, 1.0, 3.0)
    second.load_state_dict(first.state_dict())
    averages[2].restore(averages[1].state())
    follow(averages[2], second, 7.0)
    averages[0].swap()
    averages[2].swap()
    assert read(whole) == read(second)
