"""Speed of reading: our store against the 24 TIFFs of a chip.

    python benchmarks/loader.py CHIPS --quick
    python benchmarks/loader.py CHIPS --batch 8 --rounds 9 --json loader.json

CHIPS is a folder of official chips as `.tar.xz` archives, with their catalogue. They are extracted
and packed in a temporary folder, and lie in the page cache: disks are not measured. Variants take
turns, so that what else the machine does hits all of them alike; ratios are of the same turn.

The winner's way is his arithmetic in numpy, with rasterio as the reader, in worker processes of
torch's DataLoader. Our batches hold integers, which the model normalises on its device; `and
normalised here` does that in this process, to give the same tensor.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from biomassters.batches.order import StoreOrder
from biomassters.batches.reading import Batch, Batches, StoredChips
from biomassters.dataset.catalogue import read_catalogue
from biomassters.dataset.files import ChipRecord, target_filename
from biomassters.model.normalisation import BandNormalisation
from biomassters.packing.assembly import pack_split
from biomassters.processes.counts import count_cores
from biomassters.sources.folder_source import FolderSource
from biomassters.statistics.figures import (
    PUBLISHED_MAXIMUM,
    PUBLISHED_MINIMUM,
    publish_normalisation,
)
from biomassters.store.bands import BANDS, N_MONTHS, N_S1, S1_NODATA_DB
from biomassters.store.chips import ChipStore
from biomassters.store.georeference import allow_nowhere
from measuring import Row, format_table

CHIP_SIZE: Final = 256
LOW: Final = np.array(PUBLISHED_MINIMUM, np.float32)[:, None, None]
SPREAD: Final = np.array(PUBLISHED_MAXIMUM, np.float32)[:, None, None] - LOW
TOLERANCE: Final = 1e-4
"""Of normalised values: a store keeps 0.01 dB of about 55."""

Variants = Mapping[str, Callable[[], Any]]


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chips", type=Path, help="folder of archives and their catalogue")
    parser.add_argument("--batch", type=int, default=4, help="chips a batch")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each variant")
    parser.add_argument("--quick", action="store_true", help="3 turns, few chips")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    options = parser.parse_args()
    if options.quick:
        options.rounds = 3
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chips, store = prepare(options.chips, folder)
        print(f"largest difference of the normalised tensors: {compare(chips, folder, store):.1e}")
        rows = measure(list_readers(chips, folder, store), len(chips), options.rounds)
        tables = {"one chip after another, in this process": rows}
        n_chips = (2 if options.quick else 6) * options.batch
        order = StoreOrder([i % len(chips) for i in range(n_chips)], options.batch)
        for n_workers in (1, 2):
            loaders = list_loaders(chips, folder, store, order, n_workers)
            tables[f"batches of {options.batch}, {n_workers} worker(s)"] = measure(
                loaders, n_chips, options.rounds
            )
    print(describe_machine())
    for title, rows in tables.items():
        print(f"\n{title}\n{format_table(rows)}")
    if options.json:
        options.json.write_text(json.dumps(tables, indent=2) + "\n", encoding="utf-8")


def prepare(chips: Path, folder: Path) -> tuple[list[ChipRecord], ChipStore]:
    """Extract and pack all chips."""
    for archive in sorted(chips.glob("*.tar.xz")):
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    records = list(read_catalogue(chips).chips("train"))
    path = folder / "train.zarr"
    pack_split(records, FolderSource(folder), path, folder / "scratch", chip_size=CHIP_SIZE)
    return records, ChipStore.open(path)


def compare(chips: list[ChipRecord], folder: Path, store: ChipStore) -> float:
    """Return by how much the normalised tensors of the two ways differ at most."""
    largest = 0.0
    for chip, batch in zip(
        chips, Batches(StoredChips(store), StoreOrder(range(len(chips)), 1), 0), strict=True
    ):
        images, target = read_tiffs(chip, folder)
        ours = normalise(batch)[0].numpy()
        largest = max(largest, float(np.abs(ours - images).max()))
        np.testing.assert_array_equal(batch.target[0].numpy(), target)
    if largest > TOLERANCE:
        raise SystemExit(f"expected tensors within {TOLERANCE}, got {largest}")
    return largest


def list_readers(chips: list[ChipRecord], folder: Path, store: ChipStore) -> Variants:
    """Return what reads all chips once, without batches."""
    variants = {
        "TIFFs, normalised": lambda: [read_tiffs(chip, folder) for chip in chips],
        "TIFFs": lambda: [read_tiffs(chip, folder, normalised=False) for chip in chips],
        "our store": lambda: [store.read_chip(index) for index in range(len(chips))],
    }
    for library in ("zarr", "zarrs"):
        if importlib.util.find_spec(library):
            variants[f"our store by {library}"] = read_by_zarr(store.path, len(chips), library)
    return variants


def read_by_zarr(path: Path, n_chips: int, library: str) -> Callable[[], Any]:
    """Return what reads all chips by zarr-python, with its own codecs or those of zarrs."""
    import zarr

    zarr.config.set({"threading.max_workers": 1})
    pipeline = {
        "zarr": "zarr.core.codec_pipeline.BatchedCodecPipeline",
        "zarrs": "zarrs.ZarrsCodecPipeline",
    }
    with zarr.config.set({"codec_pipeline.path": pipeline[library]}):
        group = zarr.open_group(path, mode="r")
        arrays = [group[name] for name in ("s1", "s2", "agbm")]
    return lambda: [[array[index] for array in arrays] for index in range(n_chips)]


def list_loaders(
    chips: list[ChipRecord], folder: Path, store: ChipStore, order: StoreOrder, n_workers: int
) -> Variants:
    """Return what reads all batches of an order."""
    tiffs: DataLoader[Any] = DataLoader(
        TiffChips(chips, folder),
        batch_sampler=order,
        num_workers=n_workers,
        persistent_workers=True,
    )
    batches = Batches(StoredChips(store), order, n_workers)
    return {
        "TIFFs, normalised": lambda: exhaust(tiffs),
        "our store": lambda: exhaust(batches),
        "our store, and normalised here": lambda: exhaust(map(normalise, batches)),
    }


class TiffChips(Dataset[Any]):
    """Chips as the winner reads them."""

    def __init__(self, chips: list[ChipRecord], folder: Path) -> None:
        self.chips = chips
        self.folder = folder

    def __getitem__(self, index: int) -> Any:
        """Read a chip's images and target."""
        return read_tiffs(self.chips[index], self.folder)


