"""Stage `band_statistics`: what the train chips' values are, and what normalises the inputs."""

from pathlib import Path

from biomassters.fingerprint.stage_inputs import hold_inputs
from biomassters.params.reading import read_params
from biomassters.params.sections import CleaningName, Section, StatisticsParams
from biomassters.processes.ending import run_script
from biomassters.statistics.counting import count_pixels, summarise_counts
from biomassters.statistics.figures import write_no_statistics, write_statistics
from biomassters.statistics.histograms import write_histograms
from biomassters.store.cleaning import open_cleaned

STATISTICS = Path("statistics.json")
HISTOGRAMS = Path("metrics/band_statistics/histograms.csv")


class Params(Section):
    """What this stage reads of params.yaml."""

    cleaning: CleaningName
    statistics: StatisticsParams


def main() -> None:
    """Count all pixels of the train chips; write their statistics and histograms."""
    with hold_inputs(__file__):
        count_chips(read_params(Params))


def count_chips(params: Params) -> None:
    """Count the train chips and write what this stage hands over."""
    store = open_cleaned(Path("chips/train.zarr"), params.cleaning)
    if not len(store):
        print("no train chips, nothing to count")
        write_no_statistics(STATISTICS)
        write_histograms(HISTOGRAMS, {})
        return
    counts = count_pixels(store)
    write_statistics(STATISTICS, summarise_counts(counts, params.statistics.source))
    write_histograms(HISTOGRAMS, counts.histograms())


if __name__ == "__main__":
    run_script(main)
