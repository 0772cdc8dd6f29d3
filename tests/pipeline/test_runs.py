"""The pipeline under the real DVC: what runs, what reruns, and what users then see.

All tests share one run in a tiny workspace; each puts it back as it was.
"""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from reruns import ALL, FINGERPRINT, MAPS, PREDICTION, TRAINING, list_stages_run
from workspace import Workspace, kill_dvc_while_training

from biomassters.calibration.calibration import read_calibration
from biomassters.model.weights import load_model
from biomassters.params.reading import read_document
from biomassters.simulator.official_files import write_catalogue
from biomassters.store.georeference import allow_nowhere

AREAS = ("block_1ha", "block_16ha", "chip")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def test_second_repro_finds_nothing_to_do(workspace: Workspace) -> None:
    assert "Data and pipelines are up to date." in workspace.run("dvc", "repro").stdout
    assert workspace.run("git", "status", "--porcelain").stdout == ""


def test_experiment_with_some_bands_with_quantiles_and_a_rate_that_yaml_reads_as_a_string(
    workspace: Workspace,
) -> None:
    model = ("-S", "model.bands=[B4,VH descending]", "-S", "model.head=quantiles")
    result = workspace.run("dvc", "exp", "run", "-S", "lr=1e-5", *model)
    assert list_stages_run(result.stdout) == set(TRAINING.split())
    curve = workspace.folder / "metrics/train/0/plots/metrics/train/lr.tsv"
    assert float(curve.read_text().split()[-1]) <= 1e-5
    assert "1e-05" in workspace.run("dvc", "params", "diff").stdout
    final = load_model(workspace.folder / "models/final/final.safetensors")
    assert final.architecture.bands == ("B4", "VH descending")
    assert read_calibration(workspace.folder / "calibration.json").bounds is not None
    difference = workspace.run("dvc", "metrics", "diff", "--json").stdout
    changed = json.loads(difference)["metrics/evaluation.json"]
    assert changed["test.model.chip_rmse"]["diff"] != 0
    assert "validation.fold_0.model.chip_rmse" in changed
    plots = workspace.run("dvc", "plots", "diff", "--json").stdout
    assert "Training loss" in plots


def test_further_fold_trains_alone(workspace: Workspace) -> None:
    result = workspace.run("dvc", "exp", "run", "-S", "folds=[0,1]")
    expected = {"train@1", "calibrate", "baselines", *MAPS.split()}
    assert list_stages_run(result.stdout) == expected
    validation = read_json(workspace.folder / "metrics/evaluation.json")["validation"]
    assert set(validation) == {"fold_0", "fold_1"}


def test_ensemble_of_folds_is_refused_while_another_folds_model_lies_about(
    workspace: Workspace,
) -> None:
    stray = workspace.folder / "models/folds/fold-1.safetensors"
    stray.write_bytes((workspace.folder / "models/folds/fold-0.safetensors").read_bytes())
    workspace.set_params({"predict.models": "folds"})
    result = workspace.run("dvc", "repro", check=False)
    stray.unlink()
    assert result.returncode != 0
    assert "expected predictions averaged over fold-0, got fold-0, fold-1" in result.stderr
    assert "Traceback" not in result.stderr


def test_temporary_and_queued_experiments_leave_the_workspace_alone(workspace: Workspace) -> None:
    result = workspace.run("dvc", "exp", "run", "--temp", "-S", "predict.batch_size=1")
    # On a CPU the maps are the same, and are not evaluated again.
    assert list_stages_run(result.stdout) == {"robustness", "predict", "map@lakeland", "report"}
    changed = ("-S", "predict.tta=dihedral", "predict")
    workspace.run("dvc", "exp", "run", "--queue", "--name", "queued", *changed)
    workspace.run("dvc", "exp", "run", "--run-all")
    assert "queued" in workspace.run("dvc", "exp", "list", "--name-only").stdout
    assert workspace.run("git", "status", "--porcelain").stdout == ""


def test_further_test_chip_retrains_nothing(workspace: Workspace) -> None:
    catalogue = workspace.folder / "src/catalogue/synthetic"
    for path in catalogue.iterdir():
        path.unlink()
    write_catalogue(catalogue, n_train=6, n_test=3, chip_size=32)
    result = workspace.run("dvc", "repro")
    assert list_stages_run(result.stdout) == {
        *(FINGERPRINT, "fetch@train", "fetch@test"),
        *("baselines", "robustness", *PREDICTION.split()),
    }
    assert "test: 1 chips fetched, 0 taken from an unfinished run, 2 unchanged" in result.stdout


@pytest.mark.parametrize(
    ("shell", "processes", "epochs"), [("/bin/bash", 1, 16), ("/bin/sh", 2, 12)]
)
def test_killed_dvc_takes_its_trainer_along_and_the_next_repro_goes_on(
    workspace: Workspace, shell: str, processes: int, epochs: int
) -> None:
    """DVC runs a stage by $SHELL, which stays in between where it is dash, as /bin/sh often is."""
    workspace.set_params({"train.epochs": epochs})
    environment = {"SHELL": shell, "BIOMASSTERS_PROCESSES": str(processes)}
    kill_dvc_while_training(workspace, environment)
    result = workspace.run("dvc", "repro", "train@0", **environment)
    assert re.search(rf"going on after epoch \d+ of {epochs}", result.stderr)
    curve = workspace.folder / "metrics/train/0/plots/metrics/train/loss.tsv"
    steps = [line.split()[0] for line in curve.read_text().splitlines()[1:]]
    assert steps == [str(step) for step in range(epochs)]


