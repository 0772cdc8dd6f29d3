"""One decoded chip on its way into a store: its chunk files and facts, on disk in scratch.

Each chip is staged by itself, whole or not at all, so that a killed run loses those in flight only.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biomassters.audit.facts import gather_audit_facts
from biomassters.dataset.files import ChipRecord, list_files
from biomassters.store.chips import Chip
from biomassters.store.layout import AGBM, FORMAT_VERSION, S1, S2, image_shapes
from biomassters.store.zarr_files import ArrayLayout, chunk_is_whole, write_chunk

FACTS_FILE: Final = "facts.json"
INCOMPLETE: Final = "incomplete"
"""What the names of folders begin with that are being written."""


class SavedChip(NamedTuple):
    """A chip on disk, staged or in a store.

    Attributes:
        facts: Its entries of the arrays `layout.FACTS`, by name.
        chunks: Its chunk files, by name of the array; `agbm` only where it has a target.
    """

    facts: Mapping[str, Any]
    chunks: Mapping[str, Path]


def image_layouts(chip: ChipRecord) -> list[ArrayLayout]:
    """Return the arrays that hold a chip's pixels: `AGBM` only where it has a target."""
    return [S1, S2] if chip.agbm is None else [S1, S2, AGBM]


def fingerprint_chip(chip: ChipRecord, source_kind: str, chip_size: int) -> str:
    """Hash what a packed chip is made from: files, source, size and the store's format.

    Files without a cksum are known by name and size only.
    """
    files = [(record.filename, record.size, record.cksum) for record in list_files(chip)]
    text = json.dumps([FORMAT_VERSION, source_kind, chip_size, files])
    return hashlib.sha256(text.encode()).hexdigest()


def stage_chip(chip: Chip, fingerprint: str, scratch: Path) -> SavedChip:
    """Save a chip in scratch: whole or, if killed or out of disk, not at all.

    Several processes may do so at a time, even of one chip: then it is that of the first.
    """
    folder = _staged_folder(scratch, chip.chip_id, fingerprint)
    incomplete = scratch / f"{INCOMPLETE}-{os.getpid()}"
    shutil.rmtree(incomplete, ignore_errors=True)
    incomplete.mkdir()
    try:
        for layout, image in _images(chip).items():
            write_chunk(incomplete / layout.name, image)
        facts = {**gather_facts(chip), "fingerprint": fingerprint}
        (incomplete / FACTS_FILE).write_text(json.dumps(facts), encoding="utf-8")
        try:
            incomplete.rename(folder)
        except OSError:
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(incomplete, ignore_errors=True)
    return SavedChip(facts, {layout.name: folder / layout.name for layout in _images(chip)})


def discard_staged(chip: ChipRecord, fingerprint: str, scratch: Path) -> None:
    """Delete a staged chip, if there is one."""
    shutil.rmtree(_staged_folder(scratch, chip.chip_id, fingerprint), ignore_errors=True)


def discard_incomplete(scratch: Path) -> None:
    """Delete what killed processes left half written."""
    for folder in scratch.glob(f"{INCOMPLETE}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def find_staged(chip: ChipRecord, fingerprint: str, scratch: Path) -> SavedChip | None:
    """Return a chip that an earlier run staged, or None."""
    folder = _staged_folder(scratch, chip.chip_id, fingerprint)
    try:
        facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return SavedChip(facts, {layout.name: folder / layout.name for layout in image_layouts(chip)})


def is_complete(saved: SavedChip, chip: ChipRecord, chip_size: int) -> bool:
    """Tell whether all chunk files of a saved chip are there, each written to its end."""
    return all(
        chunk_is_whole(
            saved.chunks[layout.name], math.prod(shape) * np.dtype(layout.dtype).itemsize
        )
        for layout, shape in image_shapes(chip_size).items()
        if layout in image_layouts(chip)
    )


def gather_facts(chip: Chip) -> dict[str, Any]:
    """Return a chip's entries of `layout.FACTS` but the fingerprint, as JSON types."""
    return {
        "chip_id": chip.chip_id,
        "content": _hash_content(chip),
        "s2_present": chip.s2_present.tolist(),
        "agbm_mean": math.nan if chip.agbm is None else _exact_mean(chip.agbm),
        "crs": chip.georeference.crs,
        "transform": list(chip.georeference.transform),
        **gather_audit_facts(chip),
    }


def _images(chip: Chip) -> dict[ArrayLayout, NDArray[Any]]:
    images: dict[ArrayLayout, NDArray[Any]] = {S1: chip.s1, S2: chip.s2}
    return images if chip.agbm is None else {**images, AGBM: chip.agbm}


def _hash_content(chip: Chip) -> str:
    digest = hashlib.sha256(chip.s2_present.tobytes())
    for layout, image in _images(chip).items():
        digest.update(layout.name.encode())
        digest.update(np.ascontiguousarray(image).data)
    digest.update(json.dumps(chip.georeference).encode())
    return digest.hexdigest()


def _exact_mean(agbm: NDArray[np.float32]) -> float:
    # numpy's sum depends on the processor's vector width in its last bits; this one does not,
    # and the store's bytes must not.
    known = agbm[~np.isnan(agbm)].tolist()
    return math.fsum(known) / len(known) if known else math.nan


def _staged_folder(scratch: Path, chip_id: str, fingerprint: str) -> Path:
    return scratch / f"{chip_id}-{fingerprint[:16]}"
