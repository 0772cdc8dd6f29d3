"""The whole pipeline where Python lacks what Linux alone has: what of macOS can be tested here."""

import os
import sys
from pathlib import Path

import pytest
from workspace import Workspace, kill_dvc_while_training, make_tiny_workspace

STAND_IN = Path(__file__).parents[1] / "support/without_linux"
LINUX_CALLS = """
import ctypes, os
from pathlib import Path
for owner, name in ((os, "pidfd_open"), (os, "sched_getaffinity"), (ctypes.CDLL(None), "prctl")):
    assert not hasattr(owner, name), name
Path("/proc/self/stat").read_bytes()
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = make_tiny_workspace(tmp_path_factory.mktemp("without_linux"), n_train=4, n_test=1)
    changes = {"train.epochs": 1, "finetune.epochs": 1, "optimisation.compile": True}
    workspace.set_params({**changes, "split.n_folds": 2})  # two chips to train on, two held out
    return workspace


def without_linux(workspace: Workspace, **more: str) -> dict[str, str]:
    path = os.pathsep.join((str(STAND_IN), str(workspace.folder / "src")))
    return {"PYTHONPATH": path, "BIOMASSTERS_ACTIVATION_CHECKPOINTING": "1", **more}


def test_linux_calls_are_absent(workspace: Workspace) -> None:
    script = workspace.folder / "src/biomassters/linux_calls.py"
    script.write_text(LINUX_CALLS)
    command = (sys.executable, "-P", str(script))
    result = workspace.run(*command, check=False, **without_linux(workspace))
    script.unlink()
    assert "FileNotFoundError: [Errno 2] No such file or directory: '/proc/self/" in result.stderr


def test_pipeline_runs(workspace: Workspace) -> None:
    result = workspace.run("dvc", "repro", **without_linux(workspace))
    assert (workspace.folder / "metrics/evaluation.json").exists()
    # In train and in finetune, which alone hold activations for a gradient.
    assert result.stderr.count("going on without torch.compile") == 2


def test_killed_dvc_takes_its_trainer_along(workspace: Workspace) -> None:
    """Through dash, which stays between DVC and the command, and through what launches two."""
    workspace.set_params({"train.epochs": 100_000})  # never ends by itself
    variables = without_linux(workspace, SHELL="/bin/sh", BIOMASSTERS_PROCESSES="2")
    kill_dvc_while_training(workspace, variables)
