"""`make gpu` where no GPU is: its dry run by a Python that has torch alone, and its parts."""

import importlib.metadata
import json
import logging
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from waiting import happens

import gpu
import gpu_wheels
import tables
from gpu_measuring import dry_setting, gpu_setting, list_works
from gpu_profile import name_family, rank_shares
from gpu_tasks import Found, Task, run_tasks
from repository_copy import ROOT, copy_repository

GOLDEN = ROOT.parent / "shared" / "golden"


def list_needed(*names: str) -> Iterator[importlib.metadata.Distribution]:
    """Yield distributions with all that they require here."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        yield (found := importlib.metadata.distribution(name))
        for requirement in map(Requirement, found.requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)


def link(distribution: importlib.metadata.Distribution, site: Path) -> None:
    """Show a distribution's modules, and nothing beside them, in a folder."""
    for top in {path.parts[0] for path in distribution.files or []} - {"..", "__pycache__"}:
        if not (site / top).exists():
            (site / top).symlink_to(distribution.locate_file(top))


@pytest.fixture(scope="module")
def bare_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the packages of a machine that has torch, and those that are carried to it."""
    site = tmp_path_factory.mktemp("site")
    for distribution in list_needed("torch", *gpu_wheels.WITH_TORCH):
        link(distribution, site)
    for name in gpu_wheels.CARRIED:
        link(importlib.metadata.distribution(name), site)
    return site


@pytest.fixture(scope="module")
def dry_run(bare_site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the JSON of `make gpu DRY=1` in a copy of the repository, by the base's Python."""
    copy = tmp_path_factory.mktemp("copy") / "repository"
    copy_repository(copy)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("BIOMASSTERS")}
    environment = {
        **kept,
        "PYTHONPATH": str(bare_site),
        "PYTHONNOUSERSITE": "1",
        "GOLDEN_FOLDER": str(GOLDEN),
        "COMMIT": "carried",
    }
    done = subprocess.run(
        ["make", "gpu", "DRY=1", f"PYTHON={sys._base_executable}"],
        cwd=copy, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return copy / "build/gpu/dry-run.json"


def test_dry_run_measures_all_works_and_passes_the_tests_by_a_bare_python(dry_run: Path) -> None:
    document = json.loads(dry_run.read_text())
    assert (document["dry"], document["failures"], document["left_out"]) == (True, [], [])
    assert document["tests"]["failures"] == []
    assert document["tests"]["passed"] >= 12
    reasons = {case["reason"] for case in document["tests"]["skipped"]}
    no_golden = "needs the golden numbers, in ../shared/golden or at GOLDEN_FOLDER"
    assert reasons <= {"on a CPU: tests/model/test_network.py", no_golden}
    assert (no_golden in reasons) == (not GOLDEN.is_dir())
    assert document["machine"] | {"gpu": None, "commit": "carried"} == document["machine"]
    works = [work for work in list_works(dry_setting()) if not work.kind.startswith("profile")]
    rows = [(row["work"], row["batch"], row["precision"], row["mode"]) for row in document["rows"]]
    assert rows == [(work.kind, work.batch, work.precision, work.mode) for work in works]
    assert not dry_run.with_suffix(".state.json").exists()


def test_profile_of_the_dry_run_says_where_the_time_goes(dry_run: Path) -> None:
    profiles = json.loads(dry_run.read_text())["profiles"]
    assert set(profiles) == {
        f"profile of {work}, batch 2, fp32, eager" for work in ("prediction", "training step")
    }
    for profile in profiles.values():
        assert sum(profile["families"].values()) == pytest.approx(1, abs=1e-3)
        assert profile["families"]["convolution"] > 0.1
        assert list(profile["kernels"].values()) == sorted(profile["kernels"].values())[::-1]


def test_numbers_of_the_dry_run_are_printed_as_such_and_never_written(
    dry_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    document = tmp_path / "performance.md"
    document.write_text(before := tables.BEGIN + tables.END)
    monkeypatch.setattr(tables, "DOCUMENT", document)
    [row] = [
        row for row in json.loads(dry_run.read_text())["rows"] if row["work"] == "timm's encoder"
    ][:1]
    monkeypatch.setattr(sys, "argv", ["tables.py", str(dry_run)])
    tables.main()
    printed = capsys.readouterr().out
    assert printed.startswith("*A dry run on a CPU, no measurement*: torch")
    assert (
        f"| timm's bare encoder, views/s | 2 | {tables.format_number(row['chips/s'])} |" in printed
    )
    assert len([line for line in printed.splitlines() if line.startswith("| ")]) == 6
    monkeypatch.setattr(sys, "argv", ["tables.py", str(dry_run), "--write"])
    with pytest.raises(SystemExit, match="measurements of a GPU, got those of a dry run on a CPU"):
        tables.main()
    assert document.read_text() == before


def make_task(name: str, run: Any = lambda _: None, **changes: Any) -> Task:
    return Task(**{"name": name, "kind": name, "guess_s": 0.0, "run": run, **changes})


def fail(error: Exception) -> Any:
    def run(_: Found) -> None:
        raise error

    return run


def test_task_without_time_is_left_out_and_one_that_fails_takes_no_other_with_it(
    tmp_path: Path,
) -> None:
    state, measured = tmp_path / "state.json", {"work": "any"}
    tasks = [
        make_task("slow", guess_s=60.0),
        make_task("large", fail(torch.OutOfMemoryError("CUDA out of memory. Tried ..."))),
        make_task("wrong", fail(ValueError("of some\nkind"))),
        make_task("good", lambda found: found.rows.append(measured)),
    ]
    run_tasks(tasks, Found(), state, time.monotonic() + 30)
    found = Found.read(state)
    assert [left["task"] for left in found.left_out] == ["slow"]
    assert found.left_out[0]["reason"] == "about 60 s needed, 30 s left"
    assert found.failures == [
        {"task": "large", "cause": "out of memory"},
        {"task": "wrong", "cause": "ValueError: of some kind"},
    ]
    assert (found.rows, found.waiting) == ([measured], [])


def test_task_that_went_on_without_the_compiler_has_no_numbers(tmp_path: Path) -> None:
    def run(found: Found) -> None:
        found.rows.append({"work": "any"})
        log.warning("expected torch.compile to work, got another; going on without it")

    log = logging.getLogger("biomassters.model.execution")
    run_tasks([make_task("compiled", run)], Found(), tmp_path / "state.json", time.monotonic() + 9)
    found = Found.read(tmp_path / "state.json")
    assert found.rows == []
    assert found.failures[0]["cause"].startswith("expected torch.compile to work")


CRASHING = """
import json, os, pathlib, sys
state = pathlib.Path(sys.argv[1].removeprefix("--state="))
new = {"waiting": ["a", "b", "c"], "rows": []}
found = json.loads(state.read_text()) if state.exists() else new
if found["waiting"][0] == "b":
    os.kill(os.getpid(), 9)
found["rows"].append(found["waiting"].pop(0))
state.write_text(json.dumps(found))
if found["waiting"][:1] == ["b"]:
    os.kill(os.getpid(), 9)
"""


def test_process_that_crashes_loses_the_task_under_way_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "TASKS", tmp_path / "tasks.py")
    gpu.TASKS.write_text(CRASHING)
    found = gpu.run_tasks(os.environ, tmp_path / "state.json", time.monotonic() + 60, dry=True)
    assert found["rows"] == ["a", "c"]
    assert found["failures"] == [{"task": "b", "cause": "its process ended with status -9"}]
    assert found["left_out"] == []


def has_ended(process: Path) -> bool:
    """Whether a process, by its file in /proc, runs no longer."""
    try:
        return process.read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_part_that_finds_no_end_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c',"
        f" 'import time; time.sleep(600)']); open({str(tmp_path / 'pid')!r}, 'w').write("
        "str(child.pid)); time.sleep(600)"
    )
    assert gpu.run_part([sys.executable, "-c", code], os.environ, 3.0) is None
    child = Path("/proc", (tmp_path / "pid").read_text(), "stat")
    assert happens(lambda: has_ended(child))
    assert gpu.describe_end(None) == "for lack of time"


