"""One fetched chip on its way into a store: verified, decoded, saved.

Knows a chip's files, facts and chunk files; knows nothing of the other chips.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biomassters.bands import (
    CLP,
    CLP_NODATA,
    N_MONTHS,
    N_S1,
    N_S2,
    S1_NODATA_DB,
    S1_STORED_NODATA,
    S1_STORED_SCALE_DB,
)
from biomassters.catalogue import ChipRecord, FileRecord
from biomassters.chips import AGBM, FORMAT_VERSION, S1, S2, Chip
from biomassters.errors import ChipDataError
from biomassters.georeference import NOWHERE, Georeference, lie_together
from biomassters.rasters import decode_chip_tiff
from biomassters.sources import list_files, verify
from biomassters.zarr_files import ArrayLayout, chunk_is_whole, write_chunk

FACTS_FILE: Final = "facts.json"
LARGEST_STORED_DB: Final = -(S1_STORED_NODATA + 1) * S1_STORED_SCALE_DB


class SavedChip(NamedTuple):
    """A chip on disk, staged or in a store.

    Attributes:
        facts: Its entries of the arrays `chips.FACTS`, by name.
        chunks: Its chunk files, by name of the array; `agbm` only where it has a target.
    """

    facts: Mapping[str, Any]
    chunks: Mapping[str, Path]


def image_shapes(chip_size: int) -> dict[ArrayLayout, tuple[int, ...]]:
    """Return the arrays that hold pixels, each with the shape of one chip."""
    side = (chip_size, chip_size)
    return {S1: (N_MONTHS, N_S1, *side), S2: (N_MONTHS, N_S2, *side), AGBM: side}


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


def decode_chip(chip: ChipRecord, files: Mapping[str, bytes], chip_size: int) -> Chip:
    """Verify and decode a chip's files.

    Raises:
        ChipDataError: A file is not what the catalogue says, is damaged, out of range, or lies
            elsewhere than the others.
    """
    for record in list_files(chip):
        verify(record, files[record.filename])
    places: dict[str, Georeference] = {}

    def decode(record: FileRecord, n_bands: int, dtype: type[Any]) -> NDArray[Any]:
        name = record.filename
        raster = decode_chip_tiff(
            files[name], n_bands=n_bands, dtype=dtype, chip_size=chip_size, where=name
        )
        places[name] = raster.georeference
        return raster.bands

    shapes = image_shapes(chip_size)
    s1 = np.empty(shapes[S1], np.int16)
    s2 = np.zeros(shapes[S2], np.uint16)
    for month in range(N_MONTHS):
        s1_record, s2_record = chip.s1[month], chip.s2[month]
        s1_db = decode(s1_record, N_S1, np.float32)
        s1[month] = store_backscatter(s1_db, s1_record.filename)
        if s2_record is not None:
            s2[month] = decode(s2_record, N_S2, np.uint16)
    present = np.array([record is not None for record in chip.s2])
    agbm = None
    if chip.agbm is not None:
        agbm = decode(chip.agbm, 1, np.float32)[0]
        if np.isinf(agbm).any():
            raise ChipDataError(
                f"expected finite AGBM, got infinity, at {chip.agbm.filename};"
                " mend the file, or take the chip out of the catalogue"
            )
    return Chip(chip.chip_id, s1, s2, present, agbm, locate_chip(places))


def locate_chip(places: Mapping[str, Georeference]) -> Georeference:
    """Return where a chip lies: where the first of its files does that says so.

    Args:
        places: Where each file lies, by its name.

    Raises:
        ChipDataError: Another file lies elsewhere.
    """
    known = {name: place for name, place in places.items() if place != NOWHERE}
    first = next(iter(known), "")
    for name, place in known.items():
        if not lie_together(place, known[first]):
            raise ChipDataError(
                f"expected the place of {first}, {_describe_place(known[first])},"
                f" got {_describe_place(place)}, at {name}; put all files of a chip on one grid"
            )
    return known.get(first, NOWHERE)


def store_backscatter(s1_db: NDArray[np.float32], where: str) -> NDArray[np.int16]:
    """Round backscatter to the store's units.

    Args:
        s1_db: Backscatter, dB, of any shape; -9999 and what is not finite are nodata.
        where: Name of the file, for errors.

    Returns:
        The same in 0.01 dB, nodata as `bands.S1_STORED_NODATA`.

    Raises:
        ChipDataError: A value is beyond the store's range.
    """
    nodata = ~np.isfinite(s1_db) | (s1_db == S1_NODATA_DB)
    known = np.where(nodata, np.float32(0), s1_db)
    largest = known.flat[np.abs(known).argmax()]
    if abs(largest) > LARGEST_STORED_DB:
        raise ChipDataError(
            f"expected backscatter within {LARGEST_STORED_DB:.2f} dB of 0, got {largest:g} dB,"
            f" at {where}; set nodata pixels to {S1_NODATA_DB:g}"
        )
    stored = np.rint(known * np.float32(1 / S1_STORED_SCALE_DB)).astype(np.int16)
    stored[nodata] = S1_STORED_NODATA
    return stored


def stage_chip(chip: Chip, fingerprint: str, scratch: Path) -> SavedChip:
    """Save a chip in scratch: whole or, if killed or out of disk, not at all."""
    folder = _staged_folder(scratch, chip.chip_id, fingerprint)
    incomplete = scratch / "incomplete"
    shutil.rmtree(incomplete, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    incomplete.mkdir()
    try:
        for layout, image in _images(chip).items():
            write_chunk(incomplete / layout.name, image)
        facts = {**gather_facts(chip), "fingerprint": fingerprint}
        (incomplete / FACTS_FILE).write_text(json.dumps(facts), encoding="utf-8")
        incomplete.rename(folder)
    except BaseException:
        shutil.rmtree(incomplete, ignore_errors=True)
        raise
    return SavedChip(facts, {layout.name: folder / layout.name for layout in _images(chip)})


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
    """Return a chip's entries of `chips.FACTS` but the fingerprint, as JSON types."""
    s2_nodata = (chip.s2[:, CLP] == CLP_NODATA).sum(axis=(1, 2))
    return {
        "chip_id": chip.chip_id,
        "content": _hash_content(chip),
        "s2_present": chip.s2_present.tolist(),
        "s1_nodata": (chip.s1 == S1_STORED_NODATA).sum(axis=(2, 3)).tolist(),
        "s2_nodata": s2_nodata.tolist(),
        "agbm_mean": math.nan if chip.agbm is None else _exact_mean(chip.agbm),
        "crs": chip.georeference.crs,
        "transform": list(chip.georeference.transform),
    }


def _images(chip: Chip) -> dict[ArrayLayout, NDArray[Any]]:
    images: dict[ArrayLayout, NDArray[Any]] = {S1: chip.s1, S2: chip.s2}
    return images if chip.agbm is None else {**images, AGBM: chip.agbm}


def _hash_content(chip: Chip) -> str:
    digest = hashlib.sha256(chip.s2_present.tobytes())
    for layout, image in _images(chip).items():
        digest.update(layout.name.encode())
        digest.update(image.tobytes())
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
