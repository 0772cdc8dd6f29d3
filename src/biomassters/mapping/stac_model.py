"""A map's models as a STAC item of the machine-learning-model extension (mlm).

Source: the extension's README, version 1.4: its fields, the roles of assets, and that bands of
inputs are described by the item's `bands`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

import pystac
import shapely
from pystac.extensions.mlm import (
    Hyperparameters,
    InputStructure,
    MLMExtension,
    ModelInput,
    ModelOutput,
    ResultStructure,
    TaskType,
)
from pystac.extensions.raster import DataType

from biomassters.prediction.maps import BANDS, UNITS
from biomassters.store.bands import (
    N_MONTHS,
    S1_BANDS,
    S1_STORED_NODATA,
    S1_STORED_SCALE_DB,
    S2_BANDS,
    S2_STORED_NODATA,
)

MODEL: Final = "model.json"
"""The item's file in the folder of a map."""

MODEL_NAME: Final = "biomassters"

AXES: Final = ["batch", "time", "channel", "height", "width"]

SENSORS: Final = (
    (
        "Sentinel-1",
        S1_BANDS,
        DataType.INT16,
        f"Backscatter by month from September on, in {S1_STORED_SCALE_DB:g} dB;"
        f" {S1_STORED_NODATA} = nodata",
    ),
    (
        "Sentinel-2",
        S2_BANDS,
        DataType.UINT16,
        "Reflectance (10,000 = 1), and the cloud probability CLP in %, by month from September on;"
        f" {S2_STORED_NODATA} = nodata",
    ),
)


class Weights(NamedTuple):
    """A file of weights.

    Attributes:
        name: The file's, without its suffix.
        identity: Of the weights.
        href: Where it lies: a URL, or a path from the map's folder.
    """

    name: str
    identity: str
    href: str


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The models of a map, and how they were used.

    Attributes:
        weights: Of the models whose predictions were averaged.
        architecture: What it is called, such as the encoder's name.
        bands: That the models see, as `store.bands` names them.
        window: Side of the squares that they see at once, pixels.
        tta: What views were averaged, as in params.yaml.
    """

    weights: Sequence[Weights]
    architecture: str
    bands: Sequence[str]
    window: int
    tta: str


def describe_models(facts: ModelFacts, outline: Any, period: tuple[str, str]) -> pystac.Item:
    """Return the item of a map's models.

    Its place and period are the map's: what the models were used for.

    Args:
        facts: What to say.
        outline: A shapely polygon in degrees of WGS 84.
        period: First and last second, ISO 8601.
    """
    start, end = map(datetime.fromisoformat, period)
    # The extension wants them among the properties, where STAC has none that no asset has.
    bands = [{"name": band} for band in facts.bands]
    item = pystac.Item(
        id=MODEL_NAME,
        geometry=shapely.geometry.mapping(outline),
        bbox=list(outline.bounds),
        datetime=None,
        properties={"bands": bands},
        start_datetime=start,
        end_datetime=end,
    )
    item.clear_links()
    for name, identity, href in facts.weights:
        asset = pystac.Asset(
            href=href,
            title=f"Weights {name}",
            media_type="application/octet-stream; framework=pytorch",
            roles=["mlm:model", "mlm:weights"],
            extra_fields={
                "bands": bands,
                "mlm:artifact_type": "safetensors",
                "biomassters:weights": identity,
            },
        )
        item.add_asset(name, asset)
    MLMExtension.ext(item, add_if_missing=True).apply(
        name=MODEL_NAME,
        architecture=facts.architecture,
        tasks=[TaskType.REGRESSION],
        framework="PyTorch",
        input=_describe_inputs(facts),
        output=[_describe_output(facts.window)],
        hyperparameters=Hyperparameters.create(window=facts.window, tta=facts.tta),
    )
    return item


def _describe_inputs(facts: ModelFacts) -> list[ModelInput]:
    inputs = []
    for name, bands, data_type, description in SENSORS:
        seen = [band for band in bands if band in facts.bands]
        shape = [-1, N_MONTHS, len(seen), facts.window, facts.window]
        if seen:
            structure = InputStructure.create(shape, AXES, data_type)
            inputs.append(ModelInput.create(name, seen, structure, description))
    return inputs


def _describe_output(window: int) -> ModelOutput:
    return ModelOutput.create(
        name="AGBM",
        tasks=[TaskType.REGRESSION],
        result=ResultStructure.create(
            [-1, window, window], ["batch", "height", "width"], DataType.FLOAT32
        ),
        description=f"{BANDS[0]}, {UNITS}",
    )
