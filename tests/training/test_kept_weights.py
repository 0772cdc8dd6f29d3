import pytest
import torch
from torch import nn

from biomassters.errors import TrainingError
from biomassters.training.kept_weights import AverageWeights, BestWeights, Keeper, MovingAverage


def model_with(value: float) -> nn.Module:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def kept(keeper: Keeper) -> float:
    return keeper.weights["weight"].item()


def test_best_is_the_epoch_with_the_lowest_score_and_the_earlier_of_two() -> None:
    best = BestWeights("rmse")
    for epoch, score in enumerate([5.0, 3.0, 4.0, 3.0]):
        best.update(epoch, model_with(float(epoch)), {"rmse": score})
    assert (best.epoch, best.score, kept(best)) == (1, 3.0, 1.0)


def test_epoch_without_validation_is_never_best() -> None:
    best = BestWeights("rmse")
    best.update(0, model_with(0.0), {})
    with pytest.raises(TrainingError, match="expected a finite rmse"):
        _ = best.weights


def test_kept_weights_do_not_follow_the_model() -> None:
    model, best = model_with(1.0), BestWeights("rmse")
    best.update(0, model, {"rmse": 1.0})
    nn.init.constant_(next(model.parameters()), 9.0)
    assert kept(best) == 1.0


def test_average_is_over_the_epochs_from_the_first_on() -> None:
    average = AverageWeights(first_epoch=1)
    for epoch, value in enumerate([100.0, 1.0, 2.0, 6.0]):
        average.update(epoch, model_with(value), {})
    assert kept(average) == pytest.approx(3.0)


def test_average_from_the_last_epoch_on_is_the_last_weights() -> None:
    average = AverageWeights(first_epoch=2)
    for epoch in range(3):
        average.update(epoch, model_with(float(epoch)), {})
    assert kept(average) == 2.0


@pytest.mark.parametrize("make", [lambda: BestWeights("rmse"), lambda: AverageWeights(0)])
def test_going_on_from_a_state_ends_where_an_uninterrupted_run_does(make: object) -> None:
    assert callable(make)
    values = [3.0, 2.0, 4.0]
    whole, first, second = make(), make(), make()
    for epoch, value in enumerate(values):
        whole.update(epoch, model_with(value), {"rmse": value})
    first.update(0, model_with(values[0]), {"rmse": values[0]})
    second.restore(first.state())
    for epoch in (1, 2):
        second.update(epoch, model_with(values[epoch]), {"rmse": values[epoch]})
    assert torch.equal(whole.weights["weight"], second.weights["weight"])


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
