"""Stage `predict`: map the test chips with the average of models and of views (TTA)."""

from pathlib import Path

import numpy as np

from biomassters.batches import StoreOrder, open_batches
from biomassters.chips import ChipStore
from biomassters.doors import run_door
from biomassters.errors import ModelError
from biomassters.inference import predict_batches
from biomassters.params.predict import PredictParams
from biomassters.params.reading import read_params
from biomassters.params.section import Section
from biomassters.precision import place_model
from biomassters.predictions import write_prediction
from biomassters.symmetries import views
from biomassters.weights import load_model


class Params(Section):
    """What this stage reads of params.yaml."""

    predict: PredictParams


def main() -> None:
    """Predict all test chips."""
    params = read_params(Params).predict
    store = ChipStore.open(Path("chips/test.zarr"))
    folder = Path("models") / params.models
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise ModelError(f"expected models at {folder}, got none; run `dvc repro` to train them")
    models = [place_model(load_model(path)) for path in paths]
    tags = {"MODELS": ",".join(path.stem for path in paths), "TTA": params.tta}
    order = StoreOrder(range(len(store.chip_ids)), params.batch_size)
    for index, prediction, _ in predict_batches(
        models,
        open_batches(store, order),
        views(params.tta),
        precision=params.precision,
        progress=True,
    ):
        if params.clamp:
            prediction = np.maximum(prediction, 0)
        write_prediction(
            Path("predictions"),
            store.chip_ids[index],
            prediction,
            tags,
            store.georeference(index),
        )


if __name__ == "__main__":
    run_door(main)
