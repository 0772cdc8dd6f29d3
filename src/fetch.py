"""Stage `fetch`: bring the store of a split's chips up to date with the catalogue in data/."""

import argparse
from pathlib import Path

from biomassters.audit.report import write_audit
from biomassters.dataset.catalogue import read_catalogue
from biomassters.dataset.files import SPLITS, Split
from biomassters.dataset.subsets import select_subset
from biomassters.fingerprint.stage_inputs import hold_inputs
from biomassters.packing.assembly import pack_split
from biomassters.params.reading import read_params
from biomassters.params.sections import DataParams, Section
from biomassters.processes.counts import count_cores, count_workers
from biomassters.processes.ending import end_with_dvc, run_script
from biomassters.processes.scratch import scratch_folder
from biomassters.sources.opening import open_source
from biomassters.store.chips import ChipStore


class Params(Section):
    """What this stage reads of params.yaml."""

    data: DataParams


def main() -> None:
    """Fetch what the store of the command line's split lacks, and write its audit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("split", choices=SPLITS)
    split = parser.parse_args().split
    end_with_dvc()
    with hold_inputs(__file__, split=split):
        fetch_split(split, read_params(Params))


def fetch_split(split: Split, params: Params) -> None:
    """Fetch a split and write what this stage hands over."""
    store = Path("chips") / f"{split}.zarr"
    n_workers = count_workers(default=count_cores())
    chips = select_subset(read_catalogue(Path("data")), split, params.data.subset)
    report = pack_split(
        chips,
        open_source(params.data, max(1, n_workers)),
        store,
        scratch_folder(f"fetch/{split}"),
        chip_size=params.data.chip_size,
        n_workers=n_workers,
        on_bad_chip=params.data.on_bad_chip,
    )
    write_audit(Path("metrics/fetch"), split, ChipStore.open(store), report.bad_files)
    print(f"{split}: {report if chips else f'no {split} chips, nothing to fetch'}")


if __name__ == "__main__":
    run_script(main)
