"""A copy of this repository with a tiny experiment in it, where DVC may really run."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from forked_python import start_forked_python
from locked import is_free
from waiting import happens

import repository_copy
from biomassters.simulator.official_files import write_catalogue

TINY: Mapping[str, Any] = {
    "data.chip_size": 32,
    "split.n_folds": 3,
    "model.backbone": "mobilenetv3_small_050",
    "model.decoder_channels": [16, 16, 8, 8, 8],
    "optimisation.batch_size": 2,
    "optimisation.micro_batch_size": 2,
    "train.epochs": 2,
    "train.validation_every": 1,
    "finetune.epochs": 2,
    "calibration.level": 0.5,  # two held-out chips tell no more
    "baselines.max_iter": 3,
    "robustness.months_removed": [1, 12],
    "robustness.conditions": ["no_s2"],
    "robustness.tta": "flips",  # as all other scores
    "predict.engine": "torch",  # a conversion takes longer than these predictions
}
"""Changes of the committed params: every stage takes seconds."""

TINY_SCENE = """source: synthetic
landscape: lakeland
year: 2020
crs: EPSG:3067
bounds: [448000, 6886400, 448640, 6886880]
"""


class Workspace:
    """A git repository with its own DVC cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(
        self, *command: str, check: bool = True, anew: bool = False, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command there, with this python and its dvc first on the PATH, in one process.

        Args:
            command: What to run.
            check: Whether it must succeed.
            anew: Whether DVC starts each stage by Python itself; else by `forked_python`.
            environment: Further variables.
        """
        variables = self.environment if anew else self.forked_environment
        result = subprocess.run(
            command,
            cwd=self.folder,
            env={**variables, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if check and result.returncode != 0:
            raise AssertionError(f"{' '.join(command)}:\n{result.stdout}\n{result.stderr}")
        return result

    def start(self, *command: str, anew: bool = True) -> "subprocess.Popen[bytes]":
        """Start a command there without waiting; its output is dropped.

        Args:
            command: What to run.
            anew: As `run` has it; unlike there, by default.
        """
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment if anew else self.forked_environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @property
    def environment(self) -> dict[str, str]:
        """Variables with this python and its dvc first on the PATH, for one process."""
        environment = repository_copy.copy_environment(self.folder)
        return {
            **environment,
            "BIOMASSTERS_WORKERS": "0",
            "BIOMASSTERS_PROCESSES": "1",
            "OMP_NUM_THREADS": "1",  # these tensors are too small to be worth the wait for another
        }

    @property
    def forked_environment(self) -> dict[str, str]:
        """The same, with the python and the dvc of `forked_python` before these."""
        environment = self.environment
        path = f"{start_forked_python()}{os.pathsep}{environment['PATH']}"
        return {**environment, "PATH": path}

    def set_params(self, changes: Mapping[str, Any]) -> None:
        """Set dotted keys of params.yaml."""
        repository_copy.set_params(self.folder, changes)

    def commit(self, message: str) -> None:
        """Commit everything."""
        repository_copy.commit_all(self.folder, message)


def find_trainers(workspace: Workspace) -> list[psutil.Process]:
    """Return the processes that train in a checkout, or in temporary ones of it."""
    found = []
    for process in psutil.process_iter(["name"]):
        with suppress(psutil.Error):  # it has ended
            is_forked = process.info["name"] == "train.py"
            if is_forked or "src/train.py" in process.cmdline()[1:2]:
                cwd = Path(process.cwd())
                if cwd == workspace.folder or workspace.folder in cwd.parents:
                    found.append(process)
    return found


def list_checkpoints(workspace: Workspace) -> set[Path]:
    """Return the newest checkpoint of each training of fold 0."""
    return set(workspace.folder.glob("work/train-0-*/checkpoint.pt"))


def kill_dvc_while_training(workspace: Workspace, environment: Mapping[str, str]) -> None:
    """Start the training of fold 0 by DVC, kill that after a checkpoint; its trainer ends, too.

    Args:
        workspace: Where no such training has been yet.
        environment: Changes of the environment.
    """
    changes = [f"{name}={value}" for name, value in environment.items()]
    before = list_checkpoints(workspace)
    with workspace.start("env", *changes, "dvc", "repro", "train@0") as dvc:
        assert happens(lambda: list_checkpoints(workspace) - before or dvc.poll() is not None)
        assert dvc.poll() is None, "the training ended"
        dvc.kill()
    [checkpoint] = list_checkpoints(workspace) - before
    assert happens(lambda: is_free(checkpoint.parent)), "the trainer is still alive"


def copy_repository(folder: Path) -> Workspace:
    """Copy the repository, without the results of the committed run."""
    repository_copy.copy_repository(folder)
    return Workspace(folder)


def make_tiny_workspace(folder: Path, *, n_train: int = 6, n_test: int = 2) -> Workspace:
    """Copy the repository, with a few small synthetic chips and a tiny model."""
    workspace = copy_repository(folder)
    catalogue = folder / "src/catalogue/synthetic"
    shutil.rmtree(catalogue)
    write_catalogue(
        catalogue, n_train=n_train, n_test=n_test, chip_size=int(TINY["data.chip_size"])
    )
    (folder / "scenes/lakeland.yaml").write_text(TINY_SCENE)
    workspace.set_params(TINY)
    workspace.commit("A tiny experiment")
    return workspace
