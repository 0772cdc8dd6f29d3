"""The catalogue of chips of one's own, made from their files."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from tqdm import tqdm

from biomassters.dataset.catalogue import (
    FEATURE_COLUMNS,
    FEATURES_FILE,
    TARGET_COLUMNS,
    is_chip_id,
    targets_file,
)
from biomassters.dataset.catalogue_files import find_files
from biomassters.dataset.catalogue_rows import feature_rows, format_table, target_row
from biomassters.dataset.files import SPLITS, Split, feature_filename, target_filename
from biomassters.errors import CatalogueError, name_few
from biomassters.processes.writing import write_whole
from biomassters.store.bands import N_MONTHS

_Chips: TypeAlias = Mapping[str, Mapping[str, Path]]
"""The files of each chip by name."""
_NAME: Final = re.compile(r"(.+)_(?:(S[12])_([0-9]{2})|agbm)\.tif", re.ASCII)


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
    chips: dict[Split, _Chips] = {split: _find(folder, split) for split in SPLITS}
    if not any(chips.values()):
        raise CatalogueError(
            f"expected chips in train_features or test_features, got none, at {folder};"
            f" put files such as {feature_filename('CHIP', 'S1', 0)} there (docs/own-chips.md)"
        )
    if twice := sorted(set(chips["train"]) & set(chips["test"])):
        raise _refuse("each chip in one split", twice, folder, "move or rename it")
    features: list[list[str]] = []
    targets: dict[Split, list[list[str]]] = {split: [] for split in SPLITS}
    for split, of_split in chips.items():
        for chip_id, paths in tqdm(sorted(of_split.items()), split, unit="chip", disable=None):
            files = {name: path.read_bytes() for name, path in paths.items()}
            features += feature_rows(split, chip_id, files)
            if (target := files.get(target_filename(chip_id))) is not None:
                targets[split].append(target_row(chip_id, target))
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


def _find(folder: Path, split: Split) -> _Chips:
    """Return the files of each chip of a split by name, all that it must have among them."""
    chips: dict[str, dict[str, Path]] = defaultdict(dict)
    others = []
    for kind in ("features", "agbm"):
        for path in _list(folder / f"{split}_{kind}"):
            chip_id = _tell_chip(path.name, kind)
            if chip_id is None:
                others.append(path.name)
            else:
                chips[chip_id][path.name] = path
    if others:
        example = f"{feature_filename('CHIP', 'S1', 0)}, ..., {target_filename('CHIP')}"
        raise _refuse(f"files named {example} alone", others, folder, "move or rename them")
    lacking = _list_lacking(
        chips, lambda chip: [feature_filename(chip, "S1", month) for month in range(N_MONTHS)]
    )
    if lacking:
        expected = f"an S1 file for each of the {N_MONTHS} months in {split}_features"
        remedy = "write it, with -9999 where there is no backscatter, or remove the chip"
        raise _refuse(expected, lacking, folder, remedy)
    lacking = _list_lacking(chips, lambda chip: [target_filename(chip)])
    if lacking and split == "train":
        remedy = "add it, or move the chip to test_features"
        raise _refuse("a target of each train chip in train_agbm", lacking, folder, remedy)
    return dict(chips)


def _tell_chip(name: str, kind: str) -> str | None:
    """Return the chip whose feature file, or target of the kind `agbm`, is called so."""
    match = _NAME.fullmatch(name)
    if match is None or not is_chip_id(match[1]) or (match[2] is None) != (kind == "agbm"):
        return None
    return None if match[3] is not None and int(match[3]) >= N_MONTHS else match[1]


def _list_lacking(chips: _Chips, name_files: Callable[[str], list[str]]) -> list[str]:
    """Return which of the files that a chip's name asks for are not there."""
    wanted = [(chip_id, name) for chip_id in sorted(chips) for name in name_files(chip_id)]
    return [f"no {name}" for chip_id, name in wanted if name not in chips[chip_id]]


def _list(folder: Path) -> Iterable[Path]:
    """Return the files of a folder but hidden ones; none where it is absent."""
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]


def _refuse(expected: str, got: list[str], folder: Path, remedy: str) -> CatalogueError:
    return CatalogueError(f"expected {expected}, got {name_few(got)}, at {folder}; {remedy}")
