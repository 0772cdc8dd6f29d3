"""On a GPU nothing meets what lies on the CPU, and the host hardly ever waits for it.

On a pretended one, in processes of their own (`pretended_gpu`); `tests/gpu` needs a real one.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from example_scenes import ArrayScene, make_job, read_map
from pretended_gpu import GPU, move, pretend_gpu
from tiny_trainers import make_recipe, make_trainer
from tiny_training import IDS, build_tiny_model, optimise, pack_chips
from together import run_together
from tqdm import tqdm

from biomassters.batches.order import StoreOrder
from biomassters.batches.reading import open_batches
from biomassters.mapping.job import Mapper
from biomassters.mapping.making import make_tiles
from biomassters.mapping.parts import cut_tiles
from biomassters.mapping.windows import Windows
from biomassters.model.biomass_model import BiomassModel
from biomassters.prediction.inference import predict_batches
from biomassters.scenes.grid import Box, Grid
from biomassters.store.chips import ChipStore
from biomassters.training.validation import HeldOut

MODELS: list[dict[str, Any]] = [
    {},
    {"missing_months": "mask", "month_encoding": "learned"},
    {"missing_months": "nearest", "month_aggregation": "mean"},
    {"head": "quantiles", "target_scaling": "log"},
]
TRAININGS: list[dict[str, Any]] = [
    {"ema_decay": 0.9, "batch_norm_chips": 2, "loss": "mae_ssim"},
    {"precision": "bf16", "loss": "huber"},
    {"precision": "fp16"},
]
GRID = Grid("EPSG:3067", 10.0, Box(-688_700, 44_810, 90, 300))


@pytest.fixture(scope="module")
def chips(tmp_path_factory: pytest.TempPathFactory) -> ChipStore:
    return pack_chips(tmp_path_factory.mktemp("chips"), *IDS[:3])


def run(function: str, *arguments: object) -> Any:
    variables = {"BIOMASSTERS_WORKERS": "0"}
    (found,) = run_together(__name__, function, *map(str, arguments), size=1, variables=variables)
    return found


def predict(folder: str, number: str) -> dict[str, Any]:
    """Predict chips on both devices."""
    store, model = ChipStore.open(Path(folder)), build_tiny_model(**MODELS[int(number)]).eval()
    batches = open_batches(store, StoreOrder([2, 0, 1], 2))
    expected = list(predict_batches([model], batches, (0, 4), precision="fp32"))
    with pretend_gpu() as gpu:
        found = list(predict_batches([move(model)], batches, (0, 4), precision="fp32"))
    assert [chip.chip_index for chip in found] == [2, 0, 1]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.prediction, other.prediction, atol=1e-3)
        np.testing.assert_array_equal(one.target, other.target)
    return {"waits": gpu.waits, "bounds": found[0].bounds is not None}


@pytest.mark.parametrize("number", range(len(MODELS)))
def test_predictions_are_those_of_the_cpu_and_the_host_never_waits(
    chips: ChipStore, number: int
) -> None:
    found = run("predict", chips.path, number)
    assert found == {"waits": [], "bounds": "head" in MODELS[number]}


def train(folder: str, number: str) -> dict[str, Any]:
    """Train for two epochs and validate, on both devices, with weights that stay as they are."""
    store, optimisation = ChipStore.open(Path(folder)), optimise(**TRAININGS[int(number)])
    phase = {"lr_min": 0, "frozen_encoder_epochs": 1}
    recipe = make_recipe(lr=1e-12, optimisation=optimisation, phase=phase)
    score = HeldOut(store, [2, 0], optimisation, (0, 4)).score

    def train_and_validate(model: BiomassModel, waits: list[str]) -> dict[str, Any]:
        trainer = make_trainer(store, recipe, model=model, indices=(0, 1, 2), validate=score)
        waits.clear()
        epochs = [trainer._train_epoch(epoch, tqdm(disable=True)) for epoch in range(2)]
        of_training = waits.copy()
        waits.clear()
        scores = trainer._validate_epoch(2)
        losses = [epoch["train/loss"] for epoch in epochs]
        return {"numbers": [*losses, *scores.values()], "waits": [of_training, waits]}

    expected = train_and_validate(build_tiny_model(), [])
    with pretend_gpu() as gpu:
        found = train_and_validate(move(build_tiny_model()), gpu.waits)
    return {"expected": expected["numbers"], "found": found["numbers"], "waits": found["waits"]}


@pytest.mark.parametrize("number", range(len(TRAININGS)))
def test_training_is_that_of_the_cpu_and_the_host_waits_once_an_epoch(
    chips: ChipStore, number: int
) -> None:
    on_gpu = run("train", chips.path, number)
    assert on_gpu["waits"] == [["_refuse_non_finite_weights"] * 2, []]
    assert on_gpu["found"] == pytest.approx(on_gpu["expected"], rel=3e-3)


def map_scene_on(device: torch.device, folder: Path, waits: list[str]) -> np.ndarray:
    """Map a scene in four tiles, of which neighbours share blocks."""
    job = replace(make_job(folder), folder=folder / device.type)
    mapper = Mapper(job, ArrayScene(GRID), device)
    mapper.settle_engines()
    assert mapper.fingerprint  # for which the weights are looked at
    waits.clear()
    for outcome in make_tiles(mapper, cut_tiles(GRID, job.tile_size)):
        assert not outcome.failed
    return read_map(job.folder, GRID)


def count_held_pixels(folder: str) -> list[int]:
    """Return the pixels that a prepared block holds, and those that are planned for."""
    with pretend_gpu():
        mapper = Mapper(make_job(Path(folder)), ArrayScene(GRID), GPU)
        block = next(iter(mapper.job.windows.list_blocks(GRID.extent)))
        pixels = mapper.scene.read(mapper.job.windows.block_box(block))
        prepared = mapper.blocks.prepare(block, pixels, GRID.extent)
        held = sum(len(batch.s1) * math.prod(batch.s1.shape[-2:]) for batch in prepared.batches)
    return [held, mapper.blocks.waiting_pixels]


def test_memory_is_planned_for_the_windows_that_a_block_holds(tmp_path: Path) -> None:
    held, planned = run("count_held_pixels", tmp_path)
    assert held == planned == 25 * 64**2  # five windows along each side


def map_on_both(folder: str) -> dict[str, Any]:
    expected = map_scene_on(torch.device("cpu"), Path(folder), [])
    with pretend_gpu() as gpu:
        found = map_scene_on(GPU, Path(folder), gpu.waits)
    return {"error": float(np.abs(found - expected).max() / expected.std()), "waits": gpu.waits}


def test_map_is_that_of_the_cpu_and_the_host_waits_once_a_block(tmp_path: Path) -> None:
    on_gpu = run("map_on_both", tmp_path)
    blocks = {block for box in cut_tiles(GRID, 128) for block in Windows(64, 16).list_blocks(box)}
    assert on_gpu["waits"] == ["predict"] * len(blocks)
    assert on_gpu["error"] < 1e-3
