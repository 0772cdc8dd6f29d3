"""Two processes on one machine against one alone: the same chips, steps, scores and weights."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_trainers import InterruptionError, PoisonedStore
from tiny_training import (
    AUGMENTATION,
    build_tiny_model,
    one_thread,  # noqa: F401
    optimise,
    pack_chips,
    run_phase,
)
from together import run_together

from biomassters.batches.distributed import ALONE, Processes, join_processes
from biomassters.batches.order import StoreOrder
from biomassters.batches.reading import open_batches
from biomassters.errors import TrainingError
from biomassters.model.biomass_model import BiomassModel
from biomassters.store.chips import ChipStore
from biomassters.training.checkpoint import Checkpoints
from biomassters.training.engine import Recipe, Trainer
from biomassters.training.kept_weights import AverageWeights, BestWeights
from biomassters.training.optimisation import Schedule
from biomassters.training.validation import score_chips

IDS = tuple(f"5eed000{number}" for number in range(1, 8))
TRAINING, HELD_OUT = [0, 1, 2, 3], [4, 5, 6]  # three: the processes get 2 and 1

EVERYTHING = {"epochs": 3, "warmup_epochs": 1, "frozen_encoder_epochs": 1, "plain_epochs": 1}
MICRO_BATCH_SIZES = {"own micro-batches": 2, "shared micro-batch": 4}
STAGES = ("train", "finetune")
METRIC = "validation/chip_rmse"


class Training:
    """A small `train` or `finetune` with everything on, and the scores that it saw."""

    def __init__(
        self, store: ChipStore, processes: Processes, *, stage: str, micro_batch_size: int
    ) -> None:
        self.store = store
        self.processes = processes
        self.scores: list[float] = []
        self.interrupted_after = -1
        order = StoreOrder(HELD_OUT, 1, rank=processes.rank, size=processes.size)
        self.held_out = open_batches(store, order)
        keeper = BestWeights(METRIC) if stage == "train" else AverageWeights(first_epoch=1)
        optimisation = optimise(batch_size=4, micro_batch_size=micro_batch_size, ema_decay=0.9)
        self.trainer = Trainer(
            model=build_tiny_model(),
            store=store,
            indices=TRAINING if stage == "train" else [*TRAINING, *HELD_OUT],
            recipe=Recipe(
                schedule=Schedule(lr=1e-3, phase=run_phase(**EVERYTHING)),
                seed=5,
                optimisation=optimisation,
                augmentation=AUGMENTATION,
            ),
            keeper=keeper,
            validate=self.validate if stage == "train" else None,
            processes=processes,
        )

    def validate(self, model: BiomassModel) -> Mapping[str, float]:
        """Score a model, or interrupt its training."""
        if len(self.scores) == self.interrupted_after:
            raise InterruptionError
        [scores] = score_chips(
            model,
            self.held_out,
            self.store.chip_ids,
            {"plain": (0,)},
            precision="fp32",
            processes=self.processes,
        ).values()
        self.scores.append(scores["chip_rmse"])
        return {METRIC: scores["chip_rmse"]}

    def run(self, folder: Path) -> None:
        """Train, from a folder's checkpoint if it has one."""
        folder.mkdir(parents=True, exist_ok=True)
        self.trainer.fit(Checkpoints(folder, self.processes), folder / "curves")


def digest(weights: Mapping[str, torch.Tensor]) -> str:
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in weights.values())).hexdigest()


def list_scenarios() -> list[tuple[str, str]]:
    return [(stage, sharing) for stage in STAGES for sharing in MICRO_BATCH_SIZES]


def train_all(folder: Path, processes: Processes) -> dict[str, Any]:
    """Train each scenario, keep its weights in a folder, and return what can be told in JSON."""
    store = ChipStore.open(folder / "train.zarr")
    results = {}
    for stage, sharing in list_scenarios():
        training = Training(
            store, processes, stage=stage, micro_batch_size=MICRO_BATCH_SIZES[sharing]
        )
        place = folder / f"{processes.size}" / f"{stage} {sharing}"
        training.run(place)
        kept, last = training.trainer.keeper.weights, training.trainer.model.state_dict()
        if processes.is_first:
            torch.save({"kept": kept, "last": last}, place / "weights.pt")
        results[f"{stage} {sharing}"] = {
            "scores": training.scores,
            "digests": [digest(kept), digest(last)],
        }
    return results


def run_as_one_of_two(folder: str) -> dict[str, Any]:
    """What each of two processes does here; see `together`."""
    os.chdir(folder)
    os.environ["BIOMASSTERS_WORKERS"] = "0"
    place = Path(folder)
    with join_processes() as processes:
        return {
            "trained": train_all(place, processes),
            "resumed": [resume(place, processes, after, size) for after, size in ((1, 2), (2, 4))],
            "refusals": [
                refuse_poison(place, processes, chip, size) for chip, size in ((2, 2), (0, 4))
            ],
            "curves": sorted(str(path.name) for path in place.glob("2/train*/curves/*.json")),
        }


