"""The pipeline under the real DVC: what runs, what reruns, and what users then see.

All tests share one run in a tiny workspace; each puts it back as it was.
"""

import csv
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from workspace import Workspace, make_tiny_workspace

from biomassters.simulator.official_files import write_catalogue
from biomassters.store.georeference import allow_nowhere

ALL = "fetch@train fetch@test band_statistics train@0 finetune predict evaluate"
"""All stages but `fingerprint`, which any change of src runs."""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = make_tiny_workspace(tmp_path_factory.mktemp("pipeline"))
    result = workspace.run("dvc", "repro")
    assert list_stages_run(result.stdout) == {"fingerprint", *ALL.split()}
    workspace.commit("The results of the first run")
    return workspace


@pytest.fixture
def workspace(pipeline: Workspace) -> Iterator[Workspace]:
    yield pipeline
    pipeline.run("git", "reset", "--quiet", "--hard")
    pipeline.run("git", "clean", "--quiet", "--force")
    pipeline.run("dvc", "checkout", "--quiet", "--force")


def list_stages_run(output: str) -> set[str]:
    return set(re.findall(r"^Running stage '(.+)':$", output, re.MULTILINE))


@contextmanager
def changed_file(path: Path) -> Iterator[Path]:
    """Put a file back after a change."""
    text = path.read_text()
    yield path
    path.write_text(text)


def list_stages_to_run(workspace: Workspace) -> set[str]:
    """Return the stages that have changed, and all that depend on them."""
    status = json.loads(workspace.run("dvc", "status", "--json").stdout)
    waiting = {name for name in status if not name.endswith(".dvc")}
    folds = yaml.safe_load((workspace.folder / "params.yaml").read_text())["folds"]
    edges = list_edges(workspace, tuple(folds))
    found: set[str] = set()
    while waiting:
        stage = waiting.pop()
        found.add(stage)
        waiting |= {below for above, below in edges if above == stage} - found
    return found


@cache
def list_edges(workspace: Workspace, folds: tuple[int, ...]) -> list[tuple[str, str]]:  # noqa: ARG001
    """Return which stage depends on which: of all params, `folds` alone decides that."""
    return re.findall(r'"(.+)" -> "(.+)";', workspace.run("dvc", "dag", "--dot").stdout)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def test_second_repro_finds_nothing_to_do(workspace: Workspace) -> None:
    assert "Data and pipelines are up to date." in workspace.run("dvc", "repro").stdout
    assert workspace.run("git", "status", "--porcelain").stdout == ""


AFTER_TRAINING = "finetune predict evaluate"
AFTER_FETCHING = f"band_statistics train@0 {AFTER_TRAINING}"


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({"lr": 1e-5}, f"train@0 {AFTER_TRAINING}"),
        ({"seed": 1}, f"train@0 {AFTER_TRAINING}"),
        ({"folds": [0, 1]}, "train@1 evaluate"),
        ({"data.chip_size": 64}, ALL),
        ({"split.seed": 1}, f"train@0 {AFTER_TRAINING}"),
        ({"split.method": "stratified"}, f"train@0 {AFTER_TRAINING}"),
        (
            {"statistics.source": "published", "model.normalisation": "minmax"},
            f"{AFTER_FETCHING}",
        ),
        ({"model.backbone": "mobilenetv3_small_075"}, f"train@0 {AFTER_TRAINING}"),
        ({"augmentation.rotation_p": 0.7}, f"train@0 {AFTER_TRAINING}"),
        ({"optimisation.batch_size": 3}, f"train@0 {AFTER_TRAINING}"),
        ({"train.epochs": 3}, f"train@0 {AFTER_TRAINING}"),
        ({"finetune.lr": 1e-5}, AFTER_TRAINING),
        ({"predict.tta": "none"}, "predict evaluate"),
        ({"predict.clamp": False}, "predict evaluate"),
        ({"predict.models": "folds"}, "predict evaluate"),
    ],
    ids=str,
)
def test_changed_param_reruns_exactly(
    pipeline: Workspace, change: dict[str, Any], stages: str
) -> None:
    with changed_file(pipeline.folder / "params.yaml"):
        pipeline.set_params(change)
        assert list_stages_to_run(pipeline) == set(stages.split())


