"""Chips for the tests of the data side: simulated ones, and the two real ones."""

import hashlib
import tarfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from biomassters.bands import N_MONTHS
from biomassters.catalogue import (
    ChipRecord,
    FileRecord,
    feature_filename,
    read_catalogue,
    target_filename,
)
from biomassters.checksums import posix_cksum
from biomassters.sources import simulate_files


@cache
def simulate_record(chip_id: str, *, target: bool = True) -> ChipRecord:
    """Return the record of a simulated train chip of 32 pixels."""
    files = simulate_files(chip_id, 32)

    def record(filename: str, folder: str) -> FileRecord | None:
        data = files.get(filename)
        return data and FileRecord(filename, folder, len(data), posix_cksum(data))

    s1, s2 = (
        tuple(
            record(feature_filename(chip_id, sensor, month), "train_features")
            for month in range(N_MONTHS)
        )
        for sensor in ("S1", "S2")
    )
    agbm = record(target_filename(chip_id), "train_agbm") if target else None
    return ChipRecord(chip_id, "train", s1, s2, agbm)


def simulate_records(*chip_ids: str) -> list[ChipRecord]:
    """Return the records of several."""
    return [simulate_record(chip_id) for chip_id in chip_ids]


@cache
def read_real_files(shared_folder: Path, chip_id: str) -> Mapping[str, bytes]:
    """Return the official files of a real chip by name."""
    with tarfile.open(shared_folder / "real-chips" / f"{chip_id}.tar.xz") as archive:
        members = [member for member in archive if member.isfile()]
        return {Path(m.name).name: archive.extractfile(m).read() for m in members}


def read_real_record(shared_folder: Path, chip_id: str) -> ChipRecord:
    """Return the record of a real chip."""
    chips = read_catalogue(shared_folder / "real-chips").chips("train")
    return next(chip for chip in chips if chip.chip_id == chip_id)


def hash_folder(folder: Path) -> str:
    """Hash the names and bytes of all files under a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


class ReversedSource:
    """Yields the chips of another source in reverse, and notes which were asked for."""

    def __init__(self, source) -> None:
        self.source = source
        self.kind = source.kind
        self.asked: list[str] = []

    def fetch_chips(self, chips: Sequence[ChipRecord]):
        """Yield the chips, the last first."""
        self.asked += [chip.chip_id for chip in chips]
        yield from self.source.fetch_chips(chips[::-1])
