"""Random changes of training chips: symmetries, rotations, lost months; on the batch's device.

What happens to a chip is drawn on the CPU from (seed, epoch, chip index) alone, whatever batch,
worker or GPU it comes in, and whichever other changes are switched on. The changes themselves are a
few operations on the whole batch, and never make the host wait for a GPU.

Not a library's (torchvision, kornia): they draw from one generator in the order of calls, they know
no target that is missing here and there, and no months; of theirs, only the interpolation would be
left, which is torch's own `grid_sample`.

Source: the winner's code. He turns by whole degrees, and blanks the months that are lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from biomassters.batches import symmetries
from biomassters.batches.reading import send
from biomassters.params.sections import AugmentationParams

CENTRE_JITTER: Final = 0.1
"""A rotation's centre lies within this share of the side from the middle, in x and in y.

Source: the winner's code."""

TOUCHED: Final = 1e-4
"""Share of NaN in an interpolated pixel's footprint from which on it is NaN: above the rounding of
float32 coordinates, so that a pixel which meets another exactly has no neighbours."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What happens to one chip.

    Attributes:
        symmetry: 0...7, see `symmetries`.
        is_rotated: Whether the next two apply.
        angle_degrees: Counterclockwise.
        centre: Of the rotation: x, y from the middle, in sides of the chip.
        lost: Months that the model shall ignore, (T,) bool; never all.
    """

    symmetry: int
    is_rotated: bool
    angle_degrees: float
    centre: tuple[float, float]
    lost: npt.NDArray[np.bool_]


def may_drop_months(settings: AugmentationParams) -> bool:
    """Whether a chip may lose months, down to one."""
    return settings.month_dropout_p > 0 and settings.month_dropout_rate > 0


def draw_changes(
    settings: AugmentationParams, sample: tuple[int, int, int], n_months: int
) -> Changes:
    """Draw what happens to a chip.

    Args:
        settings: Section `augmentation` of params.yaml.
        sample: Seed, epoch and chip index; all that the result depends on but the settings.
        n_months: Months of the chip.
    """
    random = np.random.Generator(np.random.PCG64(sample))
    # All is drawn, needed or not: what one change draws must not depend on another's settings.
    symmetry = int(random.integers(len(symmetries.SYMMETRIES)))
    is_rotated = bool(random.random() < settings.rotation_p)
    angle = random.uniform(-settings.rotation_degrees, settings.rotation_degrees)
    x, y = random.uniform(-CENTRE_JITTER, CENTRE_JITTER, size=2)
    loses_months = random.random() < settings.month_dropout_p
    chances = random.random(n_months)
    lost = (chances < settings.month_dropout_rate) & loses_months
    lost[chances.argmax()] = False
    return Changes(
        symmetry=symmetry if settings.symmetries else symmetries.IDENTITY,
        is_rotated=is_rotated,
        angle_degrees=angle,
        centre=(x, y),
        lost=lost,
    )


@torch.no_grad()
def augment(
    images: Tensor,
    target: Tensor,
    settings: AugmentationParams,
    samples: Sequence[tuple[int, int, int]],
) -> tuple[Tensor, Tensor, Tensor]:
    """Change each chip of a batch at random, its images and its target together.

    Args:
        images: Normalised bands, (B, T, C, H, W) float32, H = W; not modified.
        target: AGBM, (B, H, W), t/ha; NaN = no target; not modified.
        settings: Section `augmentation` of params.yaml.
        samples: Seed, epoch and chip index of each chip.

    Returns:
        Images and target, as given, and `ignored`: the months that the model shall ignore, (B, T)
        bool, on the CPU, where the model looks up which months to encode without waiting for a
        GPU.
    """
    changes = [draw_changes(settings, sample, images.shape[1]) for sample in samples]
    if settings.symmetries:
        sources = symmetries.source_pixels(
            [change.symmetry for change in changes], images.shape[-1]
        )
        sources = send(sources, images.device)
        images = symmetries.take_pixels(images, sources)
        target = symmetries.take_pixels(target, sources)
    rotated = [index for index, change in enumerate(changes) if change.is_rotated]
    if rotated:
        rows = send(torch.tensor(rotated), images.device)
        turns = send(_describe_turns([changes[index] for index in rotated]), images.device)
        grid = _turn_grid(turns, images.shape[-1])
        images = images.index_copy(0, rows, rotate_images(images[rows], grid))
        target = target.index_copy(0, rows, rotate_target(target[rows], grid))
    return images, target, torch.from_numpy(np.stack([change.lost for change in changes]))


def rotate_images(images: Tensor, grid: Tensor) -> Tensor:
    """Interpolate images, (B, T, C, H, W), at a grid, (B, H, W, 2).

    Beyond the border the image is mirrored about the centres of its outermost pixels.
    """
    folded = images.flatten(1, 2)  # (B, T, C, H, W) -> (B, T*C, H, W)
    return _interpolate(folded, grid).reshape(images.shape)


def rotate_target(target: Tensor, grid: Tensor) -> Tensor:
    """Interpolate a target, (B, H, W); a pixel that any NaN would contribute to is NaN."""
    missing = target.isnan()
    layers = torch.stack([torch.where(missing, 0.0, target), missing.to(target.dtype)], dim=1)
    values, share_missing = _interpolate(layers, grid).unbind(1)
    return torch.where(share_missing > TOUCHED, torch.nan, values)


def _describe_turns(changes: Sequence[Changes]) -> Tensor:
    """Return cosine, sine, and the centre's x and y in sides, (B, 4) float64."""
    angles = np.radians([change.angle_degrees for change in changes])
    centres = np.array([change.centre for change in changes])
    return torch.from_numpy(np.column_stack([np.cos(angles), np.sin(angles), centres]))


def _turn_grid(turns: Tensor, size: int) -> Tensor:
    """Return where each pixel comes from, (B, size, size, 2): x and y.

    -1 and 1 are the centres of the outermost pixels.

    Without a matrix product, which a GPU may round to ten bits (TF32): tenths of a pixel.
    """
    cos, sin, centre_x, centre_y = turns[:, :, None, None].unbind(1)
    side = 2 * size / (size - 1)
    centre_x, centre_y = side * centre_x, side * centre_y
    pixel = torch.linspace(-1, 1, size, dtype=turns.dtype, device=turns.device)
    x, y = pixel[None, None, :] - centre_x, pixel[None, :, None] - centre_y
    sources = [cos * x - sin * y + centre_x, sin * x + cos * y + centre_y]
    return torch.stack(sources, dim=-1).float()


def _interpolate(layers: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(
        layers, grid, mode="bilinear", padding_mode="reflection", align_corners=True
    )
