"""One fetched chip on its way into a store: verified, decoded, saved.

Knows a chip's files, facts and chunk files; knows nothing of the other chips.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biomassters.audit.facts import gather_audit_facts
from biomassters.dataset.chip_tiffs import (
    ChipRaster,
    ChipTiffError,
    decode_chip_tiff,
    read_plain_tiff,
)
from biomassters.dataset.files import BadFile, ChipRecord, FileError, FileRecord, list_files, verify
from biomassters.packing.bad_files import BadChipError
from biomassters.store.bands import (
    S1_NODATA_DB,
    S1_STORED_NODATA,
    S1_STORED_SCALE_DB,
)
from biomassters.store.chips import Chip
from biomassters.store.georeference import NOWHERE, Georeference, lie_together
from biomassters.store.layout import AGBM, FORMAT_VERSION, S1, S2, image_shapes
from biomassters.store.zarr_files import ArrayLayout, chunk_is_whole, write_chunk

FACTS_FILE: Final = "facts.json"
INCOMPLETE: Final = "incomplete"
"""What the names of folders begin with that are being written."""
LARGEST_STORED: Final = -(S1_STORED_NODATA + 1)


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


def decode_chip(
    chip: ChipRecord,
    files: Mapping[str, bytes],
    chip_size: int,
    absent: Sequence[BadFile] = (),
) -> Chip:
    """Verify and decode a chip's files.

    Args:
        chip: Which one.
        files: Their bytes by name.
        chip_size: Side of a chip, pixels.
        absent: Files that could not be had; the others are verified, to name all that are bad.

    Raises:
        BadChipError: Files could not be had, are not what the catalogue says, are damaged or out
            of range, or lie elsewhere than the others.
    """
    shapes = image_shapes(chip_size)
    s1 = np.empty(shapes[S1], np.int16)
    s2 = np.zeros(shapes[S2], np.uint16)
    agbm = None if chip.agbm is None else np.empty(shapes[AGBM], np.float32)
    jobs = [*zip(chip.s1, s1, strict=True), *zip(chip.s2, s2, strict=True), (chip.agbm, agbm)]
    places: dict[str, Georeference] = {}
    bad_files = list(absent)
    passed_over = {bad.filename for bad in absent}
    for record, out in jobs:
        if record is None or out is None or record.filename in passed_over:
            continue
        try:
            places[record.filename] = _decode_file(record, files[record.filename], out)
        except FileError as fault:
            bad_files.append(BadFile(chip.chip_id, record.filename, fault.expected, fault.got))
    if bad_files:
        raise BadChipError(bad_files)
    present = np.array([record is not None for record in chip.s2])
    return Chip(chip.chip_id, s1, s2, present, agbm, locate_chip(chip.chip_id, places))


def _decode_file(record: FileRecord, data: bytes, out: NDArray[Any]) -> Georeference:
    """Verify a file and decode it into `out`, (C, H, W) or, of a target, (H, W).

    Raises:
        FileError: It is not what the catalogue says, is damaged or out of range.
    """
    verify(record, data)
    if out.dtype == S1.dtype:
        raster = _decode_tiff(record, data, np.float32, out.shape)
        store_backscatter(raster.bands, out)
    elif out.dtype == S2.dtype:
        raster = _decode_tiff(record, data, np.uint16, out.shape)
        out[:] = raster.bands
    else:
        raster = _decode_tiff(record, data, np.float32, (1, *out.shape))
        out[:] = raster.bands[0]
        if np.isinf(out).any():
            raise FileError("finite AGBM", "infinity")
    return raster.georeference


def _decode_tiff(
    record: FileRecord, data: bytes, dtype: type[Any], shape: tuple[int, ...]
) -> ChipRaster:
    n_bands, chip_size, _ = shape
    bands = read_plain_tiff(data, n_bands=n_bands, dtype=dtype, chip_size=chip_size)
    if bands is not None:
        return ChipRaster(bands, NOWHERE)
    try:
        return decode_chip_tiff(
            data, n_bands=n_bands, dtype=dtype, chip_size=chip_size, where=record.filename
        )
    except ChipTiffError as error:
        raise FileError(error.expected, error.got) from None


def locate_chip(chip_id: str, places: Mapping[str, Georeference]) -> Georeference:
    """Return where a chip lies: where the first of its files does that says so.

    Args:
        chip_id: Whose files.
        places: Where each file lies, by its name.

    Raises:
        BadChipError: Others lie elsewhere: all files of a chip must be on one grid.
    """
    known = {name: place for name, place in places.items() if place != NOWHERE}
    first = next(iter(known), "")
    bad_files = [
        BadFile(
            chip_id,
            name,
            f"the place of {first}, {_describe_place(known[first])}",
            _describe_place(place),
        )
        for name, place in known.items()
        if not lie_together(place, known[first])
    ]
    if bad_files:
        raise BadChipError(bad_files)
    return known.get(first, NOWHERE)


def store_backscatter(s1_db: NDArray[np.float32], out: NDArray[np.int16]) -> None:
    """Round backscatter to the store's units.

    Args:
        s1_db: Backscatter, dB, of any shape; -9999 and what is not finite are nodata.
        out: Gets the same in 0.01 dB, nodata as `bands.S1_STORED_NODATA`.

    Raises:
        FileError: A value is beyond the store's range.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        stored = s1_db * np.float32(1 / S1_STORED_SCALE_DB)
    np.rint(stored, out=stored)
    beyond = ~(np.abs(stored) <= LARGEST_STORED)
    if beyond.any():
        values = s1_db[beyond]
        values = values[np.isfinite(values) & (values != S1_NODATA_DB)]
        if values.size:
            raise FileError(
                f"backscatter within {LARGEST_STORED * S1_STORED_SCALE_DB:.2f} dB of 0 or, where"
                f" there is none, {S1_NODATA_DB:g}",
                f"{values[np.abs(values).argmax()]:g} dB",
            )
        np.copyto(stored, np.float32(S1_STORED_NODATA), where=beyond)
    # To integers before bands that lie pixel by pixel in the file are put apart: half the bytes.
    out[:] = stored.astype(np.int16)


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


def _describe_place(place: Georeference) -> str:
    coefficients = ", ".join(f"{value:.12g}" for value in place.transform)
    return f"{place.crs or 'no CRS'} ({coefficients})"


def _staged_folder(scratch: Path, chip_id: str, fingerprint: str) -> Path:
    return scratch / f"{chip_id}-{fingerprint[:16]}"
