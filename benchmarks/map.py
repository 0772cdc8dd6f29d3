"""Speed and memory of maps: a scene of any size, made as `python -m biomassters map` makes it.

    python benchmarks/map.py --size 1024
    python benchmarks/map.py --source rasters --repeat --size 10980 --memory 2GiB --json map.json
    python benchmarks/map.py --case winner --size 768
    python benchmarks/map.py --models models/final --calibration calibration.json

Weights are random unless there are `--models`: they take as long. Scene, weights and map lie in a
temporary folder; `--repeat` writes one simulated square, which VRTs repeat, so that a scene of any
size takes little of it. Such files come from memory, not from a disk or a network.

The map is made by a process that does nothing else, whose memory is what is shown, torch and all;
with `--workers` the largest worker's. Shares are of the time that tiles took: what the model waited
for its input, what it took to put tiles together and write them, and the rest, which is the model
and what prepares its input. A window counts once, however often it was computed.
"""

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from biomassters.batches.symmetries import views
from biomassters.mapping.job import MapJob
from biomassters.mapping.memory import parse_memory
from biomassters.mapping.parts import DEFAULT_TILE_SIZE, check_tile_size
from biomassters.mapping.pixel_areas import measure_box
from biomassters.mapping.running import KM2, Means, make_map
from biomassters.mapping.windows import Windows
from biomassters.model.execution import DTYPES
from biomassters.model.weights import save_weights
from biomassters.model.weights_header import CLEANING_KEY
from biomassters.params.sections import EngineName, ViewsName
from biomassters.scenes.grid import Box
from biomassters.scenes.opening import open_scene
from engines import warm
from map_scenes import write_rasters, write_synthetic
from measuring import CASES, ROOT, Preset, Row, build_model, peak_gib, read_preset, report

CPU = torch.device("cpu")
WARMING_PIXELS = 256 * 256
"""Of the windows whose features the norms of random weights learn."""
UNCALIBRATED = ROOT / "presets/uncalibrated.json"


def main() -> None:
    """Measure one map."""
    options = parse_options()
    if options.device.type == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # of the process that makes the map
    with tempfile.TemporaryDirectory(prefix="benchmark-map-") as folder:
        job = describe_job(options, Path(folder))
        means = Means(workers=options.workers, memory=options.memory)
        # Spawned, so that it has nothing of what was done here.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            row = process.submit(measure, job, means).result()
    report(options, [{"source": name_source(options), "pixels": options.size, **row}])


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=CASES, default="embedded", help="which preset's model")
    parser.add_argument("--models", type=Path, help="a folder of weights, in place of random ones")
    parser.add_argument("--calibration", type=Path, default=UNCALIBRATED, help="of the models")
    parser.add_argument("--size", type=int, default=2048, help="side of the scene, pixels")
    parser.add_argument("--source", choices=("synthetic", "rasters"), default="synthetic")
    parser.add_argument("--repeat", action="store_true", help="rasters: one square again and again")
    parser.add_argument("--tile-size", type=int, default=DEFAULT_TILE_SIZE, help="pixels")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--memory", type=parse_memory, help="of each process, such as 2GiB")
    parser.add_argument("--tta", choices=get_args(ViewsName), help="default: the preset's")
    parser.add_argument("--precision", choices=DTYPES, help="default: the preset's")
    parser.add_argument("--engine", choices=get_args(EngineName), help="default: the preset's")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    options = parser.parse_args()
    check_tile_size(options.tile_size)
    options.device = torch.device(options.device)
    options.cpu_clock = False
    options.chip_size = read_preset(options.case).data.chip_size
    return options


def name_source(options: argparse.Namespace) -> str:
    """Return what the scene is, for the table."""
    return "rasters, repeated" if options.repeat else str(options.source)


def describe_job(options: argparse.Namespace, folder: Path) -> MapJob:
    """Write a scene and weights, and return the job of its map."""
    preset = read_preset(options.case)
    asked = {key: getattr(options, key) for key in ("precision", "engine")}
    predict = preset.predict.model_copy(
        update={
            "calibration": str(options.calibration),
            **{key: value for key, value in asked.items() if value is not None},
        }
    )
    if options.source == "rasters":
        scene = write_rasters(folder, options.size, repeat=options.repeat)
    else:
        scene = write_synthetic(folder, options.size)
    return MapJob(
        scene=scene,
        folder=folder / "map",
        models=options.models or draw_weights(folder / "models", preset, scene),
        window_size=preset.data.chip_size,
        cleaning=preset.cleaning,
        predict=predict,
        map=preset.map.model_copy(update={"tta": options.tta or preset.map.tta}),
        tile_size=options.tile_size,
    )


def draw_weights(folder: Path, preset: Preset, scene: Path) -> Path:
    """Write a model of random weights whose norms know the scene, and return its folder."""
    model, size = build_model(preset).eval(), preset.data.chip_size
    opened = open_scene(scene)
    windows = [opened.read(box) for box in spread_boxes(opened.grid.extent, size)]
    s1 = torch.from_numpy(np.stack([window.s1 for window in windows]))
    s2 = torch.from_numpy(np.stack([window.s2 for window in windows]))
    present = torch.from_numpy(np.stack([window.find_present_months() for window in windows]))
    with torch.no_grad():
        warm(model, model.normalise(s1, s2, present))
    save_weights(folder / "random.safetensors", model, {CLEANING_KEY: preset.cleaning})
    return folder


def spread_boxes(extent: Box, size: int) -> list[Box]:
    """Return windows along a scene's diagonal: one large one, or many small ones."""
    n_boxes = max(1, WARMING_PIXELS // size**2)
    return [
        Box(
            extent.row + int((extent.height - size) * (n + 0.5) / n_boxes),
            extent.column + int((extent.width - size) * (n + 0.5) / n_boxes),
            size,
            size,
        )
        for n in range(n_boxes)
    ]


def measure(job: MapJob, means: Means) -> Row:
    """Make a map, and return how long it took and what memory."""
    started = time.monotonic()
    run = make_map(job, means)
    seconds = time.monotonic() - started
    outcome, grid = run.outcome, open_scene(job.scene).grid
    n_windows = count_windows(job.windows, grid.extent) * len(views(job.map.tta))
    peak = peak_gib(CPU)
    if means.workers > 1:
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    waiting, writing = (part / outcome.seconds for part in (outcome.waiting_s, outcome.writing_s))
    row = {
        "tile": job.tile_size,
        "workers": means.workers,
        "km²/s": measure_box(grid, grid.extent) / KM2 / run.seconds,
        "windows/s": n_windows / run.seconds,
        "waiting": waiting,
        "writing": writing,
        "computing": 1 - waiting - writing,
        "tiles, s": run.seconds,
        "all, s": seconds,
        "peak GiB": peak,
    }
    if torch.cuda.is_available():
        row["GPU GiB"] = peak_gib(torch.device("cuda"))
    return row


def count_windows(windows: Windows, area: Box) -> int:
    """Return how many windows of the lattice reach into an area."""
    counts = [
        (end - 1) // windows.stride - (start - windows.size) // windows.stride
        for start, end in ((area.row, area.end_row), (area.column, area.end_column))
    ]
    return counts[0] * counts[1]


if __name__ == "__main__":
    main()
