"""How often each value occurs: its figures, and the table of bins in histograms.csv."""

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biomassters.processes.writing import write_whole
from biomassters.statistics.figures import Figures

PERCENTILES: Final = (0.1, 1.0, 2.0, 50.0, 98.0, 99.0, 99.9)
_HISTOGRAM_BINS: Final = 64


class Histogram(NamedTuple):
    """How often each value occurs.

    Attributes:
        values: (n,) float64, rising.
        counts: (n,) int64.
        nodata: Pixels that have no value.
    """

    values: NDArray[np.float64]
    counts: NDArray[np.int64]
    nodata: int

    def summarise(self) -> Figures:
        """Return the figures of the values."""
        pixels = int(self.counts.sum())
        share = self.nodata / max(pixels + self.nodata, 1)
        if not pixels:
            return Figures(
                pixels=0,
                nodata_share=share,
                minimum=None,
                maximum=None,
                mean=None,
                standard_deviation=None,
                percentiles={},
            )
        occurring = self.values[self.counts > 0]
        mean = math.fsum(self.values * self.counts) / pixels
        variance = math.fsum((self.values - mean) ** 2 * self.counts) / pixels
        return Figures(
            pixels=pixels,
            nodata_share=share,
            minimum=float(occurring[0]),
            maximum=float(occurring[-1]),
            mean=mean,
            standard_deviation=math.sqrt(variance),
            percentiles={f"{q:g}": self.percentile(q) for q in PERCENTILES},
        )

    def percentile(self, q: float) -> float:
        """Return the q-th percentile, 0...100; equals numpy's of all values."""
        cumulative = np.cumsum(self.counts)
        rank = q / 100 * (int(cumulative[-1]) - 1)
        below, above = np.searchsorted(cumulative, [math.floor(rank), math.ceil(rank)], "right")
        low, high = float(self.values[below]), float(self.values[above])
        return low + (high - low) * (rank - math.floor(rank))

    def share_by_bin(self) -> list[tuple[float, float]]:
        """Return centre and share of equal bins from the 0.1st to the 99.9th percentile.

        What lies beyond counts in the first and the last bin, so that the shares add to 1.
        """
        if not self.counts.any():
            return []
        low, high = self.percentile(0.1), self.percentile(99.9)
        width = (high - low) / _HISTOGRAM_BINS or 1.0
        bins = np.clip((self.values - low) // width, 0, _HISTOGRAM_BINS - 1).astype(int)
        counts = np.bincount(bins, self.counts, minlength=_HISTOGRAM_BINS)
        centres = low + (np.arange(_HISTOGRAM_BINS) + 0.5) * width
        return list(zip(centres.tolist(), (counts / counts.sum()).tolist(), strict=True))


def write_histograms(path: Path, histograms: Mapping[str, Histogram]) -> None:
    """Write the bins of each band as CSV, whole or not at all.

    A row has the band's name, the middle of a bin, and the share in it.

    Args:
        path: The file; its folder is made if absent.
        histograms: By name of the band.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["band", "value", "share"])
    for name, histogram in histograms.items():
        for value, share in histogram.share_by_bin():
            writer.writerow([name, f"{value:.6g}", f"{share:.6g}"])
    write_whole(path, text.getvalue().encode())


def read_histograms(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Read what `write_histograms` wrote: middles of the bins and shares in them, by band."""
    histograms: dict[str, list[tuple[float, float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            bins = histograms.setdefault(row["band"], [])
            bins.append((float(row["value"]), float(row["share"])))
    return histograms
