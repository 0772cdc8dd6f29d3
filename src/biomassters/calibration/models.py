"""Whose errors a calibration knows: a model's, or those of the model that it was finetuned from."""

from collections.abc import Mapping
from pathlib import Path

from biomassters.calibration.calibration import Calibration, read_calibration
from biomassters.errors import ModelError
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.weights import identify_weights
from biomassters.model.weights_header import ANCESTOR_KEY, read_metadata


def read_calibration_of(models: Mapping[Path, BiomassModel], path: Path) -> Calibration | None:
    """Read a calibration, and refuse models of which it knows nothing.

    A model that was finetuned on all chips has no held-out ones: it is taken to err as the fold's
    model does that it comes from.

    Args:
        models: By their files.
        path: The calibration's file.

    Returns:
        It, or None where the file says that there is none.

    Raises:
        ChipDataError: The file is absent, damaged or of another version.
        ModelError: A model is neither among those of the calibration, nor descends from one.
    """
    calibration = read_calibration(path)
    if calibration is None:
        return None
    known = ", ".join(f"{name} ({weights})" for name, weights in calibration.models.items())
    for file, model in models.items():
        weights, ancestor = identify_weights(model), read_metadata(file).get(ANCESTOR_KEY)
        if not {weights, ancestor} & set(calibration.models.values()):
            descent = f", finetuned from {ancestor}" if ancestor else ""
            raise ModelError(
                f"expected a model that {path} was made for, {known}, or one finetuned from it, got"
                f" {file} ({weights}{descent}); run `dvc repro`, or set predict.calibration to"
                " presets/uncalibrated.json"
            )
    return calibration
