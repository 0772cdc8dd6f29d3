"""Why commands and stages start soon: what they have imported by then. Seconds: a benchmark."""

import subprocess
import sys

import pytest

from repository_copy import SRC

HELP = """
import sys
before = set(sys.modules)
from biomassters import __main__
for command in [[], *([name] for name in __main__._COMMANDS)]:
    sys.argv = ["biomassters", *command, "--help"]
    try:
        __main__.main()
    except SystemExit as end:
        assert end.code == 0
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print("imported", *sorted(new - sys.stdlib_module_names))
"""
IMPORT = """
import sys
import {module}
print(*(name for name in {heavy} if name in sys.modules))
"""


def run_python(program: str) -> list[str]:
    """Return the words of the last line that a program prints."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1].split()


def test_help_of_no_command_imports_a_library() -> None:
    assert run_python(HELP) == ["imported", "biomassters", "psutil"]


@pytest.mark.parametrize(
    "module", ["compare", "prune_checkpoints", "summary", "use_catalogue", "why"]
)
def test_command_that_computes_nothing_imports_nothing_to_compute_with(module: str) -> None:
    heavy = ("numpy", "scipy", "rasterio", "torch", "timm", "matplotlib", "dvc")
    program = IMPORT.format(module=f"biomassters.commands.{module}", heavy=heavy)
    assert run_python(program) == []


@pytest.mark.parametrize(
    ("scripts", "heavy"),
    [
        (
            "band_statistics, baselines, calibrate, evaluate, fetch, fingerprint, report",
            ("torch", "dvc"),
        ),
        # What they need as soon as there is a network to build, or to train.
        ("finetune, predict, train", ("timm", "torch._dynamo", "openvino", "dvclive")),
    ],
)
def test_stage_that_has_nothing_to_do_imports_no_more_than_it_starts_with(
    scripts: str, heavy: tuple[str, ...]
) -> None:
    assert run_python(IMPORT.format(module=scripts, heavy=heavy)) == []