def test_wrong_param_ends_the_first_stage_before_any_work(workspace: Workspace) -> None:
    workspace.set_params({"predict.tta": "fips", "lr": 0.002})
    result = workspace.run("dvc", "repro", check=False)
    assert result.returncode != 0
    assert "error: params.yaml: predict.tta: input should be 'none', 'flips'" in result.stderr
    assert "Traceback" not in result.stderr
    assert list_stages_run(result.stdout) == {"train@0"}


def test_metrics_hold_both_rmses_of_model_and_baseline(pipeline: Workspace) -> None:
    metrics = read_json(pipeline.folder / "metrics/evaluation.json")
    keys = {"chip_rmse", "pooled_rmse", "mae", "bias", "r2", "rmse_by_bin", "ci95"}
    # Two held-out chips make a calibration, and are too few to judge it.
    assert "intervals" not in metrics["validation"]["fold_0"]
    for scores in (metrics["test"], metrics["validation"]["fold_0"]):
        assert set(scores) - {"intervals"} == {"model", "baseline", "trees"}
        assert set(scores["model"]) == set(scores["baseline"]) == keys


def test_metrics_say_how_well_the_test_maps_intervals_hold(pipeline: Workspace) -> None:
    intervals = read_json(pipeline.folder / "metrics/evaluation.json")["test"]["intervals"]
    assert set(intervals) == {"level", "pixel", "crps", *AREAS, "ci95"}
    assert len(intervals["pixel"]["coverage_by_decile"]) == 10
    assert 0 < intervals["pixel"]["coverage"] <= 1
    assert intervals["block_16ha"]["coverage"] is None  # no chip of 32 pixels has such a block
    assert (pipeline.folder / "metrics/evaluation/images/coverage_test.png").exists()


def test_reported_test_score_is_that_of_the_files(pipeline: Workspace) -> None:
    """Recompute the competition's metric from the GeoTIFFs and the store, with other code."""
    xarray = pytest.importorskip("xarray")
    store = xarray.open_zarr(pipeline.folder / "chips/test.zarr")
    rmses = []
    for chip_id, target in zip(store.chip_id.values, store.agbm.values, strict=True):
        with allow_nowhere():
            raster = rasterio.open(pipeline.folder / f"predictions/{chip_id}_agbm.tif")
        with raster:
            rmses.append(np.sqrt(np.mean((raster.read(1) - target) ** 2)))
    metrics = read_json(pipeline.folder / "metrics/evaluation.json")
    assert metrics["test"]["model"]["chip_rmse"] == pytest.approx(np.mean(rmses), rel=1e-5)


def test_table_of_chips_has_each_scored_chip(pipeline: Workspace) -> None:
    with (pipeline.folder / "metrics/evaluation/chips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["set"] for row in rows] == ["test"] * 2 + ["fold-0"] * 2


def test_plots_show_curves_pictures_and_histograms(workspace: Workspace) -> None:
    shown = workspace.run("dvc", "plots", "show", "--json").stdout
    for name in (
        "metrics/evaluation/images/panels_test.png",
        "metrics/evaluation/images/density_fold-0.png",
        "Training loss",
        "metrics/robustness/images/robustness.png",
        "Validation chip RMSE",
        "chip RMSE, t/ha",
        "metrics/evaluation/images/histograms.png",
        "Each chip's mean, predicted against reference",
    ):
        assert name in shown


def test_run_leaves_only_results_for_git(pipeline: Workspace) -> None:
    tracked = pipeline.run("git", "ls-files").stdout.split()
    grown = {path for path in tracked if Path(path).suffix in {".tif", ".safetensors", ".png"}}
    assert grown == {path for path in tracked if path.startswith("docs/")} & grown
    lock = read_document(pipeline.folder / "dvc.lock")
    assert set(lock["stages"]) == {FINGERPRINT, *ALL.split()}


def test_trees_map_the_chips_that_the_network_maps(pipeline: Workspace) -> None:
    pairs = {"predictions": "test", "validation/fold-0": "fold-0"}
    for maps, of_trees in pairs.items():
        found = {path.name for path in (pipeline.folder / "baselines/trees" / of_trees).iterdir()}
        assert found == {path.name for path in (pipeline.folder / maps).iterdir()}


def test_error_with_everything_is_that_of_the_evaluation(pipeline: Workspace) -> None:
    metrics = read_json(pipeline.folder / "metrics/robustness.json")
    scores = read_json(pipeline.folder / "metrics/evaluation.json")["test"]["model"]
    assert (metrics["set"], metrics["chips"], metrics["models"]) == ("test", 2, "final")
    for name in ("chip_rmse", "pooled_rmse", "bias"):
        assert metrics["plain"][name] == pytest.approx(scores[name], rel=1e-5)
    assert metrics["months_removed"]["12"] == metrics["conditions"]["no_s2"] != metrics["plain"]


def test_curve_over_months_is_a_plot_with_its_unit(pipeline: Workspace) -> None:
    shown = pipeline.run("dvc", "plots", "show", "--json").stdout
    assert "metrics/robustness/images/robustness.png" in shown
    assert "Chip RMSE with fewer months of Sentinel-2" in shown
