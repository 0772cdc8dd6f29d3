import itertools
import math
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from biomassters.params.sections import LossName
from biomassters.training.losses import HUBER_SHARE, LOSSES, SSIM_SHARE, chip_losses

RANGE = 400.0
Floats = npt.NDArray[np.float64]


def measure(name: str, prediction: Any, target: Any, valid: Any = None) -> Tensor:
    prediction, target = torch.as_tensor(prediction), torch.as_tensor(target)
    valid = torch.isfinite(target) if valid is None else torch.as_tensor(valid)
    return chip_losses(name, prediction, target, valid, value_range=RANGE)


def draw_chips(n_chips: int = 2, size: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    """Draw predictions, targets with NaN, and which pixels are valid."""
    random = torch.Generator().manual_seed(1)
    target = torch.rand(n_chips, size, size, generator=random) * RANGE
    prediction = target + 60 * torch.randn(n_chips, size, size, generator=random)
    valid = torch.rand(n_chips, size, size, generator=random) < 0.8
    return prediction, target.where(valid, torch.nan), valid


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rmse", [math.sqrt(50), 40.0]),
        ("mse", [50.0, 1600.0]),
        # Below 20 t/ha e² / 2 over 20, above it |e| - 10.
        ("huber", [(0.9 + 1.6) / 2, 30.0]),
    ],
)
def test_worked_numbers(name: str, expected: list[float]) -> None:
    losses = measure(name, [[[6.0, -8.0]], [[40.0, 40.0]]], [[[0.0, 0.0]], [[0.0, 80.0]]])
    assert losses.tolist() == pytest.approx(expected)
    assert HUBER_SHARE * RANGE == 20


