import pytest
import torch
from torch import nn

from biomassters.errors import TrainingError
from biomassters.training.selection import AverageWeights, BestWeights, Keeper


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