def resume(folder: Path, processes: Processes, after: int, micro_batch_size: int) -> str:
    """Interrupt a training after some epochs, go on with another, and return its last weights."""
    store = ChipStore.open(folder / "train.zarr")
    place = folder / f"interrupted {after}"
    for interrupted_after in (after, -1):
        training = Training(store, processes, stage="train", micro_batch_size=micro_batch_size)
        training.interrupted_after = interrupted_after
        try:
            training.run(place)
        except InterruptionError:
            assert interrupted_after == after
    return digest(training.trainer.model.state_dict())


def refuse_poison(folder: Path, processes: Processes, chip: int, micro_batch_size: int) -> str:
    """Return the error of a training with one poisoned chip."""
    store = PoisonedStore.open(folder / "train.zarr")
    store.poisoned = chip
    training = Training(store, processes, stage="train", micro_batch_size=micro_batch_size)
    try:
        training.run(folder / f"poisoned {chip}")
    except TrainingError as error:
        return str(error)
    return "none"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    pack_chips(folder, *IDS)
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIOMASSTERS_WORKERS", "0")
        patch.chdir(folder)
        return train_all(folder, ALONE)


@pytest.fixture(scope="module")
def two(folder: Path) -> list[dict[str, Any]]:
    return run_together(__name__, "run_as_one_of_two", str(folder))


def measure_distance(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    squares = [(one[name].double() - other[name].double()).square().sum() for name in one]
    return float(torch.stack(squares).sum().sqrt())


@pytest.mark.parametrize("kind", ["kept", "last"])
@pytest.mark.parametrize(("stage", "sharing"), list_scenarios())
def test_two_processes_end_with_the_weights_of_one(
    folder: Path,
    alone: dict[str, Any],
    two: list[dict[str, Any]],
    stage: str,
    sharing: str,
    kind: str,
) -> None:
    """By the way that they went: Adam makes steps of noise, where a gradient is nothing else."""
    assert alone
    assert two
    one, both = (
        torch.load(folder / size / f"{stage} {sharing}/weights.pt")[kind] for size in ("1", "2")
    )
    way = measure_distance(one, build_tiny_model().state_dict())
    assert measure_distance(one, both) < 0.01 * way
    for name, tensor in one.items():
        if "running" in name:
            torch.testing.assert_close(both[name], tensor, rtol=1e-2, atol=1e-3)
        elif not tensor.is_floating_point():
            assert torch.equal(both[name], tensor)


@pytest.mark.parametrize("sharing", MICRO_BATCH_SIZES)
def test_two_processes_score_as_one_does(
    alone: dict[str, Any], two: list[dict[str, Any]], sharing: str
) -> None:
    scores = alone[f"train {sharing}"]["scores"]
    assert len(set(scores)) == 3
    for rank in two:
        assert rank["trained"][f"train {sharing}"]["scores"] == pytest.approx(scores, rel=1e-4)


def test_both_processes_have_the_same_bytes_and_scores(two: list[dict[str, Any]]) -> None:
    first, second = two
    assert first["trained"] == second["trained"]


def test_recorded_loss_is_that_of_all_chips(
    folder: Path, alone: dict[str, Any], two: list[dict[str, Any]]
) -> None:
    assert alone
    assert two
    for stage, sharing in list_scenarios():
        one, both = (
            [
                float(row.split("\t")[1])
                for row in (
                    folder / size / f"{stage} {sharing}/curves/plots/metrics/train/loss.tsv"
                )
                .read_text()
                .splitlines()[1:]
            ]
            for size in ("1", "2")
        )
        assert len(one) == 3
        assert both == pytest.approx(one, rel=1e-3)


def test_interrupted_training_of_two_ends_with_the_same_bytes(two: list[dict[str, Any]]) -> None:
    for rank in two:
        uninterrupted = [
            rank["trained"][f"train {sharing}"]["digests"][1] for sharing in MICRO_BATCH_SIZES
        ]
        assert rank["resumed"] == uninterrupted


@pytest.mark.parametrize("case", [0, 1])
def test_loss_that_is_not_finite_stops_both_with_one_error_that_names_the_chip(
    two: list[dict[str, Any]], case: int
) -> None:
    first, second = (rank["refusals"][case] for rank in two)
    chip = IDS[(2, 0)[case]]
    assert first == second
    assert f"expected a finite loss, got inf at epoch 0, step 0, chips {chip};" in first
