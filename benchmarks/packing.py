"""Speed, memory and growth of packing.

    python benchmarks/packing.py speed FOLDER [--chips 120] [--workers 2] [--rounds 3]
    python benchmarks/packing.py growth [--workers 2]

`speed` packs copies of the real chips that lie in FOLDER as `<chip_id>.tar.xz` beside their
catalogue, and in turns only reads the same TIFFs with rasterio, in as many processes. `growth`
packs 100, 400 and 1,600 small simulated chips.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import sys
import tarfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import rasterio
from rasterio.errors import NotGeoreferencedWarning

from biomassters.dataset.catalogue import read_catalogue
from biomassters.dataset.files import ChipRecord, FileRecord, list_files
from biomassters.packing.assembly import pack_split
from biomassters.processes.counts import count_cores
from biomassters.simulator.official_files import write_dataset
from biomassters.sources.folder_source import FolderSource

OFFICIAL_CHIPS: Final = 11_462
OFFICIAL_GB: Final = 312.5
"""Of all official files."""
GROWTH: Final = (100, 400, 1600)
GROWTH_CHIP_SIZE: Final = 64


class Cost(NamedTuple):
    """What some work took.

    Attributes:
        seconds: On the clock.
        cpu_s: Of all processes.
        peak_mib: The most that this process and its children held at a time.
    """

    seconds: float
    cpu_s: float
    peak_mib: float


def main() -> None:
    """Run one of the benchmarks and print what it measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    speed = commands.add_parser("speed")
    speed.add_argument("folder", type=Path)
    speed.add_argument("--chips", type=int, default=120)
    speed.add_argument("--rounds", type=int, default=3)
    growth = commands.add_parser("growth")
    for command in (speed, growth):
        command.add_argument("--workers", type=int, default=count_cores())
    options = parser.parse_args()
    with TemporaryDirectory() as scratch:
        if options.command == "speed":
            measure_speed(options, Path(scratch))
        else:
            measure_growth(options.workers, Path(scratch))


def measure_speed(options: argparse.Namespace, scratch: Path) -> None:
    """Read and pack the same files in turns, and print rates, their ratio and the sizes."""
    raw = scratch / "raw"
    raw.mkdir()
    for archive in sorted(options.folder.glob("*.tar.xz")):
        with tarfile.open(archive) as members:
            members.extractall(raw, filter="data")
    originals = read_catalogue(options.folder).chips("train")
    chips = copy_chips(originals, raw, options.chips)
    n_bytes = sum(record.size for chip in chips for record in list_files(chip))
    reading, packing = [], []
    for _ in range(options.rounds):
        reading.append(measure(partial(read_with_rasterio, chips, raw, options.workers)))
        with TemporaryDirectory(dir=scratch) as folder:
            work = partial(pack, chips, raw, Path(folder), 256, options.workers)
            packing.append(measure(work))
            packed_bytes = count_bytes(Path(folder) / "train.zarr")
        ratio = reading[-1].seconds / packing[-1].seconds
        print(f"reading: {describe(reading[-1], len(chips))}")
        print(f"packing: {describe(packing[-1], len(chips))}; rate {ratio:.2f} of reading's")
    ratios = [read.seconds / pack.seconds for read, pack in zip(reading, packing, strict=True)]
    best = min(cost.seconds for cost in packing) / len(chips)
    print(
        f"{len(chips)} chips, {options.workers} processes: packing has"
        f" {statistics.median(ratios):.2f} (median; {min(ratios):.2f}...{max(ratios):.2f}) of the"
        f" rate of reading; {n_bytes / len(chips) / best / 1e6:.0f} MB/s;"
        f" peak {max(cost.peak_mib for cost in packing):.0f} MiB;"
        f" the store is {n_bytes / packed_bytes:.2f} times smaller than the files"
    )
    print(
        f"all {OFFICIAL_CHIPS:,} chips ({OFFICIAL_GB} GB): {OFFICIAL_CHIPS * best / 3600:.2f} h,"
        f" a store of {OFFICIAL_GB * packed_bytes / n_bytes:.0f} GB"
    )


