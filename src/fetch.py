"""Stage `fetch`: bring the store of a split's chips up to date with the catalogue in data/."""

import argparse
import json
from pathlib import Path

from biomassters.catalogue import SPLITS, read_catalogue
from biomassters.data_source import open_source
from biomassters.doors import run_door, scratch_folder
from biomassters.packing import pack_split
from biomassters.params.data import DataParams
from biomassters.params.reading import read_params
from biomassters.params.section import Section


class Params(Section):
    """What this stage reads of params.yaml."""

    data: DataParams


def main() -> None:
    """Fetch what the store lacks, replace the store, and write its audit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("split", choices=SPLITS)
    split = parser.parse_args().split
    params = read_params(Params)
    report = pack_split(
        read_catalogue(Path("data")).chips(split),
        open_source(params.data, 1),
        Path("chips") / f"{split}.zarr",
        scratch_folder(f"fetch/{split}"),
        chip_size=params.data.chip_size,
    )
    audit = Path("metrics/fetch") / f"{split}.json"
    audit.parent.mkdir(parents=True, exist_ok=True)
    audit.write_text(json.dumps(report.audit, indent=2) + "\n", encoding="utf-8")
    print(
        f"{split}: {report.fetched} chips fetched, {report.resumed} taken from an unfinished run,"
        f" {report.reused} unchanged"
    )


if __name__ == "__main__":
    run_door(main)
