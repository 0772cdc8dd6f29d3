"""Stage `train`: train one fold, and predict the chips that it left out."""

import argparse
from pathlib import Path

import torch

from biomassters.batches.distributed import Processes, join_processes
from biomassters.batches.symmetries import views
from biomassters.fingerprint.stage_inputs import StageInputs, hold_inputs
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.weights import save_weights
from biomassters.model.weights_header import CLEANING_KEY
from biomassters.params import sections
from biomassters.params.reading import check_fold, parse_fold, read_params
from biomassters.processes.ending import run_script
from biomassters.processes.launching import launch
from biomassters.processes.scratch import scratch_folder
from biomassters.statistics.figures import read_statistics
from biomassters.store.cleaning import open_cleaned
from biomassters.training.checkpoint import hold_checkpoints
from biomassters.training.engine import Recipe, Trainer
from biomassters.training.folds import split_chips
from biomassters.training.kept_weights import BestWeights
from biomassters.training.optimisation import Schedule
from biomassters.training.placing import place_for_training
from biomassters.training.untrained import write_untrained
from biomassters.training.validation import CHOOSING_SCORE, HeldOut


class Params(sections.Section):
    """What this stage reads of params.yaml."""

    lr: sections.Positive
    cleaning: sections.CleaningName
    seed: int
    split: sections.SplitParams
    model: sections.ModelParams
    augmentation: sections.AugmentationParams
    optimisation: sections.OptimisationParams
    train: sections.TrainParams


def main() -> None:
    """Train the fold that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fold", type=parse_fold)
    fold = parser.parse_args().fold
    with (
        join_processes() as processes,
        hold_inputs(__file__, is_first=processes.is_first, fold=fold) as inputs,
    ):
        train_fold(fold, read_params(Params), inputs, processes)


def train_fold(fold: int, params: Params, inputs: StageInputs, processes: Processes) -> None:
    """Train a fold and write what this stage hands over; the first process alone writes."""
    check_fold(fold, params.split)
    store = open_cleaned(Path("chips/train.zarr"), params.cleaning)
    weights = {name: Path(f"models/{name}/fold-{fold}.safetensors") for name in ("last", "folds")}
    recorded, predictions = Path(f"metrics/train/{fold}"), Path(f"validation/fold-{fold}")
    if not len(store):
        write_untrained(processes, weights.values(), recorded, predictions)
        return
    training, validation = split_chips(store, params.split, fold)
    tta = views(params.train.validation_tta)
    held_out = HeldOut(store, validation, params.optimisation, tta, processes)
    torch.manual_seed(params.seed)
    model = BiomassModel.build(params.model, read_statistics(Path("statistics.json")))
    model = place_for_training(model, processes.device)
    recipe = Recipe(
        schedule=Schedule(lr=params.lr, phase=params.train),
        seed=params.seed,
        optimisation=params.optimisation,
        augmentation=params.augmentation,
        validation_every=params.train.validation_every,
    )
    best = BestWeights(CHOOSING_SCORE)
    trainer = Trainer(
        model, store, training, recipe, keeper=best, validate=held_out.score, processes=processes
    )
    with hold_checkpoints(scratch_folder(f"train-{fold}-{inputs.digest}"), processes) as checkpoint:
        trainer.fit(checkpoint, recorded)
    for name, state in (("last", model.state_dict()), ("folds", best.weights)):
        model.load_state_dict(state)
        if processes.is_first:
            save_weights(weights[name], model, {"fold": str(fold), CLEANING_KEY: params.cleaning})
    held_out.write_predictions(model, predictions, {"FOLD": str(fold)})


if __name__ == "__main__":
    run_script(lambda: launch(main))
