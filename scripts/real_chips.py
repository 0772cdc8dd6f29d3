"""Run the whole pipeline on two real chips: `make real-chips` (about 3 minutes on 2 cores).

Both chips are train chips, for no official test chip is at hand. The test split is the same two
chips under other names, so its scores show the fit, while each fold's validation shows the skill
of a model that saw the other chip only.
"""

import argparse
import csv
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

from biomassters.dataset.catalogue import (
    ADDRESS_COLUMNS,
    FEATURES_FILE,
    read_catalogue,
    targets_file,
)
from biomassters.dataset.files import SPLITS, list_files
from biomassters.processes.environment import FOLDER_VARIABLE
from repository_copy import ROOT, commit_all, copy_environment, copy_repository, set_params

CHIPS = ROOT.parent / "shared" / "real-chips"
WORK = ROOT / "work" / "real-chips"
SEEN = "-seen"
"""Ends the name of a test chip that was trained on."""

PARAMS = {
    "folds": [0, 1],
    "data.source": "folder",
    "data.chip_size": 256,
    "split.n_folds": 2,
    "model.backbone": "mobilenetv3_small_050",
    "model.decoder_channels": [64, 48, 32, 24, 16],
    # An overfit is wanted: the same pixels each time, and no views that were not trained on.
    "augmentation.symmetries": False,
    "augmentation.month_dropout_p": 0.0,
    "optimisation.batch_size": 2,
    "optimisation.micro_batch_size": 2,
    "optimisation.weight_decay": 0.0,
    "train.epochs": 25,
    "train.validation_tta": "none",
    "train.validation_every": 5,
    "finetune.epochs": 50,
    "finetune.lr": 0.003,
    "finetune.weights": "last",
    "calibration.level": 0.5,  # two held-out chips tell no more
    "predict.tta": "none",
    "predict.batch_size": 1,
}


def main() -> None:
    """Make the dataset and a copy of the repository, run the pipeline there, show the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chips", type=Path, nargs="?", default=CHIPS, help="folder of the archives")
    chips = parser.parse_args().chips
    if not chips.is_dir():
        print(f"skipped: the two real chips are not here ({chips} is absent)")
        return
    started = time.monotonic()
    shutil.rmtree(WORK, ignore_errors=True)
    dataset, pipeline = WORK / "dataset", WORK / "pipeline"
    build_dataset(chips, dataset)
    prepare_pipeline(pipeline, dataset)
    run(pipeline, dataset, "dvc", "repro")
    print(f"\nsize and cksum verified: {count_verified(dataset)}")
    run(pipeline, dataset, "python", "-m", "biomassters", "summary")
    print(f"all of that under {pipeline.relative_to(ROOT)}/")
    print(f"`test` is the train chips again (*{SEEN}): it shows the fit, not skill.")
    print(
        "`validation` is the chip that the fold's model has not seen, after training on one chip."
    )
    print(f"time: {time.monotonic() - started:.0f} s")


def build_dataset(chips: Path, dataset: Path) -> None:
    """Extract the chips, and write catalogues in which they are train chips and test chips.

    Args:
        chips: Holds the archives and the official catalogue of their files.
        dataset: A new folder: files in the official layout, and catalogues.
    """
    for archive in sorted(chips.glob("*.tar.xz")):
        with tarfile.open(archive) as tar:
            tar.extractall(dataset, filter="data")
    features, train = (read_rows(chips / name) for name in (FEATURES_FILE, targets_file("train")))
    test = [repeat_as_test(row) for row in train]
    write_rows(dataset / FEATURES_FILE, [*features, *map(repeat_as_test, features)])
    write_rows(dataset / targets_file("train"), train)
    write_rows(dataset / targets_file("test"), test)
    for kind in ("features", "agbm"):
        (dataset / f"test_{kind}").mkdir()
        for path in (dataset / f"train_{kind}").iterdir():
            shutil.copyfile(path, dataset / f"test_{kind}" / rename(path.name))


def prepare_pipeline(pipeline: Path, dataset: Path) -> None:
    """Copy the repository, and let the copy run on the dataset with a small model."""
    copy_repository(pipeline)
    set_params(pipeline, PARAMS)
    run(pipeline, dataset, "python", "-m", "biomassters", "use-catalogue", str(dataset.resolve()))
    commit_all(pipeline, "Two real chips")


def run(pipeline: Path, dataset: Path, *command: str) -> None:
    """Run a command in the copy; if it fails, so does this script."""
    environment = {**copy_environment(pipeline), FOLDER_VARIABLE: str(dataset.resolve())}
    sys.stdout.flush()
    status = subprocess.run(command, cwd=pipeline, env=environment, check=False).returncode
    if status != 0:
        sys.exit(f"error: `{' '.join(command)}` ended with status {status} in {pipeline}")


def count_verified(dataset: Path) -> str:
    """Return how many files of each split the catalogue gives a checksum of."""
    catalogue = read_catalogue(dataset)
    files = {s: [f for chip in catalogue.chips(s) for f in list_files(chip)] for s in SPLITS}
    return ", ".join(
        f"{sum(file.cksum is not None for file in files[split])} of {len(files[split])} {split}"
        for split in SPLITS
    )


def repeat_as_test(row: dict[str, str]) -> dict[str, str]:
    """Return the row of the same file as a test chip's, which no bucket has."""
    named = ("filename", "chip_id", "corresponding_agbm")
    changes = {column: rename(row[column]) for column in named if column in row}
    changes |= {column: "test" for column in row if column == "split"}
    return row | changes | dict.fromkeys(ADDRESS_COLUMNS, "")


def rename(name: str) -> str:
    """Return a chip's id, or the name of its file, with the chip named as a test chip."""
    chip_id, underscore, rest = name.partition("_")
    return f"{chip_id}{SEEN}{underscore}{rest}"


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a catalogue as it stands."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Write a catalogue."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