def measure_growth(n_workers: int, scratch: Path) -> None:
    """Pack more and more small chips, and print what each costs."""
    raw = scratch / "raw"
    write_dataset(raw, n_train=8, n_test=1, chip_size=GROWTH_CHIP_SIZE)
    originals = read_catalogue(raw).chips("train")
    costs = {}
    for n_chips in GROWTH:
        chips = copy_chips(originals, raw, n_chips)
        with TemporaryDirectory(dir=scratch) as folder:
            work = partial(pack, chips, raw, Path(folder), GROWTH_CHIP_SIZE, n_workers)
            costs[n_chips] = measure(work)
        print(f"{n_chips:,} chips: {describe(costs[n_chips], n_chips)}")
    (few, cheap), (many, dear) = ((n, costs[n]) for n in (GROWTH[0], GROWTH[-1]))
    slope_mib = (dear.peak_mib - cheap.peak_mib) / (many - few)
    peak = dear.peak_mib + slope_mib * (OFFICIAL_CHIPS - many)
    print(
        f"each chip more: {(dear.cpu_s - cheap.cpu_s) / (many - few) * 1e3:.1f} ms of CPU and"
        f" {slope_mib * 1024:.1f} KiB; all {OFFICIAL_CHIPS:,} chips: peak {peak:.0f} MiB"
    )


def pack(chips: list[ChipRecord], raw: Path, folder: Path, chip_size: int, n_workers: int) -> None:
    """Pack chips into `train.zarr` under a folder."""
    report = pack_split(
        chips,
        FolderSource(raw),
        folder / "train.zarr",
        folder / "scratch",
        chip_size=chip_size,
        n_workers=n_workers,
    )
    if report.fetched != len(chips):
        raise RuntimeError(f"expected {len(chips)} chips to be packed, got {report}")


def read_with_rasterio(chips: list[ChipRecord], raw: Path, n_workers: int) -> None:
    """Read all files of chips, each chip in one of the processes."""
    jobs = [[raw / file.folder / file.filename for file in list_files(chip)] for chip in chips]
    with multiprocessing.get_context("spawn").Pool(n_workers) as pool:
        for _ in pool.imap_unordered(read_files, jobs):
            pass


def read_files(paths: list[Path]) -> None:
    """Read files whole."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        for path in paths:
            with rasterio.open(path) as dataset:
                dataset.read()


def copy_chips(originals: list[ChipRecord], raw: Path, n_chips: int) -> list[ChipRecord]:
    """Link the files of chips under other names, in turns, and return the records of these."""
    chips = []
    for number in range(n_chips):
        chip, chip_id = originals[number % len(originals)], f"copy{number:05}"

        def copy(record: FileRecord | None, old: str, new: str) -> Any:
            if record is None:
                return None
            name = record.filename.replace(old, new)
            target = raw / record.folder / name
            if not target.exists():
                os.link(raw / record.folder / record.filename, target)
            return record._replace(filename=name)

        s1, s2 = (
            tuple(copy(record, chip.chip_id, chip_id) for record in records)
            for records in (chip.s1, chip.s2)
        )
        agbm = copy(chip.agbm, chip.chip_id, chip_id)
        chips.append(ChipRecord(chip_id, "train", s1, s2, agbm))
    return chips


def measure(work: Callable[[], None]) -> Cost:
    """Do some work and return what it took, in this process and those that it starts."""
    with watch_memory() as sums:
        seconds, cpu_s = -time.perf_counter(), -count_cpu_s()
        work()
        seconds, cpu_s = seconds + time.perf_counter(), cpu_s + count_cpu_s()
    return Cost(seconds, cpu_s, max(sums))


@contextmanager
def watch_memory() -> Iterator[list[float]]:
    """Collect what this process and its children hold, MiB, every 50 ms."""
    sums = [count_mib()]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            sums.append(count_mib())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield sums
    finally:
        over.set()
        thread.join()


def count_mib() -> float:
    """Return the resident memory of this process and its children; what they share counts often."""
    pids = [str(os.getpid())]
    for task in Path("/proc/self/task").iterdir():
        pids += (task / "children").read_text().split()
    pages = 0
    for pid in pids:
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:  # it has just ended
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def count_cpu_s() -> float:
    """Return the processor time of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def count_bytes(folder: Path) -> int:
    """Return the size of all files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def describe(cost: Cost, n_chips: int) -> str:
    """Return a line of figures."""
    return (
        f"{cost.seconds:.1f} s, {n_chips / cost.seconds:.1f} chips/s,"
        f" {cost.cpu_s / n_chips * 1e3:.1f} ms CPU a chip, peak {cost.peak_mib:.0f} MiB"
    )


if __name__ == "__main__":
    main()
