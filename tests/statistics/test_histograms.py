from pathlib import Path

import numpy as np
import pytest

from biomassters.statistics.histograms import Histogram, read_histograms, write_histograms

# One pixel of 1, two of 2, none of 3, one of 6; one pixel has no value.
FOUR = Histogram(np.array([1.0, 2, 3, 6]), np.array([1, 2, 0, 1]), nodata=1)
NONE = Histogram(np.array([1.0, 2]), np.array([0, 0]), nodata=3)


def test_figures_of_four_pixels() -> None:
    figures = FOUR.summarise()
    assert (figures.pixels, figures.nodata_share) == (4, 0.2)
    assert (figures.minimum, figures.maximum, figures.mean) == (1, 6, 2.75)
    assert figures.standard_deviation == pytest.approx(np.std([1, 2, 2, 6]))
    assert figures.percentiles["50"] == 2


@pytest.mark.parametrize("q", [0, 10, 25, 50, 70, 99.9, 100])
def test_percentile_equals_numpys(q: float) -> None:
    assert FOUR.percentile(q) == pytest.approx(np.percentile([1, 2, 2, 6], q))


def test_pixels_without_values_have_neither_figures_nor_bins() -> None:
    figures = NONE.summarise()
    assert (figures.pixels, figures.nodata_share, figures.mean) == (0, 1.0, None)
    assert NONE.share_by_bin() == []


def test_reading_undoes_writing_but_for_six_digits(tmp_path: Path) -> None:
    path = tmp_path / "metrics" / "histograms.csv"
    write_histograms(path, {"B2": FOUR, "B3": NONE, "AGBM": FOUR})
    read = read_histograms(path)
    assert list(read) == ["B2", "AGBM"], "a band without data has no rows"
    np.testing.assert_allclose(read["AGBM"], FOUR.share_by_bin(), rtol=1e-5)


def test_table_has_a_row_a_bin(tmp_path: Path) -> None:
    write_histograms(tmp_path / "histograms.csv", {"B2": FOUR})
    header, first, *others = (tmp_path / "histograms.csv").read_bytes().split(b"\n")
    assert header == b"band,value,share"
    assert first.startswith(b"B2,")
    assert first.endswith(b",0.25")
    assert len(others) == 63 + 1, "64 bins, and nothing behind the last line"
