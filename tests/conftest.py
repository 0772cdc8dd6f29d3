"""What several test files share."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# One thread for torch and whatever tests start. Their tensors are too small for a second one, which
# waits for the first by spinning: on busy cores that took a test of the model four times as long.
os.environ["OMP_NUM_THREADS"] = "1"

# No example fails for the time that it takes: the machine may be busy.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


TESTS = Path(__file__).parent

SLOWEST_FOLDERS = ("pipeline", "mapping", "training", "model", "packing")
"""First, so that no process of `make test` is left alone with a file of minutes."""

FIRST = TESTS / "pipeline/test_runs.py"
"""The longest of those that share one run of the pipeline, which it makes.

Meanwhile the other process has files that do not wait for it.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the folders that take longest first; the order is the same in each process."""
    folders = {folder: place for place, folder in enumerate(SLOWEST_FOLDERS)}
    sharing = {
        item.path
        for item in items
        if isinstance(item, pytest.Function) and "finished_pipeline" in item.fixturenames
    }

    def rank(item: pytest.Item) -> tuple[int, bool, bool]:
        folder = item.path.relative_to(TESTS).parts[0]
        return folders.get(folder, len(folders)), item.path != FIRST, item.path in sharing

    items.sort(key=rank)


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Golden numbers, the real catalogue and two real chips, kept beside the repository."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs ../shared (golden numbers and real chips), which is absent here")
    return folder


@pytest.fixture(autouse=True, scope="session")
def shared_bytecode(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the hundreds of processes that tests start compile each module once, not each anew.

    They do so by themselves but where Python was told to write no bytecode beside the sources.
    """
    with pytest.MonkeyPatch.context() as patch:
        if sys.dont_write_bytecode:
            patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
            patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("bytecode")))
        yield
