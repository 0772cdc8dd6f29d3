from pathlib import Path

import numpy as np
import pytest
from example_chips import simulate_records

from biomassters.errors import StoreError
from biomassters.packing.assembly import pack_split
from biomassters.sources.synthetic_source import SyntheticSource
from biomassters.statistics.counting import TARGET, Counts, count_pixels, summarise_counts
from biomassters.store.bands import BANDS
from biomassters.store.chips import Chip, ChipStore

QS = (0.1, 1, 2, 50, 98, 99, 99.9)


def make_chip(chip_id: str, seed: int) -> Chip:
    """Random values of the real types and ranges; nodata, an absent month, missing targets."""
    random = np.random.default_rng(seed)
    s1 = random.integers(-6000, 1300, (12, 4, 32, 32)).astype(np.int16)
    s1[3, 2:] = -32768
    s2 = random.integers(0, 20_000, (12, 11, 32, 32)).astype(np.uint16)
    s2[:, 10] = random.integers(0, 101, (12, 32, 32))
    s2[5, 10, :4] = 65535  # measured reflectance without cloud probability
    s2[6, :, :7] = 65535  # nodata in all bands
    s2[8, 3, 9] = 65535  # and in one alone
    s2[7, :10, 0, 0] = 0  # a dark pixel with a cloud probability is data
    present = np.arange(12) != seed
    s2[~present] = 0
    agbm = random.gamma(1, 60, (32, 32)).astype(np.float32)
    agbm[0, :5] = np.nan
    return Chip(chip_id, s1, s2, present, agbm)


CHIPS = [make_chip("aa", 0), make_chip("bb", 1)]


def count(chips: list[Chip]) -> Counts:
    counts = Counts()
    for chip in chips:
        counts.add(chip)
    return counts


def band_values(band: int) -> np.ndarray:
    """All values of a band that are data, by masks."""
    if band < 4:
        s1 = np.stack([chip.s1[:, band] for chip in CHIPS])
        return s1[s1 != -32768] * 0.01
    s2 = np.concatenate([chip.s2[chip.s2_present] for chip in CHIPS])
    values = s2[:, band - 4]
    return values[values != 65535].astype(float)


@pytest.mark.parametrize("band", range(15))
def test_figures_equal_numpys_over_the_whole(band: int) -> None:
    figures = summarise_counts(count(CHIPS), "computed").bands[BANDS[band]]
    values = band_values(band)
    assert figures.pixels == values.size
    assert figures.nodata_share == pytest.approx(1 - values.size / (2 * 12 * 32 * 32))
    assert figures.minimum == pytest.approx(values.min(), rel=1e-9)
    assert figures.maximum == pytest.approx(values.max(), rel=1e-9)
    assert figures.mean == pytest.approx(values.mean(), rel=1e-9)
    assert figures.standard_deviation == pytest.approx(values.std(), rel=1e-9)
    assert list(figures.percentiles.values()) == pytest.approx(np.percentile(values, QS), rel=1e-9)


def test_target_figures_equal_numpys_without_missing_targets() -> None:
    target = summarise_counts(count(CHIPS), "computed").target
    values = np.concatenate([chip.agbm[~np.isnan(chip.agbm)] for chip in CHIPS]).astype(float)
    assert target.pixels == values.size == 2 * (32 * 32 - 5)
    assert target.nodata_share == pytest.approx(5 / (32 * 32))
    assert (target.minimum, target.maximum) == (values.min(), values.max())
    assert target.mean == pytest.approx(values.mean(), rel=1e-12)
    assert target.standard_deviation == pytest.approx(values.std(), rel=1e-9)
    percentiles = list(target.percentiles.values())
    np.testing.assert_allclose(percentiles, np.percentile(values, QS), atol=0.0051)


def test_normalisation_is_that_of_the_bands() -> None:
    statistics = summarise_counts(count(CHIPS), "computed")
    normalisation = statistics.normalisation
    assert (normalisation.source, normalisation.bands) == ("computed", BANDS)
    assert normalisation.p99 is not None
    for band, minimum, p99 in zip(BANDS, normalisation.minimum, normalisation.p99, strict=True):
        figures = statistics.bands[band]
        assert (minimum, p99) == (figures.minimum, figures.percentiles["99"])


def test_published_normalisation_is_the_winners() -> None:
    statistics = summarise_counts(count(CHIPS), "published")
    normalisation = statistics.normalisation
    assert normalisation.minimum[:5] == (-25, -62, -25, -60, 0)
    assert (normalisation.maximum[0], normalisation.maximum[4]) == (29, 19616)
    assert normalisation.maximum[-2:] == (15226, 255)
    assert normalisation.mean is normalisation.p1 is None
    assert statistics.bands["B2"] == summarise_counts(count(CHIPS), "computed").bands["B2"]


def test_band_without_data_has_no_normalisation_but_the_published() -> None:
    chip = CHIPS[0]._replace(s1=CHIPS[0].s1.copy())
    chip.s1[:, 2:] = -32768
    with pytest.raises(StoreError, match=r"VV descending .*got None in 0 pixels.*to published"):
        summarise_counts(count([chip]), "computed")
    figures = summarise_counts(count([chip]), "published").bands["VV descending"]
    assert (figures.pixels, figures.nodata_share, figures.mean) == (0, 1.0, None)


def test_chips_without_any_target_are_refused() -> None:
    with pytest.raises(StoreError, match="expected targets of the train chips, got none"):
        summarise_counts(count([CHIPS[0]._replace(agbm=None)]), "computed")


def test_histogram_shares_add_to_one_and_peak_where_the_values_are() -> None:
    histograms = count(CHIPS).histograms()
    assert list(histograms) == [*BANDS, TARGET]
    for histogram in histograms.values():
        assert sum(share for _, share in histogram.share_by_bin()) == pytest.approx(1)
    bins = histograms[TARGET].share_by_bin()
    assert len(bins) == 64
    assert bins[0][1] > bins[20][1] > bins[40][1]


def test_order_of_chips_does_not_matter() -> None:
    assert summarise_counts(count(CHIPS), "computed") == summarise_counts(
        count(CHIPS[::-1]), "computed"
    )


def test_all_chips_of_a_store_are_counted(tmp_path: Path) -> None:
    chips = simulate_records("5eed0001", "5eed0002")
    path = tmp_path / "train.zarr"
    pack_split(chips, SyntheticSource(32), path, tmp_path / "scratch", chip_size=32)
    store = ChipStore.open(path)
    target = summarise_counts(count_pixels(store), "computed").target
    assert target.pixels == 2 * 32 * 32
    assert target.mean == pytest.approx(store.agbm_mean.mean(), rel=1e-12)