def measure_pinball(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    return chip_losses(
        "rmse", prediction, target, valid, value_range=RANGE, quantiles=(0.05, 0.5, 0.95)
    )


def test_pinball_loss_by_hand() -> None:
    """10 over the first, 4 below the second, 5 over the third; a pixel without a target."""
    prediction = torch.tensor([10.0, 24.0, 15.0])[None, :, None, None].repeat(1, 1, 1, 2)
    target = torch.tensor([[[20.0, math.nan]]])
    expected = (0.05 * 10 + 0.5 * 4 + 0.95 * 5) / 3
    losses = measure_pinball(prediction, target, target.isfinite())
    assert losses.tolist() == pytest.approx([expected])


def test_pinball_loss_is_least_at_the_quantiles_of_the_targets() -> None:
    target = torch.rand(1, 40, 40, generator=torch.Generator().manual_seed(2)) ** 2 * RANGE
    valid = torch.ones_like(target, dtype=torch.bool)
    best = target.quantile(torch.tensor([0.05, 0.5, 0.95]))
    least = measure_pinball(best[None, :, None, None].expand(1, 3, 40, 40), target, valid)
    for level, change in itertools.product(range(3), (-5.0, 5.0)):
        other = best.clone()
        other[level] += change
        assert (
            measure_pinball(other[None, :, None, None].expand(1, 3, 40, 40), target, valid) > least
        )


def test_pinball_loss_leaves_out_what_is_not_valid_and_gives_it_no_gradient() -> None:
    _, target, valid = draw_chips()
    prediction = torch.full((2, 3, 20, 20), 50.0, requires_grad=True)
    losses = measure_pinball(prediction, target, valid & (torch.arange(2) == 0)[:, None, None])
    assert losses[0] > 0
    assert losses[1] == 0
    losses.sum().backward()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()
    assert torch.equal(prediction.grad[0, 0] != 0, valid[0])
    assert (prediction.grad[1] == 0).all()


def test_mae_ssim_of_flat_chips_is_their_distance_and_their_unlike_brightness() -> None:
    loss = measure("mae_ssim", torch.full((1, 16, 16), 100.0), torch.full((1, 16, 16), 50.0))
    c1 = (0.01 * RANGE) ** 2
    ssim = (2 * 100 * 50 + c1) / (100**2 + 50**2 + c1)
    assert loss.item() == pytest.approx(50 + SSIM_SHARE * RANGE * (1 - ssim))


def test_mae_ssim_of_a_perfect_chip_is_zero() -> None:
    _, target, _ = draw_chips(1)
    assert measure("mae_ssim", target.nan_to_num(7.0), target).item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("is_masked", [False, True])
def test_structural_similarity_is_that_of_its_definition(is_masked: bool) -> None:
    prediction, target, valid = draw_chips(1)
    if not is_masked:
        target, valid = target.nan_to_num(30.0), torch.ones_like(valid)
    x, y = prediction[0].double().numpy(), target[0].nan_to_num(-1e6).double().numpy()
    mask = valid[0].numpy()
    expected = np.abs(x - y)[mask].mean() + SSIM_SHARE * RANGE * (1 - compare(x, y, mask))
    assert measure("mae_ssim", prediction, target).item() == pytest.approx(expected, rel=1e-5)


def compare(x: Floats, y: Floats, mask: npt.NDArray[np.bool_]) -> float:
    """Return the mean SSIM: in each window, the valid pixels alone, by deviations from the mean."""
    kernel = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(kernel, kernel) / kernel.sum() ** 2
    values = []
    padded = [np.pad(array, 5) for array in (x, y, mask)]
    for row, column in np.argwhere(mask):
        a, b, m = (array[row : row + 11, column : column + 11] for array in padded)
        weights = np.where(m, window, 0) / window[m].sum()
        mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
        spread_a, spread_b = (
            (weights * (a - mean_a) ** 2).sum(),
            (weights * (b - mean_b) ** 2).sum(),
        )
        both = (weights * (a - mean_a) * (b - mean_b)).sum()
        c1, c2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2
        brightness = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        values.append(brightness * (2 * both + c2) / (spread_a + spread_b + c2))
    return float(np.mean(values))


@pytest.mark.parametrize("name", LOSSES)
def test_pixels_that_are_not_valid_change_nothing(name: str) -> None:
    prediction, target, valid = draw_chips()
    other = torch.where(valid, prediction, 1e30)
    assert torch.equal(measure(name, prediction, target), measure(name, other, target))
    filled = torch.where(valid, target, 1e30)
    assert torch.equal(measure(name, prediction, target), measure(name, prediction, filled, valid))


@pytest.mark.parametrize("name", LOSSES)
def test_chips_do_not_see_each_other(name: str) -> None:
    prediction, target, _ = draw_chips(3)
    together = measure(name, prediction, target)
    alone = [measure(name, prediction[[i]], target[[i]]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("name", LOSSES)
def test_chip_without_valid_pixels_has_zero_loss_and_zero_gradient(name: str) -> None:
    prediction, target, _ = draw_chips()
    prediction.requires_grad_()
    target[0] = torch.nan
    losses = measure(name, prediction, target)
    losses.sum().backward()
    assert losses[0].item() == 0
    assert losses[1].item() > 0
    assert torch.equal(prediction.grad[0], torch.zeros_like(prediction[0]))


@pytest.mark.parametrize("name", LOSSES)
def test_nan_targets_and_perfect_chips_leave_the_gradient_finite(name: str) -> None:
    _, target, valid = draw_chips()
    prediction = target.nan_to_num(5.0).requires_grad_()
    measure(name, prediction, target).sum().backward()
    assert torch.isfinite(prediction.grad).all()
    assert not prediction.grad[~valid].any()


@pytest.mark.parametrize("name", LOSSES)
def test_spoilt_prediction_is_seen(name: str) -> None:
    prediction, target, valid = draw_chips()
    prediction[0][valid[0]] = torch.nan
    losses = measure(name, prediction, target)
    assert not losses[0].isfinite()
    assert losses[1].isfinite()


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_leads_downhill(name: str) -> None:
    prediction, target, _ = draw_chips()
    prediction.requires_grad_()
    before = measure(name, prediction, target)
    before.sum().backward()
    step = 0.1 * prediction.grad / prediction.grad.abs().max()
    assert (measure(name, prediction.detach() - step, target) < before).all()


def test_gradient_of_rmse_is_the_error_over_pixels_and_rmse() -> None:
    prediction = torch.tensor([[[3.0, 4.0]]], requires_grad=True)
    measure("rmse", prediction, torch.zeros(1, 1, 2)).sum().backward()
    expected = torch.tensor([[[3.0, 4.0]]]) / 2 / math.sqrt(12.5)
    torch.testing.assert_close(prediction.grad, expected)


def test_losses_of_a_half_precision_prediction_are_float32() -> None:
    prediction, target, _ = draw_chips()
    assert measure("rmse", prediction.bfloat16(), target).dtype is torch.float32


def test_losses_are_those_that_the_params_may_name() -> None:
    assert set(LOSSES) == set(get_args(LossName))
