"""Stage `train`: train one fold, and predict the chips that it left out."""

import argparse
from pathlib import Path

import torch

from biomassters.batches import StoreOrder, open_batches
from biomassters.checkpoint import hold_checkpoints
from biomassters.chips import ChipStore
from biomassters.doors import run_door, scratch_folder
from biomassters.engine import Recipe, Trainer
from biomassters.folds import split_chips
from biomassters.inference import predict_batches, score_chips
from biomassters.model import BiomassModel
from biomassters.params.reading import read_params
from biomassters.params.recipe import (
    AugmentationParams,
    ModelParams,
    OptimisationParams,
    Positive,
    TrainParams,
)
from biomassters.params.section import Section
from biomassters.params.split import SplitParams
from biomassters.precision import place_model
from biomassters.predictions import write_prediction
from biomassters.selection import BestWeights
from biomassters.stage_inputs import fingerprint_stage
from biomassters.statistics import read_statistics
from biomassters.symmetries import views
from biomassters.weights import save_weights


class Params(Section):
    """What this stage reads of params.yaml."""

    lr: Positive
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
    params = read_params(Params)
    store = ChipStore.open(Path("chips/train.zarr"))
    training, validation = split_chips(store, params.split, fold)
    torch.manual_seed(params.seed)
    model = BiomassModel.build(params.model, read_statistics(Path("statistics.json")))
    recipe = Recipe(
        lr=params.lr,
        lr_min=params.train.lr_min,
        epochs=params.train.epochs,
        seed=params.seed,
        optimisation=params.optimisation,
        augmentation=params.augmentation,
        validation_every=params.train.validation_every,
    )
    held_out = open_batches(store, StoreOrder(validation, params.optimisation.batch_size))
    precision = params.optimisation.precision

    def validate(model: BiomassModel) -> dict[str, float]:
        plain = score_chips(model, held_out, store.chip_ids, views("none"), precision=precision)
        tta = views(params.train.validation_tta)
        averaged = score_chips(model, held_out, store.chip_ids, tta, precision=precision)
        return {
            "validation/chip_rmse": plain["chip_rmse"],
            "validation/chip_rmse_tta": averaged["chip_rmse"],
            "validation/pooled_rmse": plain["pooled_rmse"],
        }

    best = BestWeights("validation/chip_rmse")
    trainer = Trainer(
        model=place_model(model),
        store=store,
        indices=training,
        recipe=recipe,
        keeper=best,
        validate=validate,
    )
    scratch = scratch_folder(f"train-{fold}-{fingerprint_stage('train', fold=fold)}")
    with hold_checkpoints(scratch) as checkpoints:
        trainer.fit(checkpoints, Path(f"metrics/train/{fold}"))
    save_weights(Path(f"models/last/fold-{fold}.safetensors"), model, {"fold": str(fold)})
    model.load_state_dict(best.weights)
    save_weights(Path(f"models/folds/fold-{fold}.safetensors"), model, {"fold": str(fold)})
    for index, prediction, _ in predict_batches(
        [model], held_out, views(params.train.validation_tta), precision=precision
    ):
        write_prediction(
            Path(f"validation/fold-{fold}"),
            store.chip_ids[index],
            prediction,
            {"FOLD": str(fold)},
            store.georeference(index),
        )


if __name__ == "__main__":
    run_door(main)