def read_tiffs(
    chip: ChipRecord, folder: Path, *, normalised: bool = True
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read all files of a chip; its images (12, 15, H, W) as the winner scales them, its target."""
    images = np.zeros((N_MONTHS, len(BANDS), CHIP_SIZE, CHIP_SIZE), np.float32)
    for month, (s1, s2) in enumerate(zip(chip.s1, chip.s2, strict=True)):
        backscatter = read_tiff(folder / s1.folder / s1.filename)
        optical = None if s2 is None else read_tiff(folder / s2.folder / s2.filename)
        if normalised:
            scaled = (backscatter - LOW[:N_S1]) / SPREAD[:N_S1]
            images[month, :N_S1] = np.where(backscatter == S1_NODATA_DB, 0, scaled)
            if optical is not None:
                images[month, N_S1:] = optical.astype(np.float32) / SPREAD[N_S1:]
    target = read_tiff(folder / f"{chip.split}_agbm" / target_filename(chip.chip_id))
    return images, target[0]


def read_tiff(path: Path) -> NDArray[Any]:
    """Read all bands."""
    with allow_nowhere(), rasterio.open(path) as dataset:
        bands: NDArray[Any] = dataset.read()
    return bands


def normalise(batch: Batch) -> torch.Tensor:
    """Scale a batch as the model does on its device."""
    return NORMALISATION(batch.s1, batch.s2, batch.s2_present)  # type: ignore[no-any-return]


NORMALISATION: Final = BandNormalisation.from_statistics("minmax", publish_normalisation())


def exhaust(batches: Iterable[Any]) -> None:
    """Read all batches, and drop each."""
    for _ in batches:
        pass


def measure(variants: Variants, n_chips: int, rounds: int) -> list[Row]:
    """Time variants in turns, and compare each with the first; each runs once before."""
    for read in variants.values():
        read()
    wall: dict[str, list[float]] = {name: [] for name in variants}
    cpu: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, read in variants.items():
            started, used = time.perf_counter(), count_cpu_seconds()
            read()
            wall[name].append((time.perf_counter() - started) / n_chips)
            cpu[name].append((count_cpu_seconds() - used) / n_chips)
    first = next(iter(variants))
    return [
        {
            "reads": name,
            "chips/s": 1 / statistics.median(wall[name]),
            "ms": 1000 * statistics.median(wall[name]),
            "CPU ms": 1000 * statistics.median(cpu[name]),
            "times faster (range)": compare_turns(wall[first], wall[name]),
            "times less CPU (range)": compare_turns(cpu[first], cpu[name]),
        }
        for name in variants
    ]


def compare_turns(first: list[float], other: list[float]) -> str:
    """Return the median, and the least and the greatest, of the ratios of the same turns."""
    ratios = [a / b for a, b in zip(first, other, strict=True)]
    return f"{statistics.median(ratios):.1f} ({min(ratios):.1f}-{max(ratios):.1f})"


def count_cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its workers so far."""
    ticks = 0
    for worker in multiprocessing.active_children():
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # user and system
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def describe_machine() -> str:
    """Return what times must be read with."""
    cores, load = count_cores(), os.getloadavg()[0]
    return (
        f"{cores} cores of {platform.machine()}, load {load:.1f},"
        f" torch {torch.__version__}, rasterio {rasterio.__version__}"
    )


if __name__ == "__main__":
    main()
