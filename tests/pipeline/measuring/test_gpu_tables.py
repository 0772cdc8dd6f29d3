"""From the JSON of `make gpu` to rows: exact ones of made-up numbers, and what is never written."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import tables
from repository_copy import ROOT

ROWS = [
    ("prediction", 8, "eager", {"views/s": 212.4, "of the ceiling": 0.2, "GiB": 9.5}),
    ("prediction", 8, "compiled", {"views/s": 1301.2, "of the ceiling": 0.253, "GiB": 8.25}),
    ("training step", 8, "eager", {"chips/s": 61.04, "of the ceiling": None, "GiB": 31.5}),
    ("end to end", 16, "eager", {"chips/s": 7.0, "GiB": 31.0, "waiting for data": 0.021}),
    ("timm's encoder", 32, "eager", {"chips/s": 99.96}),
]
DOCUMENT: dict[str, Any] = {
    "dry": False,
    "took_s": 488.6,
    "machine": {
        "gpu": "NVIDIA Example", "gpu_gib": 79.1, "driver": "580.1", "cuda": "13.0",
        "cudnn": 91900, "torch": "2.11.0", "timm": "1.0.31", "python": "3.12.3", "cores": 16,
        "commit": "0123abc", "time": "2026-11-26T07:31:49+00:00",
    },
    "tests": {"passed": 30, "failures": [], "skipped": [{"test": "a", "reason": "two GPUs"}]},
    "case": tables.USUAL,
    "rows": [
        {"work": work, "batch": batch, "mode": mode, "precision": "bf16", **numbers}
        for work, batch, mode, numbers in ROWS
    ],
    "profiles": {
        "profile of training step, batch 16, bf16, eager": {
            "ms": 163.2, "GPU busy": 0.974, "families": {"convolution": 0.622, "other": 0.001},
            "kernels": {"k" * 70: 0.4},
        }
    },
    "failures": [
        {"task": "training step, batch 32, bf16, eager", "cause": "out of memory"},
        {"task": "end to end, batch 8, bf16, eager", "cause": "its process ended with status -9"},
    ],
    "left_out": [{"task": "prediction, batch 32, bf16, compiled", "reason": "no time"}],
}  # fmt: skip


@pytest.fixture
def document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of docs/performance.md, which is written in its place."""
    copy = tmp_path / "performance.md"
    copy.write_text((ROOT / "docs/performance.md").read_text())
    monkeypatch.setattr(tables, "DOCUMENT", copy)
    return copy


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["tables.py", *map(str, arguments)])
    tables.main()


def write_json(folder: Path, **changes: Any) -> Path:
    path = folder / "gpu.json"
    path.write_text(json.dumps({**DOCUMENT, **changes}))
    return path


def test_rows_have_the_numbers_of_the_file_or_why_there_are_none() -> None:
    lines = tables.format_block(DOCUMENT).splitlines()
    assert [line for line in lines if line.startswith("| ")] == [
        "| the winner's model, 256 pixels, bf16"
        " | batch | eager | compiled | of the ceiling | GiB |",
        "| prediction, views/s | 8 | 212 | 1301 | 0.253 | 8.25 |",
        "| prediction, views/s | 16 | not measured | not measured | - | - |",
        "| prediction, views/s | 32 | not measured | not measured | - | - |",
        "| training step, chips/s | 8 | 61 | not measured | - | 31.5 |",
        "| training step, chips/s | 16 | not measured | not measured | - | - |",
        "| training step, chips/s | 32 | out of memory | not measured | - | - |",
        "| training from a store, chips/s | 8 | failed | not measured | - | - |",
        "| training from a store, chips/s | 16 | 7 | not measured | - | 31 |",
        "| training from a store, chips/s | 32 | not measured | not measured | - | - |",
        "| timm's bare encoder, views/s | 8 | not measured | not measured | - | - |",
        "| timm's bare encoder, views/s | 16 | not measured | not measured | - | - |",
        "| timm's bare encoder, views/s | 32 | 100 | not measured | - | - |",
        "| prediction, views/s, in fp16 | 16 | not measured | - | - | - |",
        "| training step, chips/s, in fp16 | 16 | not measured | - | - | - |",
        *(
            "| training step that keeps few activations, chips/s, in fp16"
            f" | {batch} | not measured | - | - | - |"
            for batch in (8, 4)
        ),
    ]


