import json
from pathlib import Path

import pytest

from biomassters.processes.run_records import RunRecord, find_record, record_path, write_record
from biomassters.report import tables
from biomassters.report.tables import (
    describe_scene,
    format_figure,
    list_leaves,
    tabulate_conditions,
    tabulate_figures,
    tabulate_intervals,
    tabulate_params,
)

MODEL = {
    "chip_rmse": 28.44,
    "pooled_rmse": 30.0,
    "mae": 20.0,
    "bias": -0.04,
    "r2": 0.714,
    "ci95": {"chip_rmse": [24.0, 33.06], "r2": None},
}


def test_figure_has_its_interval_and_a_missing_one_a_dash() -> None:
    assert format_figure(MODEL, "chip_rmse") == "28.4 (24.0…33.1)"
    assert format_figure(MODEL, "r2") == "0.71"
    assert format_figure({"r2": None}, "r2") == "-"
    assert format_figure({}, "mae") == "-"


def test_the_model_stands_above_what_it_should_beat() -> None:
    scores = {"forest": MODEL, "baseline": MODEL, "model": MODEL, "intervals": {}, "trees": MODEL}
    rows = tabulate_figures(scores, "test").rows
    names = [row[0] for row in rows]
    assert names == [*(tables.MODELS[kind] for kind in ("model", "trees", "baseline")), "forest"]
    assert rows[0][1] == "28.4 (24.0…33.1)"


def test_intervals_show_the_naive_sum_beside_them() -> None:
    area = {"coverage": 0.914, "width": 40.06, "naive": {"coverage": 0.5}}
    intervals = {
        "level": 0.9,
        "pixel": {"coverage": 0.9, "width": 88.0},
        "block_1ha": area,
        "block_16ha": {"coverage": None},
        "ci95": {"block_1ha": {"coverage": [0.85, 0.95]}},
    }
    table = tabulate_intervals(intervals, "test")
    assert table.caption == "test: 90 % intervals"
    assert [row[1:] for row in table.rows] == [
        ["90%", "88.0", "-"],
        ["91% (85%…95%)", "40.1", "50%"],
    ]


def test_conditions_tell_what_missing_data_cost() -> None:
    assert tabulate_conditions({}) is None
    plain, without = {"chip_rmse": 28.0, "bias": 1.0}, {"chip_rmse": 38.64, "bias": -13.4}
    table = tabulate_conditions({"plain": plain, "conditions": {"no_s1": without, "odd": None}})
    assert table is not None
    assert table.rows[1] == ["without Sentinel-1", "38.6", "+10.6", "-13.4"]


def test_params_that_differ_come_first() -> None:
    here = {"lr": 0.1, "model": {"backbone": "b", "head": None}, "new": 1}
    table = tabulate_params(here, {"lr": 0.1, "model": {"backbone": "l", "head": None}})
    assert table.rows[:2] == [["model.backbone", "b", "l"], ["new", "1", "-"]]
    assert {row[2] for row in table.rows[2:]} == {"the same"}
    assert dict(list_leaves(here))["model.head"] == "null"


def test_a_runs_record_is_found_for_its_own_inputs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_record("train@0", "abc") is None
    write_record("train@0", "abc", 12.5)
    found = find_record("train@0", "abc")
    assert found is not None
    assert (found.stage, found.seconds) == ("train@0", 12.5)
    assert "cores of" in found.hardware
    assert found.finished.endswith("+00:00")
    assert find_record("train@0", "other") is None
    record_path("train@0").write_text(json.dumps({"stage": "train@0"}))
    assert find_record("train@0", "abc") is None
    assert set(RunRecord.__dataclass_fields__) >= {"inputs", "hardware"}


def test_scene_is_described_with_the_interval_of_the_whole() -> None:
    figures = {
        "mapped_ha": 10_485.76,
        "agbm_mean_t_ha": 108.56,
        "agbm_mean_lower_t_ha": 77.07,
        "agbm_mean_upper_t_ha": 140.05,
        "agbm_total_t": 1_138_287.8,
        "agbm_total_lower_t": 808_093.8,
        "agbm_total_upper_t": 1_468_481.9,
        "interval_level": 0.9,
    }
    told = "lakeland: 105 km² with 109 t/ha (77…140), 1.14 million t (0.808…1.47) of above-ground"
    assert describe_scene("lakeland", figures).startswith(f"{told} biomass; in brackets the 90%")
    del figures["interval_level"]
    without = "lakeland: 105 km² with 109 t/ha, 1.14 million t of above-ground biomass."
    assert describe_scene("lakeland", figures) == without
    assert describe_scene("sea", {}) == "sea: the map has no totals."
