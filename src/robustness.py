"""Stage `robustness`: how much worse the models predict with fewer months and fewer bands."""

from pathlib import Path

from biomassters.batches.distributed import Processes, join_processes
from biomassters.fingerprint.stage_inputs import hold_inputs
from biomassters.params import sections
from biomassters.params.reading import read_params
from biomassters.processes.ending import run_script
from biomassters.processes.launching import launch
from biomassters.robustness.report import write_no_results, write_results
from biomassters.robustness.scoring import (
    ChipSet,
    find_held_out_chips,
    find_test_chips,
    score_conditions,
)
from biomassters.store.chips import ChipStore

METRICS = Path("metrics/robustness.json")
FOLDER = Path("metrics/robustness")
MODELS = Path("models")
UNMEASURED = "no test chips with targets, and no held-out chips of these models in their place"


class Params(sections.Section):
    """What this stage reads of params.yaml."""

    cleaning: sections.CleaningName
    split: sections.SplitParams
    finetune: sections.FinetunedFold
    predict: sections.PredictParams
    robustness: sections.RobustnessParams


def main() -> None:
    """Predict the same chips under each condition."""
    with join_processes() as processes, hold_inputs(__file__, is_first=processes.is_first):
        measure_robustness(read_params(Params), processes)


def measure_robustness(params: Params, processes: Processes) -> None:
    """Measure it, and write what this stage hands over; the first process alone writes."""
    chips = choose_chips(params)
    if chips is not None:
        results = score_conditions(
            chips, params.robustness, params.predict, cleaning=params.cleaning, processes=processes
        )
        if processes.is_first:
            write_results(METRICS, FOLDER, results)
    elif processes.is_first:
        print(UNMEASURED)
        write_no_results(METRICS, FOLDER, UNMEASURED)


def choose_chips(params: Params) -> ChipSet | None:
    """Return chips that the models did not see: test chips or, without targets, held-out ones.

    What imported models have seen is not known: where no test chip has a target, there are none.
    """
    train, test = (ChipStore.open(Path(f"chips/{split}.zarr")) for split in ("train", "test"))
    chips = find_test_chips(test, MODELS / params.predict.models)
    if chips is not None or params.predict.models == "imported":
        return chips
    fold = params.finetune.fold
    weights = MODELS / f"folds/fold-{fold}.safetensors"
    return find_held_out_chips(train, params.split, fold, weights)


if __name__ == "__main__":
    run_script(lambda: launch(main))