def make_wheel(folder: Path, tag: str = "py3-none-any") -> Path:
    """Write a wheel of one module by hand."""
    folder.mkdir(exist_ok=True)
    path, info = folder / f"carried_example-1.0-{tag}.whl", "carried_example-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("carried_example.py", "value = 7\n")
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: carried-example\nVersion: 1.0\n"
        )
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def test_carried_wheels_are_installed_once_without_a_network_and_found_first(
    tmp_path: Path,
) -> None:
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    assert gpu.install(wheels, site) is None
    make_wheel(wheels)
    assert gpu.install(wheels, site) == site
    module = site / "carried_example.py"
    module.write_text("value = 8\n")
    assert gpu.install(wheels, site) == site  # these very wheels are there, by this very Python
    environment = gpu.make_environment(site, wheels / "golden", dry=False)
    code = "import carried_example; print(carried_example.value)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "8\n"


def test_wheels_for_another_python_are_refused_in_one_line(tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", "cp39-cp39-manylinux2014_x86_64")
    with pytest.raises(
        SystemExit, match=r"expected wheels for .*, at .*wheels; make them"
    ) as caught:
        gpu.install(tmp_path / "wheels", tmp_path / "site")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import no_such_package", "expected torch and all that is measured, got ModuleNotFound"),
        ('print(\'{"gpu": null, "torch": "2.11.0"}\')', "expected a GPU, got none that torch"),
    ],
)
def test_machine_that_cannot_measure_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    monkeypatch.setattr(gpu, "TASKS", tmp_path / "tasks.py")
    gpu.TASKS.write_text(script)
    with pytest.raises(SystemExit, match=message) as caught:
        gpu.describe(os.environ, dry=False)
    assert "\n" not in str(caught.value)


