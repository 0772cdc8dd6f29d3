"""Stage `report`: one page that shows the run to others, in a single file."""

from pathlib import Path

from biomassters.fingerprint.stage_inputs import hold_inputs
from biomassters.params import whole
from biomassters.params.reading import read_document, read_params
from biomassters.processes.ending import run_script
from biomassters.processes.writing import write_whole
from biomassters.report.curves import read_trainings, tabulate_trainings
from biomassters.report.page import Run, read_json, render_page
from biomassters.store.chips import ChipStore

WINNER = Path("presets/winner.yaml")
METRICS = Path("metrics")
PAGE = Path("report/index.html")
CURVES = METRICS / "report/training.csv"


class Params(whole.Params):
    """What this stage reads of params.yaml: all of it, to show it."""


def main() -> None:
    """Write the page."""
    with hold_inputs(__file__):
        params = read_params(Params)
        trainings = read_trainings(METRICS, params.folds)
        run = Run(
            params=params,
            winner=read_document(WINNER),
            metrics=METRICS,
            predictions=Path("predictions"),
            validation=Path("validation"),
            stores={
                split: ChipStore.open(Path(f"chips/{split}.zarr")) for split in ("train", "test")
            },
            evaluation=read_json(METRICS / "evaluation.json"),
            robustness=read_json(METRICS / "robustness.json"),
            trainings=trainings,
        )
        write_whole(CURVES, tabulate_trainings(trainings).encode())
        write_whole(PAGE, render_page(run).encode())


if __name__ == "__main__":
    run_script(main)
