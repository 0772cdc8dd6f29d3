import math
import tarfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from example_statistics import describe_bands
from rasterio.io import MemoryFile
from torch import Tensor

from biomassters.errors import ModelError
from biomassters.model.normalisation import BandNormalisation, fill_absent_months
from biomassters.store.chips import Chip
from biomassters.store.cleaning import clean_chip


def make_chip() -> tuple[Tensor, Tensor, Tensor]:
    s1 = torch.full((1, 12, 4, 2, 2), -1100, dtype=torch.int16)  # -11 dB
    s2 = torch.full((1, 12, 11, 2, 2), 2000, dtype=torch.int32)
    s2[:, :, 10] = 36
    return s1, s2.to(torch.uint16), torch.ones(1, 12, dtype=torch.bool)


@pytest.mark.parametrize(
    ("name", "vv", "b2", "clp"),
    [
        ("minmax", 14 / 54, 2000 / 19616, 36 / 255),
        ("zscore", 0.0, 1.0, 1.0),
        ("percentile", 9 / 16, 1900 / 8000, 0.36),
    ],
)
def test_each_normalisation_by_hand(name: str, vv: float, b2: float, clp: float) -> None:
    images = BandNormalisation.from_statistics(name, describe_bands())(*make_chip())
    assert images.dtype == torch.float32
    assert images.shape == (1, 12, 15, 2, 2)
    got = images[0, 6, [0, 4, 14], 1, 1].tolist()
    assert got == pytest.approx([vv, b2, clp], abs=1e-6)


@pytest.mark.parametrize("name", ["minmax", "zscore", "percentile"])
def test_nodata_and_absent_months_are_zero(name: str) -> None:
    s1, s2, s2_present = make_chip()
    s1[0, 3, 2:] = -32768  # the descending orbit of a month
    s1[0, 5, 0, 1, 1] = -32768
    s2_present[0, 7] = False
    images = BandNormalisation.from_statistics(name, describe_bands())(s1, s2, s2_present)
    assert (images[0, 3, 2:4] == 0).all()
    assert images[0, 5, 0, 1, 1] == 0
    assert (images[0, 7, 4:] == 0).all()
    complete = BandNormalisation.from_statistics(name, describe_bands())(*make_chip())
    kept = images != 0
    assert torch.equal(images[kept], complete[kept])
    assert (images[0, 7, :4] == complete[0, 7, :4]).all()


def test_absent_month_is_zero_whatever_its_pixels_hold() -> None:
    s1, s2, s2_present = make_chip()
    images = BandNormalisation.from_statistics("zscore", describe_bands())(s1, s2, ~s2_present)
    assert (images[:, :, 4:] == 0).all()


def test_nodata_of_a_band_is_zero_and_spares_the_others() -> None:
    s1, s2, s2_present = make_chip()
    pixels = s2.to(torch.int32)
    pixels[0, 2, 10, 0, 0] = 65535  # without a cloud probability
    pixels[0, 3, :, 0, 0] = 65535
    pixels[0, 3, :, 1, 1] = 0  # dark, and measured
    images = BandNormalisation.from_statistics("zscore", describe_bands())(
        s1, pixels.to(torch.uint16), s2_present
    )
    assert images[0, 2, 4:, 0, 0].tolist() == pytest.approx([1.0] * 10 + [0])
    assert (images[0, 3, 4:, 0, 0] == 0).all()
    assert images[0, 3, 4:, 1, 1].tolist() == pytest.approx([-3.0] * 10 + [-0.5])


@pytest.mark.parametrize("name", ["minmax", "zscore", "percentile"])
def test_months_one_by_one_are_the_batch_at_once_to_the_byte(name: str) -> None:
    """What a GPU does at once, done by a CPU, and what a CPU does."""
    random = np.random.default_rng(0)
    s1 = torch.from_numpy(random.integers(-4000, 0, (2, 12, 4, 8, 8)).astype(np.int16))
    s2 = torch.from_numpy(random.integers(0, 20000, (2, 12, 11, 8, 8)).astype(np.uint16))
    s1[random.random(s1.shape) < 0.2] = -32768
    s2.view(torch.int16)[torch.from_numpy(random.random(s2.shape) < 0.2)] = -1
    present = torch.from_numpy(random.random((2, 12)) < 0.7)
    normalisation = BandNormalisation.from_statistics(name, describe_bands())
    one_by_one = normalisation(s1, s2, present)
    assert (one_by_one == 0).float().mean() > 0.3
    assert torch.equal(one_by_one, normalisation._normalise_at_once(s1, s2, present))


def test_values_beyond_the_range_are_not_clipped() -> None:
    s1, s2, s2_present = make_chip()
    s1[0, 0, 0] = -3040
    images = BandNormalisation.from_statistics("minmax", describe_bands())(s1, s2, s2_present)
    assert images[0, 0, 0, 0, 0].item() == pytest.approx(-5.4 / 54)


