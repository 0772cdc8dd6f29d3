"""Stage `train`: train one fold, and predict the chips that it left out."""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from biomassters.batches.distributed import Processes, join_processes
from biomassters.batches.order import StoreOrder
from biomassters.batches.reading import Batches, open_batches
from biomassters.batches.symmetries import views
from biomassters.fingerprint.stage_inputs import StageInputs, hold_inputs
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.precision import place_model
from biomassters.model.weights import CLEANING_KEY, save_weights
from biomassters.params.reading import read_params
from biomassters.params.sections import (
    AugmentationParams,
    CleaningName,
    ModelParams,
    OptimisationParams,
    Positive,
    Section,
    SplitParams,
    TrainParams,
)
from biomassters.prediction.inference import predict_batches, score_chips
from biomassters.prediction.maps import write_prediction
from biomassters.processes.ending import run_script
from biomassters.processes.environment import Environment
from biomassters.processes.launching import launch
from biomassters.processes.scratch import scratch_folder
from biomassters.statistics.figures import read_statistics
from biomassters.store.chips import ChipStore
from biomassters.store.cleaning import clean_chip
from biomassters.training.checkpoint import hold_checkpoints
from biomassters.training.engine import Recipe, Trainer
from biomassters.training.folds import split_chips
from biomassters.training.schedule import Schedule
from biomassters.training.selection import BestWeights


class Params(Section):
    """What this stage reads of params.yaml."""

    lr: Positive
    cleaning: CleaningName
    seed: int
    split: SplitParams
    model: ModelParams
    augmentation: AugmentationParams
    optimisation: OptimisationParams
    train: TrainParams


def main() -> None:
    """Train the fold that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fold", type=int)
    fold = parser.parse_args().fold
    with (
        join_processes() as processes,
        hold_inputs(__file__, is_first=processes.is_first, fold=fold) as inputs,
    ):
        train_fold(fold, read_params(Params), inputs, processes)


def train_fold(fold: int, params: Params, inputs: StageInputs, processes: Processes) -> None:
    """Train a fold and write what this stage hands over; the first process alone writes."""
    clean = partial(clean_chip, name=params.cleaning)
    store = ChipStore.open(Path("chips/train.zarr"), clean=clean)
    training, validation = split_chips(store, params.split, fold)
    torch.manual_seed(params.seed)
    model = BiomassModel.build(params.model, read_statistics(Path("statistics.json")))
    model = place_model(model, processes.device)
    if Environment().activation_checkpointing:
        model.network.checkpoint_activations()
    size = params.optimisation.micro_batch_size
    order = StoreOrder(validation, size, rank=processes.rank, size=processes.size)
    held_out = HeldOut(params, store, open_batches(store, order), processes)
    best = BestWeights("validation/chip_rmse")
    trainer = Trainer(
        model=model,
        store=store,
        indices=training,
        recipe=Recipe(
            schedule=Schedule(lr=params.lr, phase=params.train),
            seed=params.seed,
            optimisation=params.optimisation,
            augmentation=params.augmentation,
            validation_every=params.train.validation_every,
        ),
        keeper=best,
        validate=held_out.score,
        processes=processes,
    )
    scratch = scratch_folder(f"train-{fold}-{inputs.digest}")
    with hold_checkpoints(scratch, processes) as checkpoints:
        trainer.fit(checkpoints, Path(f"metrics/train/{fold}"))
    for folder, weights in (("last", model.state_dict()), ("folds", best.weights)):
        model.load_state_dict(weights)
        if processes.is_first:
            path = Path(f"models/{folder}/fold-{fold}.safetensors")
            save_weights(path, model, {"fold": str(fold), CLEANING_KEY: params.cleaning})
    held_out.write_predictions(model, fold)


@dataclass(frozen=True)
class HeldOut:
    """The chips that a fold leaves out; each process has a part of them."""

    params: Params
    store: ChipStore
    batches: Batches
    processes: Processes

    def score(self, model: BiomassModel) -> dict[str, float]:
        """Score a model on all of them, equally in all processes."""
        tta = self.params.train.validation_tta
        scores = score_chips(
            model,
            self.batches,
            self.store.chip_ids,
            {"plain": views("none"), "tta": views(tta)},
            precision=self.params.optimisation.precision,
            processes=self.processes,
        )
        return {
            "validation/chip_rmse": scores["plain"]["chip_rmse"],
            "validation/chip_rmse_tta": scores["tta"]["chip_rmse"],
            "validation/pooled_rmse": scores["plain"]["pooled_rmse"],
        }

    def write_predictions(self, model: BiomassModel, fold: int) -> None:
        """Write the predictions of all of them, in the first process."""
        tta = views(self.params.train.validation_tta)
        precision = self.params.optimisation.precision
        for index, prediction, _ in predict_batches(
            [model], self.batches, tta, precision=precision, processes=self.processes
        ):
            write_prediction(
                Path(f"validation/fold-{fold}"),
                self.store.chip_ids[index],
                prediction,
                {"FOLD": str(fold)},
                self.store.georeference(index),
            )


if __name__ == "__main__":
    run_script(lambda: launch(main))
