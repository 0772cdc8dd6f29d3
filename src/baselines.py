"""Stage `baselines`: what the network should beat, as maps of the same chips."""

from pathlib import Path

from biomassters.baselines.trees import fit_trees, sample_pixels, write_maps
from biomassters.fingerprint.stage_inputs import hold_inputs
from biomassters.params.reading import read_params
from biomassters.params.sections import (
    BaselinesParams,
    CleaningName,
    Folds,
    Section,
    SplitParams,
)
from biomassters.processes.ending import end_with_dvc, run_script
from biomassters.store.cleaning import open_cleaned
from biomassters.training.folds import split_chips

BASELINES = Path("baselines")
TREES = BASELINES / "trees"


class Params(Section):
    """What this stage reads of params.yaml."""

    folds: Folds
    cleaning: CleaningName
    split: SplitParams
    baselines: BaselinesParams


def main() -> None:
    """Map the test chips, and the chips that each fold holds out, by trees that never saw them."""
    end_with_dvc()
    with hold_inputs(__file__):
        map_chips(read_params(Params))


def map_chips(params: Params) -> None:
    """Fit trees and write the maps that this stage hands over."""
    train, test = (
        open_cleaned(Path(f"chips/{split}.zarr"), params.cleaning) for split in ("train", "test")
    )
    BASELINES.mkdir(exist_ok=True)
    if not len(train):
        print("no train chips, no baseline to fit")
        return
    samples = sample_pixels(train, params.baselines)
    for fold in params.folds:
        training, held_out = split_chips(train, params.split, fold)
        trees = fit_trees(samples, training, params.baselines)
        write_maps(trees, train, held_out, TREES / f"fold-{fold}", {"FOLD": str(fold)})
    if len(test):
        trees = fit_trees(samples, range(len(train)), params.baselines)
        write_maps(trees, test, range(len(test)), TREES / "test", {})


if __name__ == "__main__":
    run_script(main)
