"""From the bytes of a chip's files to its arrays, in the store's types and units.

Knows which type and shape each file must have, and how backscatter is rounded.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from biomassters.dataset.chip_tiffs import ChipRaster, decode_chip_tiff, read_plain_tiff
from biomassters.dataset.declaration import Declaration, follow_agbm, follow_s1, follow_s2
from biomassters.dataset.files import BadFile, ChipRecord, FileError, FileRecord, verify
from biomassters.store.bands import (
    CLP,
    CLP_NODATA,
    S1_NODATA_DB,
    S1_STORED_NODATA,
    S1_STORED_SCALE_DB,
    S2_STORED_NODATA,
)
from biomassters.store.chips import Chip
from biomassters.store.georeference import NOWHERE, Georeference, lie_together
from biomassters.store.layout import AGBM, S1, S2, image_shapes

LARGEST_STORED: Final = -(S1_STORED_NODATA + 1)
"""The greatest backscatter that the store can hold, and the least with a minus, in its units."""
LARGEST_AGBM: Final = 10_000.0
"""t/ha; the densest forests that were ever measured hold less than half of it.

Source: Keith, Mackey and Lindenmayer (2009), doi:10.1073/pnas.0901970106: 1,867 t of carbon a
hectare in Eucalyptus regnans, living and dead; biomass is about twice its carbon.
"""
SMALLEST_AGBM: Final = -0.5
"""t/ha; from here on a value rounds to 0: the models that make targets may go a little below."""


def decode_chip(
    chip: ChipRecord,
    files: Mapping[str, bytes],
    chip_size: int,
    absent: Sequence[BadFile] = (),
) -> Chip | list[BadFile]:
    """Verify and decode a chip's files.

    Args:
        chip: Which one.
        files: Their bytes by name.
        chip_size: Side of a chip, pixels.
        absent: Files that could not be had; the others are verified, to name all that are bad.

    Returns:
        The chip; or, if there are any, the files that could not be had, are not what the catalogue
        says, are damaged or out of range, or lie elsewhere than the others.
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
    bad_files = bad_files or _find_misplaced(chip.chip_id, places)
    if bad_files:
        return bad_files
    present = np.array([record is not None for record in chip.s2])
    return Chip(chip.chip_id, s1, s2, present, agbm, _locate_chip(places)[1])


def _decode_file(record: FileRecord, data: bytes, out: NDArray[Any]) -> Georeference:
    """Verify a file and decode it into `out`, (C, H, W) or, of a target, (H, W).

    Raises:
        FileError: It is not what the catalogue says, is damaged or out of range.
    """
    verify(record, data)
    if out.dtype == S1.dtype:
        raster = _decode_tiff(data, np.float32, out.shape)
        store_backscatter(_in_units(raster, follow_s1), out)
    elif out.dtype == S2.dtype:
        raster = _decode_tiff(data, np.uint16, out.shape)
        out[:] = _in_units(raster, follow_s2)
        mark_missing_clouds(out)
    else:
        raster = _decode_tiff(data, np.float32, (1, *out.shape))
        [out[:]] = _in_units(raster, follow_agbm)
        check_agbm(out)
    return raster.georeference


def _decode_tiff(data: bytes, dtype: type[Any], shape: tuple[int, ...]) -> ChipRaster:
    n_bands, chip_size, _ = shape
    bands = read_plain_tiff(data, n_bands=n_bands, dtype=dtype, chip_size=chip_size)
    if bands is not None:
        return ChipRaster(bands, NOWHERE)
    return decode_chip_tiff(data, n_bands=n_bands, dtype=dtype, chip_size=chip_size)


def _in_units(
    raster: ChipRaster, follow: Callable[[NDArray[Any], Declaration], NDArray[Any]]
) -> NDArray[Any]:
    """Return a file's values in the catalogue's units, by what it declares of them, if anything."""
    return raster.bands if raster.declared is None else follow(raster.bands, raster.declared)


def _locate_chip(places: Mapping[str, Georeference]) -> tuple[str, Georeference]:
    """Return the first of a chip's files that says where it lies, and where; else "", NOWHERE."""
    known = ((name, place) for name, place in places.items() if place != NOWHERE)
    return next(known, ("", NOWHERE))


def _find_misplaced(chip_id: str, places: Mapping[str, Georeference]) -> list[BadFile]:
    """Return the files that lie elsewhere than the first: all of a chip must be on one grid."""
    first, expected = _locate_chip(places)
    return [
        BadFile(
            chip_id,
            name,
            f"the place of {first}, {_describe_place(expected)}",
            _describe_place(place),
        )
        for name, place in places.items()
        if place != NOWHERE and not lie_together(place, expected)
    ]


def store_backscatter(s1_db: NDArray[np.float32], out: NDArray[np.int16]) -> None:
    """Round backscatter to the store's units.

    Args:
        s1_db: Backscatter, dB, of any shape; -9999 and what is not finite are nodata.
        out: Gets the same in 0.01 dB, nodata as `bands.S1_STORED_NODATA`. Only what is exactly 0
            becomes 0, a known defect of the files that audit and cleaning look for; what would
            round to 0 becomes 0.01 dB of its sign.

    Raises:
        FileError: A value is beyond the store's range.
    """
    # Rounded, half a step to the even one; cutting off would move every value towards 0. In float32
    # as the file has it, whose error is far below a step.
    with np.errstate(over="ignore", invalid="ignore"):
        stored = s1_db * np.float32(1 / S1_STORED_SCALE_DB)
    np.rint(stored, out=stored)
    zero = stored == 0
    if zero.any():
        stored[zero] = np.sign(s1_db[zero])
    # Not by `>`: NaN must be among them. What is not finite and -9999 dB, the files' nodata, become
    # the store's nodata; any other value is refused, of which int16 would make some backscatter.
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


def mark_missing_clouds(s2: NDArray[np.uint16]) -> None:
    """Mark nodata as the store does where a file has 255 for the cloud probability.

    255 tells of a missing cloud mask, which does not make measured reflectance wrong: only where
    all of that is 0 it is nodata, too.

    Args:
        s2: Reflectance and cloud probability, (11, H, W); modified.
    """
    missing = s2[CLP] == CLP_NODATA
    if missing.any():
        blank = missing & ~s2[:CLP].any(axis=0)
        s2[CLP, missing] = S2_STORED_NODATA
        s2[:, blank] = S2_STORED_NODATA


def check_agbm(agbm: NDArray[np.float32]) -> None:
    """Refuse what no forest holds: a nodata value that is not declared, or another unit.

    Args:
        agbm: AGBM, (H, W), t/ha, NaN = nodata.

    Raises:
        FileError: A value does not even round to 0 or more, or is above `LARGEST_AGBM`.
    """
    impossible = agbm[(agbm < SMALLEST_AGBM) | (agbm > LARGEST_AGBM)]
    if impossible.size:
        values, counts = np.unique(impossible, return_counts=True)
        raise FileError(
            f"AGBM of 0 to {LARGEST_AGBM:,.0f} t/ha and, where there is none, NaN or the nodata"
            " value that the file declares",
            f"{values[counts.argmax()]:g} t/ha ({impossible.size} of {agbm.size} pixels)",
        )


def _describe_place(place: Georeference) -> str:
    coefficients = ", ".join(f"{value:.12g}" for value in place.transform)
    return f"{place.crs or 'no CRS'} ({coefficients})"
