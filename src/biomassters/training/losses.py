"""What training minimises: one number a chip, over its valid pixels.

They have no units: predictions and targets come in the space where the model takes its loss (t/ha,
or the logarithm or the square root of these).

Not torch's losses, which average over all pixels of a batch: here each chip counts alike, whatever
its number of valid pixels. Nor a library's SSIM, which knows no pixels that are not valid.
"""

from collections.abc import Callable, Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON: Final = 1e-8
"""Added to the mean square, so that a perfect chip has a finite gradient."""

HUBER_SHARE: Final = 0.05
"""Share of the range of targets up to which an error's loss is quadratic: 20 of 400 t/ha, somewhat
below the error of a good model."""

SSIM_SHARE: Final = 0.1
"""Share of the range of targets that a structure of no resemblance costs (SSIM 0): 40 of 400 t/ha,
about what the mean absolute error costs at first."""

SSIM_WINDOW: Final = 11
SSIM_SIGMA: Final = 1.5
SSIM_K: Final = (0.01, 0.03)
"""Pixels of the Gaussian window's side, its standard deviation, and the two constants, in shares
of the range.

Source: Wang et al., Image quality assessment: from error visibility to structural similarity,
IEEE Transactions on Image Processing 13 (2004)."""


def chip_losses(
    name: str,
    prediction: Tensor,
    target: Tensor,
    valid: Tensor,
    *,
    value_range: float,
    quantiles: Sequence[float] | None = None,
) -> Tensor:
    """Return the loss of each chip, (B,) float32; 0 for a chip without a valid pixel.

    Args:
        name: `rmse`: root of the mean square error (as the competition scores, and the winner
            trained); `mse`: its square; `huber`: mean of the absolute errors, quadratic below
            HUBER_SHARE of the range; `mae_ssim`: mean absolute error, and SSIM_SHARE of the range
            times 1 - SSIM.
        prediction: (B, H, W), in the space of the loss; of quantiles (B, Q, H, W).
        target: (B, H, W), in that space; of any value where it is not valid, NaN included.
        valid: Pixels that enter the loss, (B, H, W) bool.
        value_range: Of valid targets, from 0; what the scale of `huber` and `mae_ssim` follows.
        quantiles: The levels of what is predicted, 0...1: the loss is then theirs, whatever `name`
            is (`_measure_pinball`); None = one number is predicted.
    """
    # Where before any arithmetic: a masked NaN would still poison the gradient.
    target = torch.where(valid, target, 0.0)
    if quantiles is None:
        prediction = torch.where(valid, prediction.float(), 0.0)
        losses = LOSSES[name](prediction, target, valid, value_range)
    else:
        losses = _measure_pinball(prediction.float(), target, valid, quantiles)
    return torch.where(valid.any(dim=2).any(dim=1), losses, 0.0)


def _measure_rmse(prediction: Tensor, target: Tensor, valid: Tensor, value_range: float) -> Tensor:
    return (_measure_mse(prediction, target, valid, value_range) + EPSILON).sqrt()


def _measure_mse(prediction: Tensor, target: Tensor, valid: Tensor, value_range: float) -> Tensor:  # noqa: ARG001
    return _average((prediction - target).square(), valid)


def _measure_huber(prediction: Tensor, target: Tensor, valid: Tensor, value_range: float) -> Tensor:
    delta = HUBER_SHARE * value_range
    return _average(F.huber_loss(prediction, target, reduction="none", delta=delta), valid) / delta


def _measure_mae_ssim(
    prediction: Tensor, target: Tensor, valid: Tensor, value_range: float
) -> Tensor:
    unlike = 1 - _average(_compare_structure(prediction, target, valid, value_range), valid)
    return _average((prediction - target).abs(), valid) + SSIM_SHARE * value_range * unlike


def _measure_pinball(
    prediction: Tensor, target: Tensor, valid: Tensor, quantiles: Sequence[float]
) -> Tensor:
    """Return the mean pinball loss of quantiles, which their true values make least."""
    over = torch.where(valid[:, None], target[:, None] - prediction, 0.0)  # (B, Q, H, W)
    of_levels = [
        torch.maximum(level * of_level, (level - 1) * of_level)
        for level, of_level in zip(quantiles, over.unbind(1), strict=True)
    ]
    return _average(torch.stack(of_levels).mean(dim=0), valid)


Measure = Callable[[Tensor, Tensor, Tensor, float], Tensor]

LOSSES: Final[dict[str, Measure]] = {
    "rmse": _measure_rmse,
    "mse": _measure_mse,
    "huber": _measure_huber,
    "mae_ssim": _measure_mae_ssim,
}


def _average(values: Tensor, valid: Tensor) -> Tensor:
    """Return each chip's mean over its valid pixels, (B,); 0 for a chip without any."""
    n_valid = valid.sum(dim=(1, 2))
    return torch.where(valid, values, 0.0).sum(dim=(1, 2)) / n_valid.clamp(min=1)


def _compare_structure(
    prediction: Tensor, target: Tensor, valid: Tensor, value_range: float
) -> Tensor:
    """Return the structural similarity at each pixel, (B, H, W), at most 1.

    A window averages over its valid pixels alone: those that are not valid, and what lies beyond
    the chip's border, have no weight. At a pixel that is not valid the number has no meaning.
    """
    # In float64: variances are small differences of large means, and a GPU may round the products
    # of a float32 convolution to ten bits (TF32).
    x, y = prediction.double(), target.double()
    layers = torch.stack([x, y, x.square(), y.square(), x * y], dim=1)
    weight = _blur(valid.double().unsqueeze(1))  # (B, 1, H, W)
    means = _blur(layers) / weight.clamp(min=EPSILON)
    x, y, xx, yy, xy = means.unbind(dim=1)
    c1, c2 = ((k * value_range) ** 2 for k in SSIM_K)
    luminance = (2 * x * y + c1) / (x.square() + y.square() + c1)
    spreads = (xx - x.square()) + (yy - y.square())
    return (luminance * (2 * (xy - x * y) + c2) / (spreads + c2)).float()


def _blur(layers: Tensor) -> Tensor:
    """Return the sums over Gaussian windows of layers, (B, C, H, W); 0 beyond the border."""
    n_layers, half = layers.shape[1], SSIM_WINDOW // 2
    offsets = torch.arange(-half, half + 1, device=layers.device, dtype=layers.dtype)
    kernel = (-offsets.square() / (2 * SSIM_SIGMA**2)).exp()
    across = (kernel / kernel.sum()).expand(n_layers, 1, 1, SSIM_WINDOW)
    rows = F.conv2d(layers, across, padding=(0, half), groups=n_layers)
    return F.conv2d(rows, across.transpose(2, 3), padding=(half, 0), groups=n_layers)
