"""What training minimises."""

import torch
from torch import Tensor

EPSILON = 1e-8
"""Added to the mean square, (t/ha)², so that a perfect chip has a finite gradient."""


def chip_rmse_loss(prediction: Tensor, target: Tensor, max_target: float) -> Tensor:
    """Return the mean over chips of each chip's RMSE, as the competition scores.

    Args:
        prediction: AGBM, (B, H, W), t/ha.
        target: AGBM, (B, H, W), t/ha; NaN = no target.
        max_target: Pixels with a target of this and more (t/ha) are left out.

    Returns:
        A scalar, t/ha. A chip without a valid pixel contributes nothing; a batch without any is 0.

    Source: the winner's loss, with his threshold of 400 t/ha.
    """
    valid = target < max_target  # False for NaN
    # Where before the square: a masked NaN would still poison the gradient.
    error = torch.where(valid, prediction.float() - target, 0.0)
    n_valid = valid.sum(dim=(1, 2))
    mean_square = error.square().sum(dim=(1, 2)) / n_valid.clamp(min=1)
    contributes = n_valid > 0
    rmse = torch.where(contributes, (mean_square + EPSILON).sqrt(), 0.0)
    return rmse.sum() / contributes.sum().clamp(min=1)
