"""All that needs a GPU, in under nine minutes: tests, then benchmarks, into one JSON: `make gpu`.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --dry      # small, on the CPU: that it works, and no measurement

Runs with the Python at hand, which has torch of its own; what else is missing is installed from the
wheels that `make gpu-wheels` put into a folder, without a network. gpu.md tells how to use it. What
does not fit into the time is left out, and said; what fails is said too, and the rest goes on.

Of this project and of torch it imports nothing itself: its parts are processes, of which one that
crashes takes no other with it.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "build" / "gpu"
TASKS: Final = ROOT / "benchmarks" / "gpu_tasks.py"

BUDGET_S: Final = 510.0
"""Of all parts together: nine minutes, less what a part takes that is ended at the last moment."""
DRY_BUDGET_S: Final = 3600.0
"""Of a dry run, which takes half a minute of a CPU that may be busy with much else."""
TESTS_SHARE: Final = 0.4
"""Of the budget that the tests may take; what they leave is the benchmarks'."""
GRACE_S: Final = 10.0
"""How much longer than it was told to a part may run before it is ended."""
OUT_OF_MEMORY: Final = "out of memory"
"""As a task's failure has it."""
CRASHES: Final = 3
"""So many tasks may end their process before the rest is given up."""

Document = dict[str, Any]


def main() -> None:
    """Install, test, measure, and write the JSON; exit with 1 where a test or a task failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry", action="store_true", help="small, on the CPU")
    parser.add_argument("--wheels", type=Path, default=ROOT / "wheels", help="what was carried")
    parser.add_argument("--budget", type=float, help=f"seconds of all parts ({BUDGET_S:.0f})")
    parser.add_argument("--json", type=Path, help="default: build/gpu/gpu.json, or dry-run.json")
    options = parser.parse_args()
    budget_s = options.budget or (DRY_BUDGET_S if options.dry else BUDGET_S)
    deadline = time.monotonic() + budget_s
    check_python()
    site = install(options.wheels, FOLDER / "site")
    environment = make_environment(site, options.wheels / "golden", dry=options.dry)
    path = options.json or FOLDER / ("dry-run.json" if options.dry else "gpu.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    document: Document = {"dry": options.dry, "budget_s": budget_s}
    document["machine"] = describe(environment, dry=options.dry)
    print(", ".join(f"{key} {value}" for key, value in document["machine"].items()), flush=True)
    document["tests"] = run_tests(environment, budget_s * TESTS_SHARE, dry=options.dry)
    document["took_s"] = measure_time(budget_s, deadline)
    write(path, document)
    state = path.with_suffix(".state.json")
    state.unlink(missing_ok=True)
    document |= run_tasks(environment, state, deadline, dry=options.dry)
    document["took_s"] = measure_time(budget_s, deadline)
    write(path, document)
    state.unlink(missing_ok=True)
    sys.exit(conclude(path, document))


def measure_time(budget_s: float, deadline: float) -> float:
    """Return the seconds since the start."""
    return round(budget_s - (deadline - time.monotonic()), 1)


def check_python() -> None:
    """Refuse a Python that is too old.

    Raises:
        SystemExit: It is.
    """
    if sys.version_info < (3, 11):  # noqa: UP036  # this file is run by whatever Python is there
        sys.exit(
            f"error: expected Python 3.11 or later, got {sys.version.split()[0]},"
            f" at {sys.executable}; run make gpu PYTHON=python3.12, say"
        )


def install(wheels: Path, site: Path) -> Path | None:
    """Install the carried wheels into a folder of their own, by the pip among them.

    Not into a virtual environment: where torch's Python is one itself, another that sees its base's
    packages would not see torch.

    Args:
        wheels: The folder; without any, the Python at hand must have all.
        site: Where they go; left as it is, if it has these very wheels.

    Returns:
        What goes before the Python's own packages; None: nothing does.

    Raises:
        SystemExit: One of them is not for this Python.
    """
    carried = sorted(path for path in wheels.glob("*.whl") if not path.name.startswith("pip-"))
    if not carried:
        return None
    listed, noted = "\n".join([sys.version, *(path.name for path in carried)]), site / "carried.txt"
    if noted.is_file() and noted.read_text() == listed:
        return site
    shutil.rmtree(site, ignore_errors=True)
    pip = next((f"{path}/pip" for path in wheels.glob("pip-*.whl")), None)
    command = [sys.executable, *([pip] if pip else ["-m", "pip"]), "--isolated", "install"]
    command += ["--quiet", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--upgrade", f"--target={site}"]
    done = subprocess.run([*command, *map(str, carried)], capture_output=True, text=True)
    if done.returncode:
        cause = " ".join(done.stderr.split())[-300:]
        sys.exit(
            f"error: expected wheels for {sys.executable} ({sys.version.split()[0]}), got others"
            f" ({cause}), at {wheels}; make them for it (python scripts/gpu_wheels.py --python"
            " 3.N), or move them away if it has all"
        )
    noted.write_text(listed)
    return site


def make_environment(site: Path | None, golden: Path, *, dry: bool) -> dict[str, str]:
    """Return the environment of the parts: what was installed goes before the Python's own."""
    before = [str(path) for path in (site, ROOT / "src") if path]
    # What the caller has there comes after, as a machine's own packages do.
    path = os.pathsep.join([*before, *filter(None, [os.environ.get("PYTHONPATH", "")])])
    given = {"GOLDEN_FOLDER": str(golden)} if golden.is_dir() else {}
    own = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "KINETO_LOG_LEVEL": "99"}
    if dry:  # a thread alone: several wait for each other for long where others compute, too
        own |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return {**given, **os.environ, **own}


