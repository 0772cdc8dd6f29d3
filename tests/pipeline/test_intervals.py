"""The intervals of a finished run: what its maps have, and what predict refuses."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from workspace import Workspace

from biomassters.calibration.calibration import Calibration, read_calibration
from biomassters.model.weights_header import ANCESTOR_KEY, read_metadata
from biomassters.prediction.maps import Prediction, read_prediction
from biomassters.store.chips import ChipStore
from biomassters.store.georeference import allow_nowhere
from repository_copy import ROOT

PAGE = (ROOT / "docs/uncertainty.md").read_text()


def read_maps(workspace: Workspace) -> list[Prediction]:
    chip_ids = ChipStore.open(workspace.folder / "chips/test.zarr").chip_ids
    return [read_prediction(workspace.folder / "predictions", chip_id) for chip_id in chip_ids]


def read_calibration_of(workspace: Workspace) -> Calibration:
    calibration = read_calibration(workspace.folder / "calibration.json")
    assert calibration is not None
    return calibration


def test_maps_have_the_intervals_of_the_calibration(pipeline: Workspace) -> None:
    calibration = read_calibration_of(pipeline)
    assert calibration.chips == 2
    for prediction in read_maps(pipeline):
        assert prediction.tags["CALIBRATION_LEVEL"] == "0.5"
        np.testing.assert_array_equal(prediction.intervals, calibration.intervals(prediction.agbm))


def test_final_model_remembers_the_fold_that_was_calibrated(pipeline: Workspace) -> None:
    metadata = read_metadata(pipeline.folder / "models/final/final.safetensors")
    assert read_calibration_of(pipeline).models == {"fold-0": metadata[ANCESTOR_KEY]}


def test_calibration_of_another_model_ends_predict_in_one_line(workspace: Workspace) -> None:
    path = workspace.folder / "calibration.json"
    document = json.loads(path.read_text())
    path.unlink()  # a link into DVC's cache
    path.write_text(json.dumps({**document, "models": {"fold-0": "0123456789abcdef"}}))
    result = workspace.run("python", "src/predict.py", check=False)
    assert result.returncode == 1
    assert re.fullmatch(
        r"error: expected a model that calibration\.json was made for, fold-0 \(0123456789abcdef\),"
        r" or one finetuned from it, got models/final/final\.safetensors \(.*\n",
        result.stderr,
    )


def test_without_a_calibration_maps_have_the_same_agbm_alone(workspace: Workspace) -> None:
    before = read_maps(workspace)
    workspace.set_params({"predict.calibration": "presets/uncalibrated.json"})
    workspace.run("python", "src/predict.py")
    for old, new in zip(before, read_maps(workspace), strict=True):
        assert new.intervals is None
        np.testing.assert_array_equal(new.agbm, old.agbm)
        assert set(old.tags) - set(new.tags) == {
            f"CALIBRATION_{name}" for name in ("METHOD", "LEVEL", "REFERENCE")
        }


def test_page_gives_the_mean_of_an_area_with_its_interval(
    pipeline: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    [snippet] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(pipeline.folder)
    chip = next(Path("predictions").iterdir())
    names: dict[str, object] = {}
    with allow_nowhere():
        exec(snippet.replace("CHIP_agbm.tif", chip.name), names)  # noqa: S102
    area = names["area"]
    assert area.lower <= area.mean <= area.upper
    assert area.naive_standard_error < area.standard_error
