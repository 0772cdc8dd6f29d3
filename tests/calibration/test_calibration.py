import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from held_out_examples import draw_chips

from biomassters.calibration.calibration import (
    Calibration,
    read_calibration,
    write_calibration,
    write_no_calibration,
)
from biomassters.calibration.fitting import calibrate
from biomassters.errors import ChipDataError
from repository_copy import ROOT

CALIBRATION = calibrate(draw_chips(12), 0.8, {"fold-0": "0123456789abcdef"})


def write_changed(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({**CALIBRATION.model_dump(), **changes}))
    return path


def test_calibration_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(path, CALIBRATION)
    assert read_calibration(path) == CALIBRATION
    before = path.read_bytes()
    write_calibration(path, read_calibration(path))
    assert path.read_bytes() == before


def test_file_has_the_fit_and_what_it_was_fitted_to() -> None:
    document = json.loads(CALIBRATION.model_dump_json())
    correlation = document["correlation"]
    assert set(correlation) == {"nugget", "structures", "persistent", "empirical"}
    lengths = {len(column) for column in correlation["empirical"].values()}
    assert len(lengths) == 1
    assert correlation["empirical"]["distance_px"][0] == 0


@pytest.mark.parametrize("name", ["calibration.json", "committed"])
def test_none_is_read_as_none(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "committed":
        path = ROOT / "presets/uncalibrated.json"
    else:
        write_no_calibration(path, "no train chips")
        assert json.loads(path.read_text())["reason"] == "no train chips"
    assert read_calibration(path) is None


def test_absent_or_damaged_file_or_one_of_another_version_is_refused_in_one_line(
    tmp_path: Path,
) -> None:
    path = tmp_path / "calibration.json"
    found = {"got no file": path}
    for number, (got, text) in enumerate(
        {
            "JSONDecodeError": CALIBRATION.model_dump_json()[:-40],
            "KeyError: 'version'": "{}",
            "TypeError": "[1]",
            "UnicodeDecodeError": "\xff",
            "version 1, got 2": '{"version": 2, "method": "conformal"}',
            "a mistake in method": '{"version": 1, "method": "guess"}',
        }.items()
    ):
        found[got] = tmp_path / f"{number}.json"
        found[got].write_text(text, encoding="latin-1")
    found["a mistake in level"] = write_changed(tmp_path / "a.json", level="0.9")
    found["a mistake in spam"] = write_changed(tmp_path / "b.json", spam=1)
    for got, place in found.items():
        with pytest.raises(ChipDataError, match="expected a calibration") as refusal:
            read_calibration(place)
        assert got in str(refusal.value)
        assert f"at {place}; " in str(refusal.value)
        assert "run `dvc repro calibrate`" in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_columns_of_another_length_or_order_are_refused(tmp_path: Path) -> None:
    pixel = CALIBRATION.pixel.model_dump()
    for change in (
        {"above": pixel["above"][:-1]},
        {"prediction": pixel["prediction"][::-1]},
        {"deviation": tuple(-d for d in pixel["deviation"])},
    ):
        path = write_changed(tmp_path / "calibration.json", pixel={**pixel, **change})
        with pytest.raises(ChipDataError, match="a mistake in pixel"):
            read_calibration(path)


def test_tags_say_method_level_and_what_the_numbers_refer_to() -> None:
    tags = CALIBRATION.tags()
    assert (tags["CALIBRATION_METHOD"], tags["CALIBRATION_LEVEL"]) == ("conformal", "0.8")
    assert "LiDAR" in tags["CALIBRATION_REFERENCE"]
    assert "not about field plots" in tags["CALIBRATION_REFERENCE"]


def test_intervals_are_of_the_shape_and_type_of_the_prediction() -> None:
    prediction = np.linspace(-5, 300, 12, dtype=np.float32).reshape(3, 4)
    for band in CALIBRATION.intervals(prediction):
        assert band.shape == (3, 4)
        assert band.dtype == np.float32


def test_line_for_people_adds_up() -> None:
    assert isinstance(CALIBRATION, Calibration)
    said = CALIBRATION.describe()
    assert said.startswith("12 held-out chips, level 0.8; ")
    shares = [int(word[:-1]) for word in said.split() if word.endswith("%")]
    assert sum(shares) == pytest.approx(100, abs=1)