def test_batch_that_has_no_room_is_a_result_and_other_failures_are_none(tmp_path: Path) -> None:
    document: dict[str, Any] = {
        "tests": {"passed": 1, "failures": [], "skipped": []},
        "failures": [{"task": "training step, batch 32", "cause": "out of memory"}],
        "left_out": [],
        "took_s": 1.0,
    }
    assert gpu.conclude(tmp_path, document) == 0
    document["tests"]["failures"] = [{"test": "any", "cause": "assert 1 == 2"}]
    assert gpu.conclude(tmp_path, document) == 1


def test_works_are_those_of_the_issue_and_what_compiles_comes_after() -> None:
    works = list(list_works(gpu_setting()))
    names = [work.name for work in works]
    assert len(set(names)) == len(names)
    for kind in ("prediction", "training step", "end to end"):
        for batch in (8, 16, 32):
            assert {f"{kind}, batch {batch}, bf16, {mode}" for mode in tables.MODES} <= set(names)
    first_compiled = next(index for index, work in enumerate(works) if work.compiled)
    assert {work.precision for work in works[:first_compiled]} == {"bf16", "fp16"}
    assert tables.USUAL.items() <= gpu_setting().describe().items()


@pytest.mark.parametrize(
    ("kernel", "family"),
    [
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32", "convolution"),
        ("void cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16_s16816dgrad", "convolution"),
        ("nvjet_tst_128x256_64x4_1x2_h_bz_coopB_TNT", "matrix product"),
        ("void at::native::batch_norm_transform_input_channels_last_kernel", "normalisation"),
        ("triton_poi_fused__native_batch_norm_legit_silu_3", "generated by the compiler"),
        ("Memcpy HtoD (Pinned -> Device)", "copy"),
        ("void at::native::reduce_kernel<512, 1>", "sum"),
        ("void at::native::vectorized_elementwise_kernel<4, silu>", "pixelwise"),
        ("void at::native::(anonymous namespace)::multi_tensor_apply_kernel", "optimizer"),
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL", "between GPUs"),
        ("void unheard_of", "other"),
    ],
)
def test_kernel_belongs_to_the_family_that_its_name_tells(kernel: str, family: str) -> None:
    assert name_family(kernel) == family


def test_shares_by_hand() -> None:
    assert rank_shares({"a": 1.0, "b": 3.0}) == {"b": 0.75, "a": 0.25}


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_all_that_is_carried_is_pinned_with_hashes(python: str) -> None:
    names = [*gpu_wheels.CARRIED, *gpu_wheels.WITH_TORCH]
    text = (ROOT / "requirements.txt").read_text()
    pins = list(gpu_wheels.read_pins(text, names, python))
    assert [pin.partition("==")[0] for pin in pins] == sorted(set(names) - {"pip"})
    assert all("--hash=sha256:" in pin for pin in pins)


def test_what_no_pin_names_is_refused() -> None:
    with pytest.raises(SystemExit, match=r"pins for Python 3.12, got none of no-such, at require"):
        list(gpu_wheels.read_pins("a==1 \\\n    --hash=sha256:00\n", ["a", "no-such"], "3.12"))
