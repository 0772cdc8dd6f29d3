"""Stage `finetune`: train a fold's model on all train chips, at a lower learning rate.

All chips are trained on, so no validation could tell a best epoch: the last weights are kept, or
the average over the last quarter of the epochs (of their moving averages, if there are some).
"""

from pathlib import Path

from biomassters.batches.distributed import Processes, join_processes
from biomassters.fingerprint.stage_inputs import StageInputs, hold_inputs
from biomassters.model.weights import identify_weights, load_model, save_weights
from biomassters.model.weights_header import ANCESTOR_KEY, CLEANING_KEY
from biomassters.params import sections
from biomassters.params.reading import read_params
from biomassters.processes.ending import run_script
from biomassters.processes.launching import launch
from biomassters.processes.scratch import scratch_folder
from biomassters.store.cleaning import open_cleaned
from biomassters.training.checkpoint import hold_checkpoints
from biomassters.training.engine import Recipe, Trainer
from biomassters.training.kept_weights import AverageWeights
from biomassters.training.optimisation import Schedule
from biomassters.training.placing import place_for_training
from biomassters.training.untrained import write_untrained


class Params(sections.Section):
    """What this stage reads of params.yaml."""

    seed: int
    cleaning: sections.CleaningName
    augmentation: sections.AugmentationParams
    optimisation: sections.OptimisationParams
    finetune: sections.FinetuneParams


def main() -> None:
    """Finetune the fold's model that the params name."""
    with (
        join_processes() as processes,
        hold_inputs(__file__, is_first=processes.is_first) as inputs,
    ):
        finetune_model(read_params(Params), inputs, processes)


def finetune_model(params: Params, inputs: StageInputs, processes: Processes) -> None:
    """Finetune the model and write what this stage hands over; the first process alone writes."""
    finetune = params.finetune
    store = open_cleaned(Path("chips/train.zarr"), params.cleaning)
    final, recorded = Path("models/final/final.safetensors"), Path("metrics/finetune")
    if not len(store):
        write_untrained(processes, [final], recorded)
        return
    trained = Path(f"models/folds/fold-{finetune.fold}.safetensors")
    model = place_for_training(load_model(trained, cleaning=params.cleaning), processes.device)
    ancestor = identify_weights(model)
    averaged = max(1, finetune.epochs // 4) if finetune.weights == "average" else 1
    keeper = AverageWeights(first_epoch=finetune.epochs - averaged)
    recipe = Recipe(
        schedule=Schedule(lr=finetune.lr, phase=finetune),
        seed=params.seed,
        optimisation=params.optimisation,
        augmentation=params.augmentation,
    )
    every_chip = list(range(len(store.chip_ids)))
    trainer = Trainer(model, store, every_chip, recipe, keeper=keeper, processes=processes)
    scratch = scratch_folder(f"finetune-{inputs.digest}")
    with hold_checkpoints(scratch, processes) as checkpoints:
        trainer.fit(checkpoints, recorded)
    model.load_state_dict(keeper.weights)
    trainer.train_chips.recompute(model, epoch=finetune.epochs)
    if not processes.is_first:
        return
    metadata = {
        "finetuned_from": f"fold-{finetune.fold}",
        ANCESTOR_KEY: ancestor,
        "weights": finetune.weights,
        CLEANING_KEY: params.cleaning,
    }
    save_weights(final, model, metadata)


if __name__ == "__main__":
    run_script(lambda: launch(main))
