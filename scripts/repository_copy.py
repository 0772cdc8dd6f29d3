"""A copy of this repository beside it, with other params, where the pipeline may really run."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
RESULTS = ("dvc.lock", "fingerprints/", "metrics/")
"""Of the committed run."""


def copy_repository(folder: Path) -> None:
    """Copy the files that git tracks, or would, without the results of the committed run.

    The copy is a git repository of its own, without commits.
    """
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(RESULTS):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
    _git(folder, "init", "--quiet", "--initial-branch", "main")
    for key, value in (("user.name", "Experiment"), ("user.email", "experiment@localhost")):
        _git(folder, "config", key, value)


def set_params(folder: Path, changes: Mapping[str, Any]) -> None:
    """Set dotted keys of a copy's params.yaml, as DVC's `-S` does: in its dialect of YAML."""
    path = folder / "params.yaml"
    yaml = YAML()
    document = yaml.load(path)
    for key, value in changes.items():
        *parents, last = key.split(".")
        section = document
        for parent in parents:
            section = section[parent]
        section[last] = value
    yaml.dump(document, path)


def commit_all(folder: Path, message: str) -> None:
    """Commit everything in a copy."""
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--allow-empty", "--message", message)


def copy_environment(folder: Path) -> dict[str, str]:
    """Return an environment with the copy's package, this python and its dvc first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DVC")}
    return {**kept, "PATH": path, "PYTHONPATH": str((folder / "src").resolve())}


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True)
