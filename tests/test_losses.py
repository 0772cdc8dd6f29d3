import math

import pytest
import torch

from biomassters.losses import chip_rmse_loss


def test_loss_is_the_mean_of_each_chips_rmse() -> None:
    target = torch.zeros(2, 2, 2)
    prediction = torch.stack([torch.full((2, 2), 3.0), torch.full((2, 2), 5.0)])
    assert chip_rmse_loss(prediction, target, 400).item() == pytest.approx(4.0)


def test_pixels_at_the_threshold_and_above_are_left_out() -> None:
    target = torch.tensor([[[0.0, 399.0], [400.0, 900.0]]])
    prediction = target + torch.tensor([[[6.0, 8.0], [1000.0, 1000.0]]])
    assert chip_rmse_loss(prediction, target, 400).item() == pytest.approx(math.sqrt(50))


def test_chip_without_valid_pixels_contributes_nothing() -> None:
    target = torch.stack([torch.full((2, 2), torch.nan), torch.zeros(2, 2)])
    prediction = torch.full((2, 2, 2), 7.0)
    assert chip_rmse_loss(prediction, target, 400).item() == pytest.approx(7.0)


def test_batch_without_valid_pixels_has_zero_loss_and_zero_gradient() -> None:
    prediction = torch.full((1, 2, 2), 7.0, requires_grad=True)
    loss = chip_rmse_loss(prediction, torch.full((1, 2, 2), torch.nan), 400)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(prediction.grad, torch.zeros(1, 2, 2))


def test_nan_targets_and_perfect_chips_leave_the_gradient_finite() -> None:
    target = torch.tensor([[[10.0, torch.nan], [20.0, 30.0]]])
    prediction = torch.nan_to_num(target, nan=5.0).requires_grad_()
    chip_rmse_loss(prediction, target, 400).backward()
    assert torch.isfinite(prediction.grad).all()
    assert prediction.grad[0, 0, 1] == 0


def test_gradient_is_the_error_over_pixels_and_rmse() -> None:
    prediction = torch.tensor([[[3.0, 4.0]]], requires_grad=True)
    chip_rmse_loss(prediction, torch.zeros(1, 1, 2), 400).backward()
    expected = torch.tensor([[[3.0, 4.0]]]) / 2 / math.sqrt(12.5)
    torch.testing.assert_close(prediction.grad, expected)
