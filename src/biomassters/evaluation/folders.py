"""A folder of predictions, one's own or another model's, held against a split's chips."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from biomassters.errors import ChipDataError, name_few
from biomassters.evaluation.figures import ChipErrors
from biomassters.prediction.maps import Map, prediction_path, read_prediction
from biomassters.store.chips import ChipStore

_NAMED: Final = 3
"""Files that an error names, each with its reason."""


@dataclass
class FolderContents:
    """What a folder of predictions has, before any file is opened.

    Attributes:
        folder: Where it is.
        present: Chips that have a file.
        missing: Chips that have none.
        extra: Names of TIFFs that are of no chip.
    """

    folder: Path
    present: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)


def list_folder(folder: Path, chip_ids: Collection[str]) -> FolderContents:
    """Compare the files of a folder with the chips that should have one.

    Raises:
        ChipDataError: It is no folder, or has no prediction of any of these chips.
    """
    if not folder.is_dir():
        raise ChipDataError(f"expected a folder of predictions, got none, at {folder}; check it")
    contents = FolderContents(folder)
    expected = set()
    for chip_id in chip_ids:
        path = prediction_path(folder, chip_id)
        expected.add(path.name)
        (contents.present if path.exists() else contents.missing).append(chip_id)
    contents.extra = sorted(
        path.name
        for path in folder.iterdir()
        if path.suffix.lower() in (".tif", ".tiff") and path.name not in expected
    )
    if not contents.present:
        found = name_few(contents.extra) or "none"
        raise ChipDataError(
            f"expected predictions named CHIP_agbm.tif of {len(expected)} chips, got {found},"
            f" at {folder}; check the folder and the split"
        )
    return contents


def read_folder(contents: FolderContents, shape: tuple[int, int]) -> Iterator[tuple[str, Map]]:
    """Yield each chip's prediction, (H, W), t/ha; its other bands are checked and left out.

    Args:
        contents: Of the folder.
        shape: Of a chip, pixels.

    Raises:
        ChipDataError: At the end, of all files that are no predictions of such chips: another size,
            type, number of bands or nodata value, a pixel that is no number, no TIFF at all.
    """
    faults = []
    for chip_id in contents.present:
        path = prediction_path(contents.folder, chip_id)
        try:
            prediction = read_prediction(contents.folder, chip_id, shape).agbm
        except ChipDataError as error:
            reason = str(error).replace(f" at {path}", "").partition(";")[0].rstrip(",")
            faults.append(f"{path.name} ({reason})")
            continue
        yield chip_id, prediction
    if faults:
        height, width = shape
        raise ChipDataError(
            f"expected predictions of chips of {height}x{width} pixels, got {len(faults)} other"
            f" files: {name_few(faults, _NAMED)}, at {contents.folder}; write them again"
        )


def score_folder(store: ChipStore, contents: FolderContents) -> ChipErrors:
    """Score a folder's predictions against the targets of a store.

    Raises:
        ChipDataError: As `read_folder` does.
        StoreError: The split has no targets.
    """
    errors = ChipErrors()
    indices = {chip_id: index for index, chip_id in enumerate(store.chip_ids)}
    for chip_id, prediction in read_folder(contents, (store.chip_size, store.chip_size)):
        errors.add(chip_id, prediction, store.read_target(indices[chip_id]))
    return errors


def list_targets(store: ChipStore) -> list[str]:
    """Return the chips of a store that have a target."""
    return [
        chip_id
        for chip_id, mean in zip(store.chip_ids, store.agbm_mean, strict=True)
        if np.isfinite(mean)
    ]
