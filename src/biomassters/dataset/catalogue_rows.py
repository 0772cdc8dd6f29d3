"""The rows of a catalogue, written: what `catalogue` reads, of files that are at hand."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from biomassters.dataset.catalogue import ADDRESS_COLUMNS
from biomassters.dataset.files import (
    ChipFiles,
    Split,
    feature_filename,
    posix_cksum,
    target_filename,
)
from biomassters.store.bands import MONTHS

_NO_ADDRESSES: Final = [""] * len(ADDRESS_COLUMNS)


def feature_rows(split: Split, chip_id: str, files: ChipFiles) -> Iterator[list[str]]:
    """Yield the rows of `FEATURE_COLUMNS` of a chip's feature files, those that there are."""
    for sensor in ("S1", "S2"):
        for month, month_name in enumerate(MONTHS):
            filename = feature_filename(chip_id, sensor, month)
            if filename in files:
                names = [filename, chip_id, sensor, split, month_name]
                yield [*names, *_describe(files[filename]), target_filename(chip_id)]


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
