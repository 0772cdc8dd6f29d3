import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from biomassters.batches import symmetries
from biomassters.batches.order import EpochOrder
from biomassters.params.sections import AugmentationParams
from biomassters.training.augmentation import (
    CENTRE_JITTER,
    Changes,
    PixelSources,
    _turn_grid,
    augment,
    draw_changes,
    rotate_images,
    rotate_target,
)

NOTHING = AugmentationParams(
    symmetries=False, rotation_p=0, rotation_degrees=45, month_dropout_p=0, month_dropout_rate=0.3
)
ROTATION = NOTHING.model_copy(update={"rotation_p": 1.0})
EVERYTHING = AugmentationParams(
    symmetries=True,
    rotation_p=0.7,
    rotation_degrees=45,
    month_dropout_p=0.5,
    month_dropout_rate=0.3,
)


def make_batch(n_chips: int, size: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(n_chips, 12, 3, size, size, generator=generator)
    return images, 100 * torch.rand(n_chips, size, size, generator=generator)


def samples(*indices: int) -> list[tuple[int, int, int]]:
    return [(314159, 2, index) for index in indices]


def draw(settings: AugmentationParams, *indices: int) -> list[Changes]:
    return [draw_changes(settings, sample, 12) for sample in samples(*indices)]


def draw_many(settings: AugmentationParams, n: int = 4000) -> list:
    return [draw_changes(settings, (0, 0, index), 12) for index in range(n)]


def rotate_with_scipy(image: np.ndarray, degrees: float, centre: tuple[float, float]) -> np.ndarray:
    """Turn counterclockwise about a centre (x, y from the middle, in sides), as scipy does."""
    size = len(image)
    angle = np.radians(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    pivot = (size - 1) / 2 + size * np.array(centre[::-1])  # row, column
    return ndimage.affine_transform(
        image.astype(np.float64), matrix, pivot - matrix @ pivot, order=1, mode="mirror"
    )


def test_nothing_switched_on_changes_nothing() -> None:
    images, target = make_batch(2)
    target[0, 3, 4] = torch.nan
    changed, changed_target = augment(images, target, draw(NOTHING, 0, 1))
    assert torch.equal(changed, images)
    torch.testing.assert_close(changed_target, target, rtol=0, atol=0, equal_nan=True)


def test_symmetries_are_exact_and_turn_the_target_alike() -> None:
    images, target = make_batch(16)
    settings = NOTHING.model_copy(update={"symmetries": True})
    changed, changed_target = augment(images, target, draw(settings, *range(16)))
    drawn = [draw_changes(settings, sample, 12).symmetry for sample in samples(*range(16))]
    assert len(set(drawn)) > 4
    for chip, symmetry in enumerate(drawn):
        assert torch.equal(changed[chip], symmetries.apply(images[chip], symmetry))
        assert torch.equal(changed_target[chip], symmetries.apply(target[chip], symmetry))


def test_rotation_is_that_of_scipy_with_a_mirrored_border() -> None:
    images, target = make_batch(4)
    changed, changed_target = augment(images, target, draw(ROTATION, *range(4)))
    for chip, sample in enumerate(samples(*range(4))):
        drawn = draw_changes(ROTATION, sample, 12)
        for got, source in [
            (changed[chip, 5, 1], images[chip, 5, 1]),
            (changed_target[chip] / 100, target[chip] / 100),
        ]:
            expected = rotate_with_scipy(source.numpy(), drawn.angle_degrees, drawn.centre)
            np.testing.assert_allclose(got.numpy(), expected, atol=2e-5)


def test_a_positive_angle_turns_counterclockwise() -> None:
    image = np.zeros((33, 33))
    image[16, 30] = 1  # in the east
    turned = rotate_with_scipy(image, 90, (0, 0))
    assert np.unravel_index(turned.argmax(), turned.shape) == (2, 16)  # in the north


def test_images_and_target_turn_together() -> None:
    images, _ = make_batch(8)
    images[:] = images[:, :1, :1]
    changed, changed_target = augment(images, images[:, 0, 0], draw(EVERYTHING, *range(8)))
    torch.testing.assert_close(changed[:, 7, 2], changed_target)


def test_nan_spreads_over_its_interpolation_footprint_and_no_further() -> None:
    images, target = make_batch(4)
    missing = torch.zeros_like(target)
    missing[:, 10:14, 8] = 1
    changes = draw(ROTATION, *range(4))
    _, turned = augment(images, target.where(missing == 0, torch.nan), changes)
    _, complete = augment(images, target, changes)
    _, share = augment(images, missing, changes)
    assert share.max() > 0.5
    assert turned[share > 2e-4].isnan().all()
    assert torch.equal(turned[share < 5e-5], complete[share < 5e-5])


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_rotation_by_quarter_turns_is_the_symmetry_of_that_number(quarters: int) -> None:
    images, target = make_batch(1)
    turn = Changes(
        symmetry=0,
        is_rotated=True,
        angle_degrees=90.0 * quarters,
        centre=(0.0, 0.0),
        lost=np.zeros(12, bool),
    )
    grid = _turn_grid([turn], 32, torch.device("cpu"))
    torch.testing.assert_close(
        rotate_images(images, grid), symmetries.apply(images, quarters), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        rotate_target(target, grid), symmetries.apply(target, quarters), atol=1e-2, rtol=0
    )


def test_chips_that_are_not_rotated_stay_bit_exact() -> None:
    images, target = make_batch(12)
    settings = NOTHING.model_copy(update={"rotation_p": 0.5})
    changed, changed_target = augment(images, target, draw(settings, *range(12)))
    rotated = [draw_changes(settings, sample, 12).is_rotated for sample in samples(*range(12))]
    assert 0 < sum(rotated) < 12
    for chip, is_rotated in enumerate(rotated):
        assert torch.equal(changed[chip], images[chip]) is not is_rotated
        assert torch.equal(changed_target[chip], target[chip]) is not is_rotated


@pytest.mark.parametrize("degrees", [45.0, 180.0])
def test_pixels_fetched_with_all_bands_are_those_of_the_batch(degrees: float) -> None:
    settings = EVERYTHING.model_copy(update={"rotation_degrees": degrees})
    images, target = make_batch(16)
    changes = draw(settings, *range(16))
    expected, _ = augment(images, target, changes)
    fetched = images.clone()
    for chip, change in enumerate(changes):
        sources = PixelSources.find(change, 32)
        for month in range(12):
            image = images[chip, month].permute(1, 2, 0).contiguous().numpy()
            if sources is not None:
                sources.take(image, fetched[chip, month].permute(1, 2, 0).numpy())
    rotated = torch.tensor([change.is_rotated for change in changes])
    assert 0 < rotated.sum() < 16
    assert torch.equal(fetched[~rotated], expected[~rotated])
    torch.testing.assert_close(fetched, expected, rtol=0, atol=1e-6)


def test_inputs_are_not_modified() -> None:
    images, target = make_batch(4)
    before = images.clone(), target.clone()
    augment(images, target, draw(EVERYTHING, *range(4)))
    assert torch.equal(images, before[0])
    assert torch.equal(target, before[1])


@pytest.mark.parametrize("size", [2, 4])
def test_chips_change_alike_on_any_number_of_processes(size: int) -> None:
    images, target = make_batch(8)

    def change(rank: int, size: int) -> dict[int, tuple[Tensor, ...]]:
        order = EpochOrder(range(8), batch_size=8, micro_batch_size=4, seed=5, rank=rank, size=size)
        return {
            index: chip
            for batch in order
            for index, *chip in zip(
                batch,
                *augment(images[batch], target[batch], draw(EVERYTHING, *batch)),
                strict=True,
            )
        }

    alone = change(0, 1)
    shares = [change(rank, size) for rank in range(size)]
    assert sorted(index for share in shares for index in share) == list(range(8))
    for index, chip in (item for share in shares for item in share.items()):
        assert all(torch.equal(a, b) for a, b in zip(chip, alone[index], strict=True))


def test_draws_are_the_same_in_another_process_and_on_another_machine() -> None:
    """Numbers of a PCG64, whose stream numpy keeps; noted when this test was written."""
    [sample] = samples(1)
    drawn = draw_changes(EVERYTHING, sample, 12)
    assert (drawn.symmetry, drawn.is_rotated) == (1, True)
    assert drawn.angle_degrees == pytest.approx(31.110665670006185, rel=1e-12)
    assert drawn.centre == pytest.approx((-0.07867773734309086, 0.013771917029563), rel=1e-12)
    assert np.flatnonzero(drawn.lost).tolist() == [3, 10]


def test_a_chip_changes_alike_in_any_batch() -> None:
    images, target = make_batch(6)
    together = augment(images, target, draw(EVERYTHING, *range(6)))
    for chip in range(6):
        alone = augment(images[[chip]], target[[chip]], draw(EVERYTHING, chip))
        for got, expected in zip(alone, together, strict=True):
            assert torch.equal(got[0], expected[chip])


@pytest.mark.parametrize("sample", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_seed_epoch_and_chip_each_matter(sample: tuple[int, int, int]) -> None:
    first, other = (draw_changes(EVERYTHING, key, 12) for key in [(0, 0, 0), sample])
    assert first.angle_degrees != other.angle_degrees


def test_one_change_does_not_depend_on_whether_another_is_switched_on() -> None:
    for sample in samples(*range(20)):
        everything, rotation = (draw_changes(s, sample, 12) for s in (EVERYTHING, ROTATION))
        assert everything.angle_degrees == rotation.angle_degrees
        assert everything.centre == rotation.centre


def test_month_dropout_has_the_rates_of_its_settings() -> None:
    lost = np.array([changes.lost for changes in draw_many(EVERYTHING)])
    chips = lost[lost.any(1)]
    assert len(chips) / len(lost) == pytest.approx(0.5 * (1 - 0.7**12), abs=0.03)
    assert lost.mean(0) == pytest.approx(np.full(12, 0.15), abs=0.025)
    assert chips.mean() == pytest.approx(0.3, abs=0.02)


def test_a_chip_never_loses_all_months() -> None:
    settings = NOTHING.model_copy(update={"month_dropout_p": 1.0, "month_dropout_rate": 0.999})
    left = [np.flatnonzero(~changes.lost) for changes in draw_many(settings, 500)]
    assert min(map(len, left)) == 1
    assert len({months[0] for months in left}) == 12


def test_rotation_has_the_ranges_of_its_settings() -> None:
    drawn = draw_many(EVERYTHING)
    angles = np.array([changes.angle_degrees for changes in drawn])
    centres = np.array([changes.centre for changes in drawn])
    assert np.mean([changes.is_rotated for changes in drawn]) == pytest.approx(0.7, abs=0.03)
    assert (angles.min(), angles.max()) == pytest.approx((-45, 45), abs=0.2)
    assert (centres.min(), centres.max()) == pytest.approx(
        (-CENTRE_JITTER, CENTRE_JITTER), abs=0.01
    )
    assert np.bincount([changes.symmetry for changes in drawn]) == pytest.approx(500, abs=80)
