"""One run of the tiny pipeline, which all tests of what it leaves behind share."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from reruns import ALL, FINGERPRINT, list_stages_run
from workspace import Workspace, make_tiny_workspace


@pytest.fixture(scope="session")
def finished_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace after its first run, committed: made by whichever test process comes first."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "finished-pipeline"
    with (shared / "finished-pipeline.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = shared / "unfinished-pipeline"
            shutil.rmtree(unfinished, ignore_errors=True)
            workspace = make_tiny_workspace(unfinished)
            result = workspace.run("dvc", "repro", anew=True)
            assert list_stages_run(result.stdout) == {FINGERPRINT, *ALL.split()}
            workspace.commit("The results of the first run")
            unfinished.rename(folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(finished_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of it for the tests of one file."""
    folder = tmp_path_factory.mktemp("pipeline") / "checkout"
    shutil.copytree(finished_pipeline, folder, symlinks=True)
    return Workspace(folder)


@pytest.fixture
def workspace(pipeline: Workspace) -> Iterator[Workspace]:
    """The same, put back as it was after a test."""
    yield pipeline
    pipeline.run("git", "reset", "--quiet", "--hard")
    pipeline.run("git", "clean", "--quiet", "--force", "-d")
    pipeline.run("dvc", "checkout", "--quiet", "--force")
