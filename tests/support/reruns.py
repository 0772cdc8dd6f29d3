"""What DVC would rerun in a workspace, and what it ran."""

import re
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from dvc.repo import Repo
from ruamel.yaml import YAML
from workspace import Workspace

from biomassters.fingerprint.closure import hash_closure
from biomassters.fingerprint.records import write_record
from biomassters.params.reading import read_document

FINGERPRINT = "fingerprint"
ALL = (
    "fetch@train fetch@test band_statistics train@0 finetune calibrate predict map@lakeland"
    " baselines robustness evaluate report"
)
"""All stages but `fingerprint`."""
PREDICTION = "predict evaluate report"
MAPS = f"map@lakeland {PREDICTION}"
AFTER_TRAINING = f"finetune robustness {MAPS}"
TRAINING = f"train@0 calibrate {AFTER_TRAINING}"
AFTER_STATISTICS = f"band_statistics {TRAINING}"
AFTER_FETCHING = f"{AFTER_STATISTICS} baselines"
NOTHING = ""


def list_stages_run(output: str) -> set[str]:
    """Return the stages that a command of DVC says it ran."""
    return set(re.findall(r"^Running stage '(.+)':$", output, re.MULTILINE))


@contextmanager
def kept(*paths: Path) -> Iterator[None]:
    """Put files and links back after a change; those that were not there are deleted."""
    before = {path: path.read_bytes() if path.exists() else None for path in paths}
    try:
        yield
    finally:
        for path, data in before.items():
            path.unlink(missing_ok=True)  # it may be a link into DVC's cache
            if data is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)


def write_fingerprints(workspace: Workspace) -> None:
    """Do what the stage `fingerprint` does, without starting Python for it."""
    for path in (workspace.folder / "fingerprints").glob("*.json"):
        write_record(path, hash_closure(workspace.folder / f"src/{path.stem}.py"))


def list_stages_to_run(workspace: Workspace) -> set[str]:
    """Return the stages that DVC says have changed, and all that depend on them."""
    # Here, since it takes a third of the time of `dvc status`, and names stages as seen from there.
    with chdir(workspace.folder), patch.object(YAML, "load", _load_once), Repo() as repo:
        status = repo.status()
    found = {name for name in status if not name.endswith(".dvc")}
    waiting = found - {FINGERPRINT}  # whose outs are written already
    edges = _list_edges(workspace)
    while waiting:
        stage = waiting.pop()
        new = {below for above, below in edges if above == stage} - found
        found |= new
        waiting |= new
    return found


LOAD = YAML.load


def _load_once(yaml: YAML, stream: Any) -> Any:
    """Load as ever, equal texts once: that is most of what DVC does for a status."""
    if yaml.typ != ["safe"] or not isinstance(stream, str):
        return LOAD(yaml, stream)
    return deepcopy(_load_text(stream))


@lru_cache(maxsize=64)
def _load_text(text: str) -> Any:
    return LOAD(YAML(typ="safe"), text)


_EDGES: dict[tuple[Path, tuple[int, ...]], list[tuple[str, str]]] = {}


def _list_edges(workspace: Workspace) -> list[tuple[str, str]]:
    """Return which stage depends on which: of all params, `folds` alone decides that."""
    params = read_document(workspace.folder / "params.yaml")
    key = workspace.folder, tuple(params["folds"])
    if key not in _EDGES:
        dot = workspace.run("dvc", "dag", "--dot").stdout
        _EDGES[key] = re.findall(r'"(.+)" -> "(.+)";', dot)
    return _EDGES[key]
