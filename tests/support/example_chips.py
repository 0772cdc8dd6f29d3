"""Chips for the tests of the data side: simulated ones, and the two real ones."""

import hashlib
import os
import tarfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from biomassters.dataset.catalogue import read_catalogue
from biomassters.dataset.files import (
    ChipRecord,
    FileError,
    FileRecord,
    feature_filename,
    posix_cksum,
    target_filename,
)
from biomassters.packing.assembly import PackReport, pack_split
from biomassters.params.sections import SubsetParams
from biomassters.simulator.official_files import simulate_files
from biomassters.sources.source import FetchedChip, gather_files
from biomassters.sources.synthetic_source import SyntheticSource
from biomassters.store.bands import N_MONTHS

ALL_CHIPS = SubsetParams(first=None, fraction=1.0, seed=0, chip_ids=())


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

    def prepare(self, chips: Sequence[ChipRecord]) -> None:
        """Prepare the other source."""
        self.source.prepare(chips)

    def fetch_chips(self, chips: Iterable[ChipRecord]) -> Iterator[FetchedChip]:
        """Yield the chips, the last first."""
        chips = list(chips)
        self.asked += [chip.chip_id for chip in chips]
        yield from self.source.fetch_chips(chips[::-1])


class SpoiledSource:
    """Gives what another source has, but some files with their last byte flipped, or not at all."""

    def __init__(self, source, *, flipped: Collection[str] = (), absent: Collection[str] = ()):
        self.source = source
        self.kind = source.kind
        self.flipped, self.absent = flipped, absent

    def prepare(self, chips: Sequence[ChipRecord]) -> None:
        """Prepare the other source."""
        self.source.prepare(chips)

    def fetch_chips(self, chips: Iterable[ChipRecord]) -> Iterator[FetchedChip]:
        """Yield the chips in the other source's order."""
        for chip, files, _ in self.source.fetch_chips(chips):
            yield gather_files(chip, lambda record: self._spoil(record.filename, files))  # noqa: B023

    def _spoil(self, name: str, files: Mapping[str, bytes]) -> bytes:
        if name in self.absent:
            raise FileError(f"the file {name}", "none")
        data = files[name]
        return data[:-1] + bytes([data[-1] ^ 1]) if name in self.flipped else data


class LoggedSource:
    """Slow; writes into a file when it has fetched a chip, and when that chip is staged.

    Once that file tells of `most` fetched chips, it waits to be killed: that never comes too late.
    """

    kind = "folder"

    def __init__(self, source, log: Path, pause_s: float = 0.0, most: int | None = None) -> None:
        self.source, self.log, self.pause_s, self.most = source, log, pause_s, most

    def prepare(self, chips: Sequence[ChipRecord]) -> None:
        """Note which process prepares, and how many chips."""
        self.source.prepare(chips)
        self.write(f"prepared {len(chips)}")

    def fetch_chips(self, chips: Iterable[ChipRecord]) -> Iterator[FetchedChip]:
        """Yield the chips in the other source's order."""
        for fetched in self.source.fetch_chips(chips):
            time.sleep(self.pause_s)
            while self.most is not None and len(read_log(self.log, "fetched")) >= self.most:
                time.sleep(0.01)
            self.write(f"fetched {fetched.chip.chip_id}")
            yield fetched
            self.write(f"staged {fetched.chip.chip_id}")

    def write(self, line: str) -> None:
        """Append a line with this process's id: one write, so that no two mix."""
        with self.log.open("a") as file:
            file.write(f"{os.getpid()} {line}\n")


def read_log(log: Path, word: str) -> list[str]:
    """Return what stands behind a word in each line of a `LoggedSource`'s log that has it."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.split()[2] for line in lines if line.split()[1] == word]


def pack(chips: Sequence[ChipRecord], folder: Path, source=None, **options) -> PackReport:
    """Pack chips of 32 pixels into `folder`, by default simulated ones."""
    return pack_split(
        chips,
        source or SyntheticSource(32),
        folder / "train.zarr",
        folder / "scratch",
        chip_size=32,
        **options,
    )
