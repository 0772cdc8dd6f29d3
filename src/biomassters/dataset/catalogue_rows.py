"""The rows of a catalogue, written: what `catalogue` reads, of files that are at hand."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final

from biomassters.dataset.catalogue import ADDRESS_COLUMNS
from biomassters.dataset.files import Split, feature_filename, posix_cksum, target_filename
from biomassters.store.bands import MONTHS

_NO_ADDRESSES: Final = [""] * len(ADDRESS_COLUMNS)


def feature_row(split: Split, chip_id: str, sensor: str, month: int, data: bytes) -> list[str]:
    """Return the row of `FEATURE_COLUMNS` of a feature file.

    Args:
        split: Its chip's.
        chip_id: Its chip.
        sensor: S1 or S2.
        month: 0 = September.
        data: The file's bytes.
    """
    filename = feature_filename(chip_id, sensor, month)
    names = [filename, chip_id, sensor, split, MONTHS[month]]
    return [*names, *_describe(data), target_filename(chip_id)]


def target_row(chip_id: str, data: bytes) -> list[str]:
    """Return the row of `TARGET_COLUMNS` of a target, of its bytes."""
    return [target_filename(chip_id), chip_id, *_describe(data)]


def format_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """Return a file of the catalogue, with its header."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()


def _describe(data: bytes) -> list[str]:
    """Return size, cksum and the addresses, which files at hand do not have."""
    return [str(len(data)), str(posix_cksum(data)), *_NO_ADDRESSES]
