"""The catalogue of chips of one's own, made from their files."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tqdm import tqdm

from biomassters.dataset.catalogue import (
    FEATURE_COLUMNS,
    FEATURES_FILE,
    TARGET_COLUMNS,
    is_chip_id,
    targets_file,
)
from biomassters.dataset.catalogue_files import find_files
from biomassters.dataset.catalogue_rows import feature_row, format_table, target_row
from biomassters.dataset.files import SPLITS, Split, feature_filename, target_filename
from biomassters.errors import CatalogueError
from biomassters.processes.writing import write_whole
from biomassters.store.bands import N_MONTHS

_NAME: Final = re.compile(r"(.+)_(?:(S[12])_([0-9]{2})|agbm)\.tif", re.ASCII)
SHOWN: Final = 5
"""Files or chips that an error names."""


class _Found(NamedTuple):
    """A chip's files.

    Attributes:
        features: By sensor and month.
        target: None = there is none.
    """

    features: dict[tuple[str, int], Path]
    target: list[Path]


def write_catalogue(folder: Path) -> str:
    """Describe the chips that lie in a folder as the official ones do, by a catalogue in it.

    Each file is read once, for its size and POSIX cksum; what is in it, the stage `fetch` checks.

    Args:
        folder: Has `train_features/` with `train_agbm/`, or `test_features/`, where test targets
            are known with `test_agbm/`, or all of them; no catalogue yet.

    Returns:
        What was done, for people.

    Raises:
        CatalogueError: There is a catalogue, there are no chips, a file there has another name
            than a chip's, or a chip lacks a file.
    """
    if known := find_files(folder):
        names = ", ".join(path.name for path in known.values())
        raise CatalogueError(
            f"expected a folder without a catalogue, got {names}, at {folder};"
            " remove it to describe the files anew"
        )
    chips: dict[Split, Mapping[str, _Found]] = {split: _find(folder, split) for split in SPLITS}
    if not any(chips.values()):
        raise CatalogueError(
            f"expected chips in train_features or test_features, got none, at {folder};"
            f" put files such as {feature_filename('CHIP', 'S1', 0)} there (docs/own-chips.md)"
        )
    if twice := sorted(set(chips["train"]) & set(chips["test"])):
        raise _refuse("each chip in one split", twice, folder, "move or rename it")
    features, targets = [], {}
    for split, of_split in chips.items():
        progress = tqdm(sorted(of_split.items()), desc=split, unit="chip", disable=None)
        rows = []
        for chip_id, found in progress:
            features += [
                feature_row(split, chip_id, *place, path.read_bytes())
                for place, path in sorted(found.features.items())
            ]
            rows += [target_row(chip_id, path.read_bytes()) for path in found.target]
        targets[split] = rows
    for split, rows in targets.items():
        if rows:
            write_whole(folder / targets_file(split), format_table(TARGET_COLUMNS, rows))
    # The last one: without it the others are no catalogue.
    write_whole(folder / FEATURES_FILE, format_table(FEATURE_COLUMNS, features))
    counts = ", ".join(f"{len(chips[split])} {split}" for split in SPLITS)
    return (
        f"{folder / FEATURES_FILE} describes {counts} chips; make it data/:"
        f" python -m biomassters use-catalogue {folder}"
    )


def _find(folder: Path, split: Split) -> dict[str, _Found]:
    """Return the chips of a split, each with all files that it must have."""
    chips: dict[str, _Found] = defaultdict(lambda: _Found({}, []))
    others = []
    for kind in ("features", "agbm"):
        for path in _list(folder / f"{split}_{kind}"):
            match = _NAME.fullmatch(path.name)
            if match is None or not is_chip_id(match[1]) or (match[2] is None) != (kind == "agbm"):
                others.append(path.name)
            elif match[2] is None:
                chips[match[1]].target.append(path)
            elif int(match[3]) < N_MONTHS:
                chips[match[1]].features[match[2], int(match[3])] = path
            else:
                others.append(path.name)
    example = f"{feature_filename('CHIP', 'S1', 0)}, ..., {target_filename('CHIP')}"
    if others:
        raise _refuse(f"files named {example} alone", others, folder, "move or rename them")
    lacking = [
        feature_filename(chip_id, "S1", month)
        for chip_id, found in sorted(chips.items())
        for month in range(N_MONTHS)
        if ("S1", month) not in found.features
    ]
    if lacking:
        raise _refuse(
            f"an S1 file for each of the {N_MONTHS} months in {split}_features",
            [f"no {name}" for name in lacking],
            folder,
            "write it, with -9999 where there is no backscatter, or remove the chip",
        )
    if split == "train":
        without = [
            target_filename(chip) for chip, found in sorted(chips.items()) if not found.target
        ]
        if without:
            remedy = "add it, or move the chip to test_features"
            absent = [f"no {name}" for name in without]
            raise _refuse("a target of each train chip in train_agbm", absent, folder, remedy)
    return dict(chips)


def _list(folder: Path) -> Iterable[Path]:
    """Return the files of a folder but hidden ones; none where it is absent."""
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]


def _refuse(expected: str, got: list[str], folder: Path, remedy: str) -> CatalogueError:
    shown = ", ".join(got[:SHOWN])
    more = f" and {len(got) - SHOWN} more" if len(got) > SHOWN else ""
    return CatalogueError(f"expected {expected}, got {shown}{more}, at {folder}; {remedy}")