def test_experiment_with_a_learning_rate_that_yaml_reads_as_a_string(workspace: Workspace) -> None:
    result = workspace.run("dvc", "exp", "run", "-S", "lr=1e-5")
    assert list_stages_run(result.stdout) == {"train@0", "finetune", "predict", "evaluate"}
    curve = workspace.folder / "metrics/train/0/plots/metrics/train/lr.tsv"
    assert float(curve.read_text().split()[-1]) <= 1e-5
    assert "1e-05" in workspace.run("dvc", "params", "diff").stdout
    difference = workspace.run("dvc", "metrics", "diff", "--json").stdout
    changed = json.loads(difference)["metrics/evaluation.json"]
    assert changed["test.model.chip_rmse"]["diff"] != 0
    assert "validation.fold_0.model.chip_rmse" in changed
    plots = workspace.run("dvc", "plots", "diff", "--json").stdout
    assert "metrics/train/0/plots/metrics/train/loss.tsv" in plots


def test_experiment_with_another_tta_only_predicts_and_evaluates(workspace: Workspace) -> None:
    result = workspace.run("dvc", "exp", "run", "-S", "predict.tta=none")
    assert list_stages_run(result.stdout) == {"predict", "evaluate"}


def test_further_fold_trains_alone(workspace: Workspace) -> None:
    result = workspace.run("dvc", "exp", "run", "-S", "folds=[0,1]")
    assert list_stages_run(result.stdout) == {"train@1", "evaluate"}
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
    assert list_stages_run(result.stdout) == {"predict", "evaluate"}
    workspace.run("dvc", "exp", "run", "--queue", "--name", "queued", "-S", "predict.tta=dihedral")
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
        *("fingerprint", "fetch@train", "fetch@test", "predict", "evaluate")
    }
    assert "test: 1 chips fetched, 0 taken from an unfinished run, 2 unchanged" in result.stdout


@pytest.mark.parametrize(
    ("shell", "processes", "epochs"), [("/bin/bash", 1, 9), ("/bin/sh", 2, 10)]
)
def test_killed_dvc_takes_its_trainer_along_and_the_next_repro_goes_on(
    workspace: Workspace, shell: str, processes: int, epochs: int
) -> None:
    """DVC runs a stage by $SHELL, which stays in between where it is dash, as /bin/sh often is."""
    workspace.set_params({"train.epochs": epochs})
    environment = {"SHELL": shell, "BIOMASSTERS_PROCESSES": str(processes)}
    changes = [f"{key}={value}" for key, value in environment.items()]
    before = set(workspace.folder.glob("work/train-0-*/checkpoint.pt"))
    with workspace.start("env", *changes, "dvc", "repro", "train@0") as dvc:
        while set(workspace.folder.glob("work/train-0-*/checkpoint.pt")) == before:
            assert dvc.poll() is None, "the training ended without a checkpoint"
            time.sleep(0.02)
        dvc.kill()
    # Were the trainer still alive, this one would be refused.
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
    keys = {"chip_rmse", "pooled_rmse", "mae", "bias", "r2", "rmse_by_bin"}
    for scores in (metrics["test"], metrics["validation"]["fold_0"]):
        assert set(scores) == {"model", "baseline"}
        assert set(scores["model"]) == set(scores["baseline"]) == keys


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
        "metrics/train/0/plots/metrics/validation/chip_rmse.tsv",
        "metrics/finetune/plots/metrics/train/loss.tsv",
        "metrics/evaluation/images/histograms.png",
        "metrics/evaluation/chips.csv",
    ):
        assert name in shown


def test_run_leaves_only_results_for_git(pipeline: Workspace) -> None:
    tracked = pipeline.run("git", "ls-files").stdout.split()
    grown = {path for path in tracked if Path(path).suffix in {".tif", ".safetensors", ".png"}}
    assert grown == {path for path in tracked if path.startswith("docs/")} & grown
    lock = yaml.safe_load((pipeline.folder / "dvc.lock").read_text())
    assert set(lock["stages"]) == {"fingerprint", *ALL.split()}
