"""Stage `predict`: map the test chips with the average of models and of views (TTA).

Where there is a calibration of the models, each pixel gets its interval, too.
"""

from pathlib import Path

import numpy as np

from biomassters.batches.distributed import Processes, join_processes
from biomassters.batches.order import StoreOrder
from biomassters.batches.reading import open_batches
from biomassters.batches.symmetries import views
from biomassters.calibration.models import read_calibration_of
from biomassters.fingerprint.stage_inputs import hold_inputs
from biomassters.model.weights_header import list_weights
from biomassters.params.reading import read_params
from biomassters.params.sections import CleaningName, PredictParams, Section
from biomassters.prediction.engines import describe_engine
from biomassters.prediction.ensemble import choose_engines, open_ensemble
from biomassters.prediction.inference import predict_batches
from biomassters.prediction.maps import write_prediction
from biomassters.processes.ending import run_script
from biomassters.processes.launching import launch
from biomassters.store.cleaning import open_cleaned

PREDICTIONS = Path("predictions")


class Params(Section):
    """What this stage reads of params.yaml."""

    cleaning: CleaningName
    predict: PredictParams


def main() -> None:
    """Predict all test chips."""
    with join_processes() as processes, hold_inputs(__file__, is_first=processes.is_first):
        predict_chips(read_params(Params), processes)


def predict_chips(settings: Params, processes: Processes) -> None:
    """Predict all test chips, each process a part of them; the first one writes."""
    params, cleaning = settings.predict, settings.cleaning
    store = open_cleaned(Path("chips/test.zarr"), cleaning)
    if not len(store):
        if processes.is_first:
            print("no test chips, nothing to predict")
            PREDICTIONS.mkdir(exist_ok=True)
        return
    paths = list_weights(Path("models") / params.models)
    models = open_ensemble(
        paths,
        store.chip_size,
        cleaning=cleaning,
        precision=params.precision,
        device=processes.device,
    )
    calibration = read_calibration_of(models, Path(params.calibration))
    predictors = choose_engines(models.values(), params, store.chip_size)
    if processes.is_first:
        print(f"{params.precision}, by {', '.join(map(describe_engine, predictors))}")
    tags = {"MODELS": ",".join(path.stem for path in paths), "TTA": params.tta}
    tags |= calibration.tags() if calibration else {}
    order = StoreOrder(
        range(len(store.chip_ids)), params.batch_size, rank=processes.rank, size=processes.size
    )
    for index, prediction, _, bounds in predict_batches(
        predictors,
        open_batches(store, order),
        views(params.tta),
        precision=params.precision,
        processes=processes,
        progress=True,
    ):
        if params.clamp:
            prediction = np.maximum(prediction, 0)
        write_prediction(
            PREDICTIONS,
            store.chip_ids[index],
            prediction,
            tags,
            store.georeference(index),
            calibration.intervals(prediction, bounds) if calibration else None,
        )


if __name__ == "__main__":
    run_script(lambda: launch(main))
