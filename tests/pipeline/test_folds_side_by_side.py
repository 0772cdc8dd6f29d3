"""Two folds that train at the same time in one checkout, each on a device of its own."""

import shutil

import psutil
import pytest
from forked_scripts import run_script
from together import make_environment
from waiting import PATIENCE_S, happens
from workspace import Workspace, find_trainers, make_tiny_workspace

FOLDS = (0, 1)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with a store and its statistics, where two folds are to be trained."""
    workspace = make_tiny_workspace(tmp_path_factory.mktemp("folds") / "checkout")
    workspace.set_params({"folds": list(FOLDS), "train.epochs": 3})
    workspace.run("dvc", "repro", "band_statistics")
    return workspace


def train_side_by_side(workspace: Workspace) -> None:
    """Start a DVC for each fold, as docs/cluster.md says."""
    started = []
    for fold in FOLDS:
        changes = [f"{key}={value}" for key, value in choose_device().items()]
        dvc = ("dvc", "--wait-for-lock", "repro", "-s", f"train@{fold}")
        started.append(workspace.start("env", *changes, *dvc, anew=False))
    seen: set[psutil.Process] = set()

    def are_at_once() -> bool:
        for trainer in set(find_trainers(workspace)) - seen:
            trainer.suspend()  # so that it does not end before the other has come
            seen.add(trainer)
        return len(seen) == len(FOLDS) or any(dvc.poll() is not None for dvc in started)

    at_once = happens(are_at_once) and len(seen) == len(FOLDS)
    for trainer in seen:
        trainer.resume()
    assert [dvc.wait(PATIENCE_S) for dvc in started] == [0, 0]
    assert at_once, "one waited for the other"


def choose_device() -> dict[str, str]:
    """Return an environment with a device for a fold: a CPU thread, on which bytes are promised."""
    return {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def read_models(workspace: Workspace) -> dict[str, bytes]:
    folder = workspace.folder
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.glob("models/*/*.safetensors")
    }


def test_folds_side_by_side_give_what_they_give_one_after_the_other(prepared: Workspace) -> None:
    train_side_by_side(prepared)
    result = prepared.run("dvc", "repro", *(f"train@{fold}" for fold in FOLDS))
    assert "Data and pipelines are up to date." in result.stdout
    models = read_models(prepared)
    assert len(models) == 2 * len(FOLDS)
    shutil.rmtree(prepared.folder / "work")  # their checkpoints, from which they would go on
    shutil.rmtree(prepared.folder / "models")
    environment = make_environment(**choose_device(), BIOMASSTERS_WORKERS="0")
    for fold in FOLDS:
        done = run_script(prepared.folder, "src/train.py", str(fold), environment=environment)
        assert done.returncode == 0, done.stderr
    assert read_models(prepared) == models