def test_band_without_spread_becomes_zero() -> None:
    statistics = describe_bands(maximum=(-25.0, *describe_bands().maximum[1:]))
    images = BandNormalisation.from_statistics("minmax", statistics)(*make_chip())
    assert (images[:, :, 0] == 0).all()
    assert (images[:, :, 1] != 0).all()


@pytest.mark.parametrize(("name", "field"), [("zscore", "mean"), ("percentile", "p99")])
def test_unknown_statistic_is_refused(name: str, field: str) -> None:
    with pytest.raises(ModelError, match=rf"expected the {field} of 15 bands .* got 0"):
        BandNormalisation.from_statistics(name, describe_bands(**{field: None}))


def test_statistic_of_too_few_bands_is_refused() -> None:
    with pytest.raises(ModelError, match=r"expected the mean of 15 bands .* got 11"):
        BandNormalisation.from_statistics("zscore", describe_bands(mean=(1.0,) * 11))


@pytest.mark.parametrize(
    ("present", "sources"),
    [
        ("xxxxxxxxxxxx", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ("xx...xxxxxxx", [0, 1, 1, 1, 5, 5, 6, 7, 8, 9, 10, 11]),  # of 1 and 5, to 3, the earlier
        (".....x......", [5] * 12),
        ("..x.......x.", [2, 2, 2, 2, 2, 2, 2, 10, 10, 10, 10, 10]),  # the year is no circle
    ],
)
def test_absent_month_gets_the_nearest_months_images(present: str, sources: list[int]) -> None:
    s2 = torch.arange(40_000, 40_012, dtype=torch.int32).to(torch.uint16)
    s2 = s2[None, :, None, None, None].expand(2, 12, 11, 2, 2).contiguous()
    months = torch.tensor([[letter == "x" for letter in present]] * 2)
    filled, has_images = fill_absent_months(s2, months)
    assert filled.dtype == torch.uint16
    assert filled[1, :, 10, 0, 1].to(torch.int32).tolist() == [40_000 + month for month in sources]
    assert has_images.all()


def test_chip_without_any_s2_stays_without() -> None:
    s1, s2, present = make_chip()
    filled, has_images = fill_absent_months(s2, torch.zeros_like(present))
    assert not has_images.any()
    images = BandNormalisation.from_statistics("zscore", describe_bands())(s1, filled, has_images)
    assert (images[:, :, 4:] == 0).all()


@pytest.fixture(scope="module")
def real_chip(shared_folder: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Chip 288afc34 as a store keeps it: backscatter in 0.01 dB."""
    with tarfile.open(shared_folder / "real-chips" / "288afc34.tar.xz") as archive:
        files = {
            Path(member.name).name: archive.extractfile(member).read()
            for member in archive
            if member.isfile()
        }
    s1 = np.stack([read_tiff(files[f"288afc34_S1_{month:02}.tif"]) for month in range(12)])
    s2 = np.stack([read_tiff(files[f"288afc34_S2_{month:02}.tif"]) for month in range(12)])
    stored = np.where(s1 == -9999, -32768, np.rint(s1 * 100)).astype(np.int16)
    return (
        torch.from_numpy(stored)[None],
        torch.from_numpy(s2)[None],
        torch.ones(1, 12, dtype=torch.bool),
    )


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def read_tiff(data: bytes) -> np.ndarray:
    with rasterio.Env(), MemoryFile(data) as file, file.open() as dataset:
        return dataset.read()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_real_chip_is_normalised_as_the_winner_does(
    real_chip: tuple[Tensor, Tensor, Tensor], shared_folder: Path
) -> None:
    golden = np.load(shared_folder / "golden" / "normalised_288afc34.npz")
    images = BandNormalisation.from_statistics("minmax", describe_bands())(*real_chip)[0].numpy()
    got = images[tuple(golden["index"].T)]
    np.testing.assert_allclose(got, golden["value"], rtol=0, atol=1e-4)
    means = images.mean(axis=(2, 3), dtype=np.float64)
    np.testing.assert_allclose(means, golden["month_band_mean"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(means.mean(0), golden["band_mean"], rtol=0, atol=1e-4)
    assert not math.isclose(means[11, 2], 0)
    assert (means[:11, 2:4] == 0).all()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_cleaning_as_the_winner_does_leaves_his_normalised_chip_as_it_is(
    real_chip: tuple[Tensor, Tensor, Tensor], shared_folder: Path
) -> None:
    golden = np.load(shared_folder / "golden" / "normalised_288afc34.npz")
    s1, s2, present = (tensor[0].numpy() for tensor in real_chip)
    chip = clean_chip(Chip("288afc34", s1, s2, present, None), "winner")
    arrays = (torch.from_numpy(array)[None] for array in (chip.s1, chip.s2, present))
    images = BandNormalisation.from_statistics("minmax", describe_bands())(*arrays)[0].numpy()
    got = images[tuple(golden["index"].T)]
    np.testing.assert_allclose(got, golden["value"], rtol=0, atol=1e-4)
    means = images.mean(axis=(2, 3), dtype=np.float64)
    np.testing.assert_allclose(means, golden["month_band_mean"], rtol=0, atol=2e-5)
