"""Stage `fetch`: bring the store of a split's chips up to date with the catalogue in data/."""

import argparse
from pathlib import Path

from biomassters.audit.report import write_audit
from biomassters.dataset.catalogue import read_catalogue
from biomassters.dataset.files import SPLITS
from biomassters.dataset.subsets import select_subset
from biomassters.packing.assembly import pack_split
from biomassters.params.reading import read_params
from biomassters.params.sections import DataParams, Section
from biomassters.processes.parents import end_with_dvc
from biomassters.processes.scripts import run_script, scratch_folder
from biomassters.processes.worker_count import count_cores, count_workers
from biomassters.sources.opening import open_source
from biomassters.store.chips import ChipStore


class Params(Section):
    """What this stage reads of params.yaml."""

    data: DataParams


def main() -> None:
    """Fetch what the store lacks, replace the store, and write its audit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("split", choices=SPLITS)
    split = parser.parse_args().split
    end_with_dvc()
    params = read_params(Params)
    store = Path("chips") / f"{split}.zarr"
    n_workers = count_workers(default=count_cores())
    report = pack_split(
        select_subset(read_catalogue(Path("data")), split, params.data.subset),
        open_source(params.data, max(1, n_workers)),
        store,
        scratch_folder(f"fetch/{split}"),
        chip_size=params.data.chip_size,
        n_workers=n_workers,
        on_bad_chip=params.data.on_bad_chip,
    )
    write_audit(Path("metrics/fetch"), split, ChipStore.open(store), report.bad_files)
    print(f"{split}: {report}")


if __name__ == "__main__":
    run_script(main)
