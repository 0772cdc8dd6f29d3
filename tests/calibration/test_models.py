from pathlib import Path

import pytest
from held_out_examples import draw_chips
from tiny_training import build_tiny_model

from biomassters.calibration.calibration import write_calibration, write_no_calibration
from biomassters.calibration.fitting import calibrate
from biomassters.calibration.models import read_calibration_of
from biomassters.errors import ModelError
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.weights import identify_weights, save_weights

FOLD, OTHER = build_tiny_model(0), build_tiny_model(1)
OF_FOLD = {"fold-0": identify_weights(FOLD)}


def save(folder: Path, name: str, model: BiomassModel, **metadata: str) -> dict[Path, BiomassModel]:
    path = folder / f"{name}.safetensors"
    save_weights(path, model, metadata)
    return {path: model}


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    path = tmp_path / "calibration.json"
    write_calibration(path, calibrate(draw_chips(4), 0.5, OF_FOLD))
    return path


def test_model_of_the_calibration_and_one_finetuned_from_it_are_known(
    calibration: Path, tmp_path: Path
) -> None:
    models = save(tmp_path, "fold-0", FOLD)
    models |= save(tmp_path, "final", OTHER, finetuned_from_weights=OF_FOLD["fold-0"])
    found = read_calibration_of(models, calibration)
    assert found is not None
    assert found.models == OF_FOLD


@pytest.mark.parametrize("ancestor", [None, "0123456789abcdef"])
def test_other_model_is_refused_by_name(
    calibration: Path, tmp_path: Path, ancestor: str | None
) -> None:
    metadata = {} if ancestor is None else {"finetuned_from_weights": ancestor}
    models = save(tmp_path, "fold-0", FOLD) | save(tmp_path, "other", OTHER, **metadata)
    with pytest.raises(ModelError) as refusal:
        read_calibration_of(models, calibration)
    descent = f", finetuned from {ancestor}" if ancestor else ""
    weights = identify_weights(OTHER)
    for part in (
        f"expected a model that {calibration} was made for, fold-0 ({OF_FOLD['fold-0']})",
        f"got {tmp_path}/other.safetensors ({weights}{descent}); run `dvc repro`",
        "set predict.calibration to presets/uncalibrated.json",
    ):
        assert part in str(refusal.value)


def test_without_a_calibration_any_model_will_do(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    write_no_calibration(path, "for a test")
    assert read_calibration_of(save(tmp_path, "other", OTHER), path) is None
