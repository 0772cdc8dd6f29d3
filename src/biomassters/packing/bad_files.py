"""The files that could not be had or were not what the catalogue says, as a user learns of them."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from biomassters.dataset.files import BadFile
from biomassters.processes.writing import write_whole

MAX_LISTED: Final = 5
"""Bad files that an error names; the CSV has all."""


def describe_bad_files(bad_files: Sequence[BadFile]) -> str:
    """Return one line that names the first few bad files, and counts the others."""
    parts = [
        f"expected {_one_line(bad.expected)}, got {_one_line(bad.got)}, at {bad.filename}"
        for bad in bad_files[:MAX_LISTED]
    ]
    if len(bad_files) > MAX_LISTED:
        parts.append(f"{len(bad_files) - MAX_LISTED} more bad files")
    return "; ".join(parts)


def write_bad_files(path: Path, bad_files: Sequence[BadFile]) -> None:
    """Write the list as a CSV, whole or not at all; without bad files, remove it."""
    if not bad_files:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(BadFile._fields)
    writer.writerows(bad_files)
    write_whole(path, text.getvalue().encode())


def _one_line(text: str) -> str:
    return " ".join(text.split())
