from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stage_scripts import read_script

from biomassters.errors import ChipDataError
from biomassters.evaluation.scores import check_predictions
from biomassters.prediction.maps import write_prediction


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stage's script, in a folder of predictions that two imported models made."""
    monkeypatch.chdir(tmp_path)
    for chip_id in "ab":
        image = np.zeros((4, 4), np.float32)
        write_prediction(Path("predictions"), chip_id, image, {"MODELS": "winner,other"})
    return read_script("evaluate")


def test_imported_models_are_those_of_the_predictions(script: Any) -> None:
    models = script.list_models("imported", ["fold-0"], ["a", "b"])
    assert models == ["winner", "other"]
    check_predictions(Path("predictions"), ["a", "b"], models)


@pytest.mark.parametrize(("models", "names"), [("final", ["final"]), ("folds", ["fold-0"])])
def test_predictions_of_imported_models_are_not_taken_for_trained_ones(
    script: Any, models: str, names: list[str]
) -> None:
    assert script.list_models(models, ["fold-0"], ["a", "b"]) == names
    with pytest.raises(ChipDataError, match="got other, winner"):
        check_predictions(Path("predictions"), ["a", "b"], names)


def test_predictions_of_different_imported_models_are_refused(script: Any) -> None:
    write_prediction(Path("predictions"), "b", np.zeros((4, 4), np.float32), {"MODELS": "winner"})
    models = script.list_models("imported", [], ["a", "b"])
    with pytest.raises(ChipDataError, match=r"got winner, at predictions/b_agbm\.tif"):
        check_predictions(Path("predictions"), ["a", "b"], models)
