"""A copy of this repository with a tiny experiment in it, where DVC may really run."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from biomassters.dataset_writer import write_catalogue

ROOT = Path(__file__).parents[1]

TINY: Mapping[str, Any] = {
    "data.chip_size": 32,
    "split.n_folds": 3,
    "model.backbone": "mobilenetv3_small_050",
    "model.decoder_channels": [16, 16, 8, 8, 8],
    "optimisation.batch_size": 2,
    "train.epochs": 2,
    "train.validation_every": 1,
    "finetune.epochs": 2,
}
"""Changes of the committed params: every stage takes seconds."""


class Workspace:
    """A git repository with its own DVC cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(
        self, *command: str, check: bool = True, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command there, with this environment's python and dvc first on the PATH."""
        result = subprocess.run(
            command,
            cwd=self.folder,
            env={**environment_of_tests(), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if check and result.returncode != 0:
            raise AssertionError(f"{' '.join(command)}:\n{result.stdout}\n{result.stderr}")
        return result

    def set_params(self, changes: Mapping[str, Any]) -> None:
        """Set dotted keys of params.yaml."""
        path = self.folder / "params.yaml"
        document = yaml.safe_load(path.read_text())
        for key, value in changes.items():
            *parents, last = key.split(".")
            section = document
            for parent in parents:
                section = section[parent]
            section[last] = value
        path.write_text(yaml.safe_dump(document, sort_keys=False))

    def commit(self, message: str) -> None:
        """Commit everything."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--allow-empty", "--message", message)


def environment_of_tests() -> dict[str, str]:
    """Return the environment in which stages run: one worker process, no bars, this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DVC")}
    return {**kept, "PATH": path, "BIOMASSTERS_WORKERS": "0"}


def copy_repository(folder: Path) -> Workspace:
    """Copy the files that git tracks, or would, without the results of the committed run."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("metrics/") and name != "dvc.lock":
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
    workspace = Workspace(folder)
    workspace.run("git", "init", "--quiet", "--initial-branch", "main")
    for key, value in (("user.name", "Test"), ("user.email", "test@localhost")):
        workspace.run("git", "config", key, value)
    return workspace


def make_tiny_workspace(folder: Path, *, n_train: int = 6, n_test: int = 2) -> Workspace:
    """Copy the repository, with a few small synthetic chips and a tiny model."""
    workspace = copy_repository(folder)
    catalogue = folder / "src/catalogue/synthetic"
    shutil.rmtree(catalogue)
    write_catalogue(
        catalogue, n_train=n_train, n_test=n_test, chip_size=int(TINY["data.chip_size"])
    )
    workspace.set_params(TINY)
    workspace.commit("A tiny experiment")
    return workspace