def describe(environment: Mapping[str, str], *, dry: bool) -> Document:
    """Return what the machine is; the same call finds out whether the parts can run at all.

    Raises:
        SystemExit: A package is missing, or there is no GPU.
    """
    command = [sys.executable, str(TASKS), "--describe"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        cause = (done.stderr.strip() or "no reason").splitlines()[-1]
        sys.exit(
            f"error: expected torch and all that is measured, got {cause}, at {sys.executable};"
            " name a Python that has torch (make gpu PYTHON=...), and carry the rest there:"
            " make gpu-wheels, on a machine with a registry"
        )
    machine: Document = json.loads(done.stdout.splitlines()[-1])
    if machine["gpu"] is None and not dry:
        sys.exit(
            f"error: expected a GPU, got none that torch {machine['torch']} sees, at this machine;"
            " run make gpu DRY=1 to try all of it on the CPU, small"
        )
    return machine


def run_tests(environment: Mapping[str, str], limit_s: float, *, dry: bool) -> Document:
    """Run the GPU tests, for so long at most; return how many passed, and why others did not."""
    report = FOLDER / "tests.jsonl"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "--no-header", "tests/gpu"]
    # Another torch than the pinned one may warn of other things; and no cache, no conftest above.
    command += ["--override-ini=filterwarnings=default", "--disable-warnings"]
    command += ["-p", "no:cacheprovider", "--confcutdir=tests/gpu"]
    settings = {**environment, "GPU_TESTS_REPORT": str(report), "GPU_TESTS_SECONDS": str(limit_s)}
    settings["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # without which its products need not repeat
    if dry:
        settings["GPU_TESTS_DEVICE"] = "cpu"
    started = time.monotonic()
    status = run_part(command, settings, limit_s + GRACE_S)
    lines = report.read_text(encoding="utf-8").splitlines() if report.is_file() else []
    cases: list[dict[str, str]] = [json.loads(line) for line in lines]
    by_outcome: dict[str, list[dict[str, str]]] = {"passed": [], "failed": [], "skipped": []}
    for case in cases:
        by_outcome[case.pop("outcome")].append(case)
    if status not in (0, 1):  # of pytest: all passed, some failed
        cause = f"ended {describe_end(status)} after {len(cases)} of them"
        by_outcome["failed"].append({"test": "the GPU tests", "cause": cause})
    return {
        "passed": len(by_outcome["passed"]),
        "failures": by_outcome["failed"],
        "skipped": by_outcome["skipped"],
        "took_s": round(time.monotonic() - started, 1),
    }


def run_tasks(
    environment: Mapping[str, str], state: Path, deadline: float, *, dry: bool
) -> Document:
    """Run the benchmarks, in as many processes as crash; return what they found."""
    crashes = 0
    while True:
        left_s = max(0.0, deadline - time.monotonic())
        command = [sys.executable, str(TASKS), f"--state={state}", f"--seconds={left_s:.1f}"]
        status = run_part([*command, *(["--dry"] if dry else [])], environment, left_s + GRACE_S)
        found: Document = json.loads(state.read_text()) if state.is_file() else {"waiting": ["all"]}
        if status in (0, None):
            break
        # The first one that waits was under way.
        crashes += 1
        name, *found["waiting"] = found["waiting"]
        failure = {"task": name, "cause": f"its process ended {describe_end(status)}"}
        found["failures"] = [*found.get("failures", []), failure]
        write(state, found)
        if not found["waiting"] or crashes == CRASHES or name == "all":
            break
    reason = "the time was over" if status is None else "others had ended their processes"
    left_out = [{"task": name, "reason": reason} for name in found.pop("waiting")]
    return found | {"left_out": [*found.get("left_out", []), *left_out]}


def run_part(command: Sequence[str], environment: Mapping[str, str], limit_s: float) -> int | None:
    """Run a process to its end; return its status, or None: it was ended at the limit."""
    process = subprocess.Popen(command, cwd=ROOT, env=dict(environment), start_new_session=True)
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        end_group(process)


def describe_end(status: int | None) -> str:
    """Return how a process ended, for people."""
    return "for lack of time" if status is None else f"with status {status}"


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """End whatever is left of a process and of what it started: compilers, other ranks."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def write(path: Path, document: Document) -> None:
    """Write a JSON file whole."""
    half = path.with_name(path.name + ".half")
    half.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    half.replace(path)


def conclude(path: Path, document: Document) -> int:
    """Say where the results are and what is not among them; return the exit status.

    A batch that the GPU has no room for is a result.
    """
    tests = document["tests"]
    failures = [(case["test"], case["cause"]) for case in tests["failures"]]
    failures += [(task["task"], task["cause"]) for task in document.get("failures", [])]
    n_passed, n_skipped = tests["passed"], len(tests["skipped"])
    print(f"\n{n_passed} tests passed, {n_skipped} were skipped; {document['took_s']:.0f} s in all")
    for task in document["left_out"]:
        print(f"left out: {task['task']} ({task['reason']})")
    for name, cause in failures:
        print(f"failed: {name} ({cause})")
    print(f"{path}; rows for docs/performance.md: python benchmarks/tables.py {path}")
    return int(any(cause != OUT_OF_MEMORY for _, cause in failures))


if __name__ == "__main__":
    main()
