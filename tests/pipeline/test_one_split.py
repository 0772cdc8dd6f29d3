"""The pipeline under the real DVC, with chips of one split alone: it ends well, and says so."""

import csv
import json
from typing import Any

import pytest
from reruns import ALL, FINGERPRINT, MAPS, list_stages_run
from tiny_training import build_tiny_model
from workspace import Workspace, make_tiny_workspace

from biomassters.model.weights import save_weights
from biomassters.store.chips import ChipStore

UP_TO_DATE = "Data and pipelines are up to date."


def read_evaluation(workspace: Workspace) -> dict[str, Any]:
    return json.loads((workspace.folder / "metrics/evaluation.json").read_text())


def read_robustness(workspace: Workspace) -> dict[str, Any]:
    return json.loads((workspace.folder / "metrics/robustness.json").read_text())


def list_scored(workspace: Workspace) -> list[str]:
    with (workspace.folder / "metrics/evaluation/chips.csv").open() as file:
        return [row["set"] for row in csv.DictReader(file)]


def summarise(workspace: Workspace) -> str:
    return workspace.run("python", "-m", "biomassters", "summary").stdout


def import_weights(workspace: Workspace) -> None:
    path = workspace.folder / "models/imported/tiny.safetensors"
    save_weights(path, build_tiny_model(), {"cleaning": "none"})
    workspace.set_params(
        {
            "predict.models": "imported",
            "predict.calibration": "presets/uncalibrated.json",
            "predict.engine": "auto",
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str]:
    """A pipeline of train chips alone, and what its first run said."""
    folder = tmp_path_factory.mktemp("train-only") / "checkout"
    workspace = make_tiny_workspace(folder, n_train=6, n_test=0)
    result = workspace.run("dvc", "repro")
    assert list_stages_run(result.stdout) == {FINGERPRINT, *ALL.split()}
    return workspace, result.stdout


def test_train_chips_alone_are_trained_on_and_validated(trained: tuple[Workspace, str]) -> None:
    workspace, said = trained
    for line in (
        "test: no test chips, nothing to fetch",
        "no test chips, nothing to predict",
        "no targets of test chips, no score of them",
    ):
        assert line in said.splitlines()
    evaluation = read_evaluation(workspace)
    assert "test" not in evaluation
    assert set(evaluation["validation"]["fold_0"]) == {"model", "baseline", "trees"}
    assert list_scored(workspace) == ["fold-0"] * 2
    assert "validation fold_0, model" in summarise(workspace)
    assert (workspace.folder / "models/final/final.safetensors").stat().st_size > 10_000


def test_without_test_chips_trees_and_robustness_take_those_that_the_fold_held_out(
    trained: tuple[Workspace, str],
) -> None:
    workspace, _ = trained
    held_out = {path.name for path in (workspace.folder / "validation/fold-0").iterdir()}
    [trees] = (workspace.folder / "baselines/trees").iterdir()
    assert (trees.name, {path.name for path in trees.iterdir()}) == ("fold-0", held_out)
    robustness = read_robustness(workspace)
    assert (robustness["set"], robustness["chips"], robustness["models"]) == ("fold-0", 2, "fold-0")
    expected = read_evaluation(workspace)["validation"]["fold_0"]["model"]["chip_rmse"]
    assert robustness["plain"]["chip_rmse"] == pytest.approx(expected, rel=1e-4)


def test_without_test_chips_all_outs_are_there_and_empty(trained: tuple[Workspace, str]) -> None:
    workspace, _ = trained
    assert list((workspace.folder / "predictions").iterdir()) == []
    assert len(ChipStore.open(workspace.folder / "chips/test.zarr")) == 0
    audit = json.loads((workspace.folder / "metrics/fetch/test.json").read_text())
    assert (audit["chips"], audit["targets"]) == (0, 0)
    assert UP_TO_DATE in workspace.run("dvc", "repro").stdout
    assert "metrics/fetch/images/test.png" in workspace.run("dvc", "plots", "show", "--json").stdout


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str, str]:
    """A pipeline of test chips alone, and what its first run, without weights, said."""
    folder = tmp_path_factory.mktemp("test-only") / "checkout"
    workspace = make_tiny_workspace(folder, n_train=0, n_test=2)
    result = workspace.run("dvc", "repro", check=False)
    assert result.returncode != 0
    return workspace, result.stdout, result.stderr


def test_test_chips_alone_need_weights_and_are_told_whence(
    untrained: tuple[Workspace, str, str],
) -> None:
    workspace, said, error = untrained
    after = {"map@lakeland", "baselines", "robustness", "evaluate", "report"}
    assert list_stages_run(said) == {FINGERPRINT, *ALL.split()} - after
    for line in ("train: no train chips, nothing to fetch", "no train chips, nothing to train"):
        assert line in said.splitlines()
    assert "error: expected a trained model, got none, for the catalogue has no train" in error
    assert "import weights into models/imported and set predict.models to imported" in error
    assert "Traceback" not in error
    assert not list((workspace.folder / "validation/fold-0").iterdir())


def test_test_chips_alone_are_mapped_with_imported_weights(
    untrained: tuple[Workspace, str, str],
) -> None:
    workspace, _, _ = untrained
    import_weights(workspace)
    result = workspace.run("dvc", "repro")
    expected = {"baselines", "robustness", *MAPS.split()}
    assert list_stages_run(result.stdout) == expected
    assert "no train chips, no validation and no training mean" in result.stdout
    assert "no train chips, no baseline to fit" in result.stdout.splitlines()
    assert list((workspace.folder / "baselines").iterdir()) == []
    assert (read_robustness(workspace)["set"], read_robustness(workspace)["chips"]) == ("test", 2)
    chip_ids = ChipStore.open(workspace.folder / "chips/test.zarr").chip_ids
    maps = sorted(path.name for path in (workspace.folder / "predictions").iterdir())
    assert maps == [f"{chip_id}_agbm.tif" for chip_id in chip_ids]
    evaluation = read_evaluation(workspace)
    assert set(evaluation["test"]) == {"model"}
    assert evaluation["validation"] == {}
    assert list_scored(workspace) == ["test"] * 2
    assert "test, model" in summarise(workspace)
    assert UP_TO_DATE in workspace.run("dvc", "repro").stdout
    workspace.run("dvc", "plots", "show", "--json")
    assert "metrics/evaluation.json" in workspace.run("dvc", "metrics", "show").stdout


def test_test_chips_without_targets_are_mapped_and_not_scored(
    untrained: tuple[Workspace, str, str],
) -> None:
    workspace, _, _ = untrained
    import_weights(workspace)
    (workspace.folder / "src/catalogue/synthetic/test_agbm_metadata.csv").unlink()
    result = workspace.run("dvc", "repro")
    assert "no targets of test chips, no score of them" in result.stdout
    assert "no test chips with targets, and no held-out chips" in result.stdout
    assert read_robustness(workspace)["chips"] == 0
    assert len(list((workspace.folder / "predictions").iterdir())) == 2
    evaluation = read_evaluation(workspace)
    assert set(evaluation) == {"unit", "packages", "validation"}
    assert list_scored(workspace) == []
    assert "no chips with targets: nothing was scored" in summarise(workspace)
    workspace.run("dvc", "plots", "show", "--json")
