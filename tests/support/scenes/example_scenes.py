"""Scenes in memory, and the small model that maps them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
import torch
from example_models import build
from numpy.typing import NDArray

from biomassters.errors import UnreadableRasterError
from biomassters.mapping.job import MapJob, Mapper
from biomassters.mapping.layout import list_tiles
from biomassters.mapping.making import Outcome, make_tiles
from biomassters.mapping.parts import cut_tiles
from biomassters.model.weights import save_weights
from biomassters.params.map_sections import MapParams
from biomassters.params.sections import PredictParams
from biomassters.scenes.grid import Box, Grid
from biomassters.scenes.scene import Pixels, make_nodata
from biomassters.store.bands import BANDS

UNCALIBRATED = Path(__file__).parents[3] / "presets/uncalibrated.json"
PREDICT = PredictParams(
    models="final",
    calibration=str(UNCALIBRATED),
    tta="none",
    clamp=False,
    batch_size=4,
    precision="fp32",
    engine="torch",
)


class ArrayScene:
    """A scene whose pixels lie in memory.

    Attributes:
        pixels: Of its extent.
        broken: Boxes that cannot be read.
        reads: What has been read.
    """

    def __init__(self, grid: Grid, seed: int = 0, identity: str = "0123456789abcdef") -> None:
        self.name, self.identity = "arrays", identity
        self.period = ("2020-09-01", "2021-08-31")
        self.bands: tuple[str, ...] = BANDS
        self.grid = grid
        self.pixels = draw_pixels(grid.extent, seed)
        self.kept_bytes = 0
        self.broken: list[Box] = []
        self.reads: list[Box] = []

    def read(self, box: Box) -> Pixels:
        """Read a box; beyond the extent there is nothing."""
        self.reads.append(box)
        for broken in self.broken:
            if broken.intersect(box):
                raise UnreadableRasterError("expected a raster, got an error 503, at some address")
        found = make_nodata(box)
        common = box.intersect(self.grid.extent)
        if common is not None:
            part = self.pixels.cut(*common.within(self.grid.extent))
            for image, of_part in zip(found, part, strict=True):
                image[..., *common.within(box)] = of_part
        return found


def draw_pixels(box: Box, seed: int = 0) -> Pixels:
    """Draw blotches in the ranges of both sensors, with a month of S2 absent."""
    generator = np.random.default_rng(seed)
    coarse = generator.normal(size=(12, 15, box.height // 8 + 1, box.width // 8 + 1))
    fields = coarse.repeat(8, 2).repeat(8, 3)[:, :, : box.height, : box.width]
    fields = fields + 0.3 * generator.normal(size=fields.shape)
    s1 = np.clip(-1300 + 300 * fields[:, :4], -5000, 500).astype(np.int16)
    s2 = np.clip(1500 + 500 * fields[:, 4:], 1, 9000).astype(np.uint16)
    s2[:, 10] = np.clip(20 * fields[:, 14], 0, 100)
    s2[3] = 65535
    return Pixels(s1, s2)


def make_job(folder: Path, *, window: int = 64, tile_size: int = 128, **changes: object) -> MapJob:
    """Return the job of a map by a small model of random weights, which it writes."""
    models = folder / "models"
    if not models.exists():
        save_weights(models / "one.safetensors", build(**changes), {"cleaning": "none"})  # type: ignore[arg-type]
    return MapJob(
        scene=folder / "arrays.yaml",
        folder=folder / "map",
        models=models,
        window_size=window,
        cleaning="none",
        predict=PREDICT,
        map=MapParams(overlap=0.25, tta="none"),
        tile_size=tile_size,
    )


def make(job: MapJob, scene: ArrayScene, tiles: Sequence[Box] | None = None) -> Outcome:
    """Make tiles of a scene, all by default, on the CPU."""
    mapper = Mapper(job, scene, torch.device("cpu"))
    total = Outcome()
    for outcome in make_tiles(mapper, tiles or cut_tiles(scene.grid, job.tile_size)):
        total.add(outcome)
    return total


def map_scene(job: MapJob, scene: ArrayScene, n_made: int | None = None) -> NDArray[np.float32]:
    """Make a whole map, and return its pixels, (bands, H, W)."""
    outcome = make(job, scene)
    assert n_made is None or len(outcome.made) == n_made
    return read_map(job.folder, scene.grid)


def read_map(folder: Path, grid: Grid) -> NDArray[np.float32]:
    """Return a map's pixels, (bands, H, W), by reading each tile."""
    pixels = None
    for path in list_tiles(folder):
        with rasterio.open(path) as tile:
            y, x = -tile.transform.f / grid.resolution, tile.transform.c / grid.resolution
            if pixels is None:
                pixels = np.full((tile.count, *grid.extent.shape), -1, np.float32)
            pixels[:, *Box(round(y), round(x), *tile.shape).within(grid.extent)] = tile.read()
    assert pixels is not None
    return pixels
