"""Held-out chips whose errors are drawn: correlated, and larger where more is predicted."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, rfft2

from biomassters.calibration.held_out import HeldOutChip


def draw_field(
    random: np.random.Generator, side: int, range_px: float, n: int = 1
) -> NDArray[np.float64]:
    """Draw Gaussian fields, (n, side, side), of variance 1 and correlation exp(-distance / range).

    By circulant embedding on a torus of eight ranges or two sides: exact but for 3e-4.
    """
    length = 2 * int(max(side, 4 * range_px))
    lag = np.minimum(np.arange(length), length - np.arange(length))
    kernel = np.exp(-np.hypot(lag[:, None], lag[None, :]) / range_px)
    spectrum = np.sqrt(np.maximum(rfft2(kernel).real, 0))
    noise = random.normal(size=(n, length, length))
    return irfft2(rfft2(noise) * spectrum, (length, length))[:, :side, :side]


def draw_chips(
    n: int,
    seed: int = 0,
    side: int = 32,
    *,
    nugget: float = 0.2,
    range_px: float = 4.0,
    persistent: float = 0.2,
) -> list[HeldOutChip]:
    """Draw chips; a quarter of the pixels is predicted 0, and errors are skewed.

    Args:
        n: Number of chips.
        seed: Of all draws.
        side: Of a chip, pixels.
        nugget: Share of the errors' variance that is a pixel's own.
        range_px: Of what falls with distance.
        persistent: Share that a chip's pixels have in common.
    """
    random = np.random.default_rng(seed)
    land = draw_field(random, side, 8, n)
    prediction = np.maximum(0, 60 + 80 * (land + 0.5 * random.normal(size=(n, 1, 1))))
    error = (
        np.sqrt(nugget) * random.normal(size=land.shape)
        + np.sqrt(persistent) * random.normal(size=(n, 1, 1))
        + np.sqrt(1 - nugget - persistent) * draw_field(random, side, range_px, n)
    )
    error *= (5 + 0.25 * prediction) * np.where(error > 0, 1.3, 0.7)
    targets = prediction + error
    return [
        HeldOutChip.compare(f"{index:04}", *maps.astype(np.float32))
        for index, maps in enumerate(np.stack([prediction, targets], axis=1))
    ]


def mask_chips(chips: Sequence[HeldOutChip], share: float) -> list[HeldOutChip]:
    """Return the chips without the targets of their first rows."""
    masked = []
    for chip in chips:
        error = chip.error.copy()
        error[: int(share * len(error))] = np.nan
        masked.append(chip._replace(error=error))
    return masked
