"""How long commands take that have nothing to do: a help, a refused stage, DVC with all up to date.

`python benchmarks/startup.py --runs 5`, in a checkout. The CPU time is that of the command and of
all that it starts: on a busy machine it says more than the clock.
"""

import argparse
import os
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ITEMS = {"fetch": "train", "train": "0"}
"""What the scripts of stages with a matrix are told."""
UP_TO_DATE = ("dvc repro train@0", "dvc repro")
"""Only where `dvc status` finds nothing to do: else they would do it."""


class Spent(NamedTuple):
    """Seconds of one run, and how it ended."""

    wall: float
    cpu: float
    status: int


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="of each command (5)")
    runs = parser.parse_args().runs
    print("| command | seconds | CPU seconds | exit code |\n|---|---|---|---|")
    with TemporaryDirectory() as empty:
        for command, folder in list_commands(Path(empty)):
            spent = [measure(command, folder) for _ in range(runs)]
            print(format_row(command, spent), flush=True)


def list_commands(empty: Path) -> Iterator[tuple[str, Path]]:
    """Yield commands that change nothing, each with the folder to run it in.

    Args:
        empty: An empty folder: without params.yaml every stage is refused, after its imports.
    """
    yield "python -c pass", ROOT
    yield "python -m biomassters --help", ROOT
    for name in list_subcommands():
        yield f"python -m biomassters {name} --help", ROOT
    for script in sorted((ROOT / "src").glob("*.py")):
        words = ["python", str(script), *ITEMS.get(script.stem, "").split()]
        yield shlex.join(words), empty
    yield "python -m biomassters why", ROOT
    yield "dvc status", ROOT
    status = run("dvc status --json", ROOT)
    if status.stdout.strip() == "{}":
        yield from ((command, ROOT) for command in UP_TO_DATE)
    else:
        print(f"(without {', '.join(UP_TO_DATE)}: the pipeline is not up to date)", file=sys.stderr)


def list_subcommands() -> list[str]:
    """Return the names that the help of `python -m biomassters` lists."""
    text = run("python -m biomassters --help", ROOT).stdout
    # A name is indented by four, and what does not fit beside it stands further to the right.
    lines = text.partition("COMMAND\n")[2].splitlines()
    return [line.split()[0] for line in lines if line[:4] == "    " and line[4:5].strip()]


def measure(command: str, folder: Path) -> Spent:
    """Run a command to its end."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    status = run(command, folder).returncode
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, status)


def run(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command with this Python, and its dvc, first on the PATH."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return subprocess.run(  # those of the list
        shlex.split(command),
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def format_row(command: str, spent: Sequence[Spent]) -> str:
    """Return a row of medians."""
    wall, cpu = (statistics.median(run[column] for run in spent) for column in (0, 1))
    return f"| `{command.replace(f'{ROOT}/', '')}` | {wall:.2f} | {cpu:.2f} | {spent[0].status} |"


if __name__ == "__main__":
    main()