def test_text_tells_the_machine_the_goals_the_profile_and_what_is_missing() -> None:
    text = tables.format_block(DOCUMENT)
    for said in (
        "*Measured*: NVIDIA Example (79.1 GiB), driver 580.1, CUDA 13.0, cuDNN 91900, torch",
        "commit 0123abc, 2026-11-26, `make gpu` (489 s). GPU tests: 30 passed, 0 failed, 1 skip",
        "prediction 1301 views/s (batch 8, bf16, compiled) of 300; training step 61 chips/s (batch",
        f"eager: 163 ms, of which the GPU computes 97 %: convolution 62 %. Most: `{'k' * 60}` 40",
        "the host waited for data 2 % (batch 16, eager) of the time.",
        "Left out: prediction, batch 32, bf16, compiled (no time).",
        "Failed: training step, batch 32, bf16, eager (out of memory); end to end, batch 8,",
    ):
        assert said in text


def test_file_without_a_gpu_is_not_measured_and_not_written(
    tmp_path: Path, document: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    before = document.read_text()
    path = write_json(tmp_path, machine=DOCUMENT["machine"] | {"gpu": None})
    run(monkeypatch, path)
    printed = capsys.readouterr().out
    assert printed == tables.format_block({})
    assert "| prediction, views/s | 8 | not measured | not measured | - | - |" in printed
    with pytest.raises(SystemExit, match="measurements of a GPU, got none: it names no GPU, at"):
        run(monkeypatch, path, "--write")
    assert document.read_text() == before


def test_dry_run_is_refused_whatever_gpu_it_names(
    tmp_path: Path, document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = document.read_text()
    with pytest.raises(SystemExit, match=r"those of a dry run on a CPU, at .*gpu\.json; run"):
        run(monkeypatch, write_json(tmp_path, dry=True), "--write")
    assert document.read_text() == before


def test_rows_are_replaced_and_the_rest_of_the_document_stays(
    tmp_path: Path, document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = document.read_text()
    run(monkeypatch, write_json(tmp_path), "--write")
    written = document.read_text()
    assert tables.format_block(DOCUMENT) in written
    for old, new in zip(split(before), split(written), strict=True):
        assert old == new
    run(monkeypatch, write_json(tmp_path), write_json(tmp_path), "--write")
    assert document.read_text().count("*Measured*: NVIDIA Example") == 2
    assert list(tmp_path.glob(".*")) == []


def split(text: str) -> tuple[str, str]:
    """Return what is before and after the rows."""
    before, _, rest = text.partition(tables.BEGIN)
    return before, rest.partition(tables.END)[2]


def test_document_has_the_rows_that_the_script_writes() -> None:
    """Of no file, until there is a GPU to measure on: then this test goes."""
    rest = (ROOT / "docs/performance.md").read_text().partition(tables.BEGIN)[2]
    assert rest.partition(tables.END)[0].strip() == tables.format_block({}).strip()


@pytest.mark.parametrize("content", ["", "[1]", '{"machine": 3}', None])
def test_other_than_the_json_of_make_gpu_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(
        SystemExit, match=r"the JSON of make gpu, got .*, at .*other.json; run make"
    ):
        run(monkeypatch, path)


def test_document_without_the_markers_is_refused_and_stays(
    tmp_path: Path, document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document.write_text("# Speed\n")
    with pytest.raises(SystemExit, match=r"expected the lines <!-- .*, got none such, at .*\.md"):
        run(monkeypatch, write_json(tmp_path), "--write")
    assert document.read_text() == "# Speed\n"
