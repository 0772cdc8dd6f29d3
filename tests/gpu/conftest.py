"""Where the GPU tests run, how long, and what is told of them to who runs them: `make gpu`.

Without a GPU they are skipped. The environment variable GPU_TESTS_DEVICE=cpu tries their bodies on
the CPU, as `make gpu DRY=1` does.
"""

import json
import math
import os
import time
from pathlib import Path

import pytest
import torch
from golden import FOLDER_VARIABLE, find_golden

STARTED = time.monotonic()
NO_GPU = "needs a GPU: make gpu (make gpu DRY=1 tries these tests on the CPU)"


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Return the device under test."""
    asked = os.environ.get("GPU_TESTS_DEVICE", "cuda")
    if asked == "cuda" and not torch.cuda.is_available():
        pytest.skip(NO_GPU)
    return torch.device(asked)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Return the folder of the reference networks' numbers."""
    folder = find_golden()
    if folder is None:
        pytest.skip(f"needs the golden numbers, in ../shared/golden or at {FOLDER_VARIABLE}")
    return folder


def pytest_runtest_setup() -> None:
    """Leave out what there is no time for."""
    limit_s = float(os.environ.get("GPU_TESTS_SECONDS", math.inf))
    if time.monotonic() - STARTED > limit_s:
        pytest.skip(f"left out: the tests' {limit_s:.0f} s are over")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add a line to who runs them: the test, its outcome, and why it is that."""
    path = os.environ.get("GPU_TESTS_REPORT")
    if path is None or (report.when != "call" and report.outcome == "passed"):
        return
    case = {"test": report.nodeid.rpartition("/")[2], "outcome": report.outcome}
    if report.outcome == "skipped":
        case["reason"] = str(report.longrepr[2]).removeprefix("Skipped: ")  # type: ignore[index]
    if report.outcome == "failed":
        crash = getattr(report.longrepr, "reprcrash", None)
        said = str(report.longrepr) if crash is None else crash.message
        case["cause"] = (said.splitlines() or ["no reason"])[0][:300]
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(json.dumps(case) + "\n")
