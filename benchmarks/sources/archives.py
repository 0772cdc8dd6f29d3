"""Time and memory of indexing archives: python benchmarks/sources/archives.py [N_CHIPS].

Makes a zip and a tar of 24 tiny files a chip in a temporary folder (as many members as the whole
dataset has: 10,518 chips), and reads each in a process of its own.
"""

import multiprocessing
import pickle
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

from biomassters.dataset.files import ChipRecord, FileRecord, feature_filename, list_files
from biomassters.sources.archives.archive_source import ArchiveSource
from biomassters.store.bands import N_MONTHS

DATA = bytes(16)


def iterate_chips(n_chips: int) -> Iterator[ChipRecord]:
    """Yield the records of chips of tiny files."""
    for number in range(n_chips):
        chip_id = f"{number:08x}"
        s1, s2 = (
            tuple(
                FileRecord(feature_filename(chip_id, sensor, month), "train_features", 16, None)
                for month in range(N_MONTHS)
            )
            for sensor in ("S1", "S2")
        )
        yield ChipRecord(chip_id, "train", s1, s2, None)


def write_archives(folder: Path, n_chips: int) -> None:
    """Write `zip/a.zip` and `tar/a.tar`."""
    for kind in ("zip", "tar"):
        (folder / kind).mkdir()
    with (
        zipfile.ZipFile(folder / "zip" / "a.zip", "w") as archive,
        (folder / "tar" / "a.tar").open("wb") as tar,
    ):
        for chip in iterate_chips(n_chips):
            for record in list_files(chip):
                path = f"{record.folder}/{record.filename}"
                archive.writestr(path, DATA)
                header = tarfile.TarInfo(path)
                header.size = len(DATA)
                tar.write(header.tobuf(tarfile.GNU_FORMAT) + DATA + bytes(512 - len(DATA)))
        tar.write(bytes(1024))


def peak_mib() -> float:
    """Return the most memory that this process has held (Linux)."""
    # The system's ru_maxrss begins with what the parent held.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def read_archive(folder: Path, n_chips: int) -> None:
    """Index an archive, read it, and print what both took."""
    chips = list(iterate_chips(n_chips))
    before = peak_mib()
    source, start = ArchiveSource(folder), time.perf_counter()
    source.prepare(chips)
    indexed, memory = time.perf_counter(), peak_mib() - before
    n_files = sum(len(chip.files) for chip in source.fetch_chips(chips))
    read = time.perf_counter()
    print(
        f"{folder.name}: {n_files:,} members, indexed in {indexed - start:.1f} s and"
        f" {memory:.0f} MiB, the index {len(pickle.dumps(source)) / 2**20:.0f} MiB;"
        f" read in {read - indexed:.1f} s"
    )


def main() -> None:
    """Write the archives and read each."""
    n_chips = int(sys.argv[1]) if len(sys.argv) > 1 else 10_518
    with tempfile.TemporaryDirectory() as name:
        write_archives(Path(name), n_chips)
        for kind in ("zip", "tar"):
            arguments = (Path(name) / kind, n_chips)
            process = multiprocessing.get_context("spawn").Process(
                target=read_archive, args=arguments
            )
            process.start()
            process.join()


if __name__ == "__main__":
    main()
