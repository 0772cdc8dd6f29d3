"""Stage `calibrate`: how far to trust the maps, from the errors on the folds' held-out chips."""

from pathlib import Path

from biomassters.calibration.calibration import write_calibration, write_no_calibration
from biomassters.calibration.fitting import calibrate
from biomassters.calibration.reading import read_held_out
from biomassters.fingerprint.stage_inputs import hold_inputs
from biomassters.params.reading import read_params
from biomassters.params.sections import CalibrationParams, Folds, Section
from biomassters.processes.ending import run_script
from biomassters.store.chips import ChipStore

CALIBRATION = Path("calibration.json")


class Params(Section):
    """What this stage reads of params.yaml."""

    folds: Folds
    calibration: CalibrationParams


def main() -> None:
    """Calibrate the models of the folds."""
    with hold_inputs(__file__):
        calibrate_models(read_params(Params))


def calibrate_models(params: Params) -> None:
    """Calibrate, and write what this stage hands over."""
    store = ChipStore.open(Path("chips/train.zarr"))
    if params.calibration.method == "none" or not len(store):
        reason = "calibration.method is none" if len(store) else "no train chips"
        print(f"{reason}, no intervals")
        write_no_calibration(CALIBRATION, reason)
        return
    chips, models = read_held_out(store, Path("validation"), params.folds)
    calibration = calibrate(chips, params.calibration.level, models)
    write_calibration(CALIBRATION, calibration)
    print(calibration.describe())


if __name__ == "__main__":
    run_script(main)
