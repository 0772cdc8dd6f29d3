"""What tells simulated chips from real ones: figures of a chip by month and band, and its readers.

Real chips come in several sizes; all are compared on a grid of 32 x 32 pixels of 80 m.
"""

import sys
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from biomassters.simulator.chip import SimulatedChip
from biomassters.store.bands import (
    BANDS,
    CLP,
    CLP_NODATA,
    N_MONTHS,
    N_S1,
    N_S2,
    S1_NODATA_DB,
    S1_STORED_NODATA,
    S1_STORED_SCALE_DB,
)
from biomassters.store.chips import ChipStore

Floats = npt.NDArray[np.float64]

GRID: Final = 32
KINDS: Final = ("mean", "deviation", "10 %", "90 %", "correlation with AGBM", "neighbours")
"""Of each month and band: mean, standard deviation, percentiles; correlation, pixel by pixel, with
AGBM and of each pixel with the next one in its row."""
MEAN, DEVIATION, LOW, HIGH, WITH_AGBM, NEIGHBOURS = range(len(KINDS))
_MIN_SEEN: Final = 0.5
"""A month of which less is seen has no figures."""


def read_real_chips(path: Path) -> Iterator[tuple[str, SimulatedChip]]:
    """Read chips with targets: a store of this pipeline, or a folder of archives.

    Args:
        path: `chips/train.zarr`, or a folder with `<chip_id>.tar.xz` (the official files of a
            chip) or `<chip_id>.npz` (arrays s1, s2, s2_present and agbm).

    Yields:
        Names and chips, sorted.
    """
    if path.suffix == ".zarr":
        store = ChipStore.open(path)
        for index, chip_id in enumerate(store.chip_ids):
            chip = store.read_chip(index)
            if chip.agbm is not None:
                s1 = np.where(chip.s1 == S1_STORED_NODATA, np.nan, chip.s1 * S1_STORED_SCALE_DB)
                s1_db = s1.astype(np.float32)
                yield chip_id, SimulatedChip(s1_db, chip.s2, chip.s2_present, chip.agbm)
    for archive in sorted([*path.glob("*.tar.xz"), *path.glob("*.npz")]):
        read = read_npz if archive.suffix == ".npz" else read_archive
        yield archive.name.partition(".")[0], read(archive)


def read_archive(path: Path) -> SimulatedChip:
    """Read a chip from an archive of its official files; a month without a file is absent."""
    images: dict[str, npt.NDArray[np.generic]] = {}
    with tarfile.open(path) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        for member in archive.getmembers():
            content = archive.extractfile(member)
            if content is not None and member.name.endswith(".tif"):
                with MemoryFile(content.read()) as file, file.open() as raster:
                    images[Path(member.name).stem.split("_", 1)[1]] = raster.read()
    present = np.array([f"S2_{month:02d}" in images for month in range(N_MONTHS)])
    absent = np.zeros((N_S2, *images["agbm"].shape[1:]), np.uint16)
    absent[CLP] = CLP_NODATA
    return SimulatedChip(
        s1=np.stack([images[f"S1_{month:02d}"] for month in range(N_MONTHS)]),
        s2=np.stack([images.get(f"S2_{month:02d}", absent) for month in range(N_MONTHS)]),
        s2_present=present,
        agbm=images["agbm"][0],
    )


def read_npz(path: Path) -> SimulatedChip:
    """Read a chip from arrays named as the attributes of `SimulatedChip`."""
    with np.load(path) as arrays:
        return SimulatedChip(**{name: arrays[name] for name in ("s1", "s2", "s2_present", "agbm")})


def measure_chip(chip: SimulatedChip, *, grid: int | None = GRID) -> Floats:
    """Compute the figures of a chip.

    Args:
        chip: Of a size that is a multiple of `grid`.
        grid: Pixels a side, on which the figures are taken, by means of blocks; None: as it is.

    Returns:
        (12, 15, 6): months, bands of S1 and S2, `KINDS`; NaN where absent or hardly seen.
    """
    s1 = np.where(chip.s1 > S1_NODATA_DB / 10, chip.s1, np.nan).astype(np.float64)
    hidden = (chip.s2[:, CLP] == CLP_NODATA) | ~chip.s2_present[:, None, None]
    s2 = np.where(hidden[:, None], np.nan, chip.s2)
    images, agbm = np.concatenate([s1, s2], axis=1), chip.agbm.astype(np.float64)
    if grid is not None:
        images, agbm = _average_blocks(images, grid), _average_blocks(agbm, grid)
    figures = np.full((N_MONTHS, len(BANDS), len(KINDS)), np.nan)
    for month in range(N_MONTHS):
        for band in range(N_S1 + N_S2):
            image = images[month, band]
            seen = np.isfinite(image)
            if seen.mean() >= _MIN_SEEN:
                values = image[seen]
                figures[month, band] = [
                    *(values.mean(), values.std(), *np.percentile(values, (10, 90))),
                    _correlate(image, agbm),
                    _correlate(image[:, 1:], image[:, :-1]),
                ]
    return figures


def _average_blocks(images: Floats, grid: int) -> Floats:
    """Average (..., H, W) to (..., grid, grid); a block with a hidden pixel is hidden."""
    factor = images.shape[-1] // grid
    blocks = images.reshape(*images.shape[:-2], grid, factor, grid, factor)
    averages: Floats = blocks.mean(axis=(-3, -1))
    return averages


def _correlate(a: Floats, b: Floats) -> float:
    """Correlate two images over the pixels that both have; NaN where one is constant."""
    both = np.isfinite(a) & np.isfinite(b)
    x, y = a[both] - a[both].mean(), b[both] - b[both].mean()
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / scale if scale > 0 else float("nan")
