"""From the JSON of `make gpu` to the rows of docs/performance.md.

    python benchmarks/tables.py build/gpu/gpu.json            # prints them
    python benchmarks/tables.py build/gpu/gpu.json --write    # puts them into the document
    python benchmarks/tables.py h100.json a100.json --write   # those of several GPUs

What a file lacks is "not measured". A dry run's numbers are printed as such, and never written.
Needs nothing but Python.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

Document = dict[str, Any]

ROOT: Final = Path(__file__).parents[1]
DOCUMENT: Final = ROOT / "docs" / "performance.md"
BEGIN: Final = "<!-- benchmarks/tables.py writes what follows, up to the end -->\n"
END: Final = "<!-- the end of what benchmarks/tables.py writes -->\n"

NOT_MEASURED: Final = "not measured"
NOTHING: Final = "-"
RATES: Final = {
    "prediction": "views/s",
    "training step": "chips/s",
    "end to end": "chips/s",
    "timm's encoder": "chips/s",
}
"""What is told of each work; the bare encoder's chips are all months of one, as a view is."""
TITLES: Final = {
    "prediction": "prediction, views/s",
    "training step": "training step, chips/s",
    "end to end": "training from a store, chips/s",
    "timm's encoder": "timm's bare encoder, views/s",
}
GOALS: Final = {"prediction": 300, "training step": 100, "end to end": 100}
"""On one H100."""
USUAL: Final[Document] = {
    "case": "winner",
    "chip_size": 256,
    "batches": [8, 16, 32],
    "precisions": ["bf16", "fp16"],
    "micro_batches": [8, 4],
    "step_precision": "fp16",
}
"""What is measured on a GPU."""
MODES: Final = ("eager", "compiled")
COLUMNS: Final = ("batch", "eager", "compiled", "of the ceiling", "GiB")


def main() -> None:
    """Print the rows, or put them into the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="*", help="JSON of make gpu; none: not measured")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    options = parser.parse_args()
    documents = [read_file(path) for path in options.files]
    if options.write:
        for path, document in zip(options.files, documents, strict=True):
            refuse_other_than_gpu(path, document)
    text = "\n".join(format_block(document) for document in documents or [{}])
    if options.write:
        replace_rows(DOCUMENT, text)
    else:
        print(text, end="")


def read_file(path: Path) -> Document:
    """Read what `make gpu` wrote.

    Raises:
        SystemExit: It is something else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or not isinstance(document.get("machine"), dict):
            raise ValueError("no machine in it")
    except (OSError, ValueError) as error:
        sys.exit(
            f"error: expected the JSON of make gpu, got {type(error).__name__} ({error}),"
            f" at {path}; run make gpu"
        )
    return document


def refuse_other_than_gpu(path: Path, document: Document) -> None:
    """Refuse what belongs into no table of GPUs.

    Raises:
        SystemExit: The numbers are a dry run's, or there was no GPU.
    """
    got = "those of a dry run on a CPU" if document.get("dry") else "none: it names no GPU"
    if document.get("dry") or not document["machine"].get("gpu"):
        sys.exit(
            f"error: expected measurements of a GPU, got {got}, at {path};"
            " run make gpu where there is one, without DRY=1"
        )


def format_block(document: Document) -> str:
    """Return all that is said of one GPU, as Markdown; without one, that it is not measured."""
    if not (document and (document["dry"] or document["machine"]["gpu"])):
        document = {}
    lines = [*caption(document), "", *format_table(document)]
    for paragraph in (*tell_best(document), *tell_profiles(document), *tell_missing(document)):
        lines += ["", paragraph]
    return "\n".join(lines) + "\n"


def caption(document: Document) -> list[str]:
    """Return what was measured, where and when."""
    if not document:
        return ["*Not measured*: no GPU was at hand. `make gpu` measures it, and gives these rows."]
    machine, tests = document["machine"], document["tests"]
    where = "*A dry run on a CPU, no measurement*:"
    if not document["dry"]:
        where = (
            f"*Measured*: {machine['gpu']} ({machine['gpu_gib']} GiB), driver {machine['driver']},"
            f" CUDA {machine['cuda']}, cuDNN {machine['cudnn']},"
        )
    return [
        f"{where} torch {machine['torch']}, timm {machine['timm']}, Python {machine['python']},",
        f"{machine['cores']} cores, commit {machine['commit']}, {machine['time'].split('T')[0]},"
        f" `make gpu` ({document['took_s']:.0f} s). GPU tests: {tests['passed']} passed,"
        f" {len(tests['failures'])} failed, {len(tests['skipped'])} skipped.",
    ]


def format_table(document: Document) -> list[str]:
    """Return the rows, each of a work and a batch."""
    case = document.get("case") or USUAL
    precision, *others = case["precisions"]
    name = "the winner's model" if case["case"] == "winner" else f"a small model ({case['case']})"
    head = f"{name}, {case['chip_size']} pixels, {precision}"
    lines = [f"| {' | '.join((head, *COLUMNS))} |", "|---" * (1 + len(COLUMNS)) + "|"]
    for work, batch in product(RATES, case["batches"]):
        lines.append(format_row(document, TITLES[work], work, batch, precision))
    middle = case["batches"][len(case["batches"]) // 2]
    for other, work in product(others, ("prediction", "training step")):
        title = f"{TITLES[work]}, in {other}"
        lines.append(format_row(document, title, work, middle, other, modes=("eager",)))
    precision = case["step_precision"]
    title = f"training step that keeps few activations, chips/s, in {precision}"
    for batch in case["micro_batches"]:
        work = "step in little memory"
        lines.append(format_row(document, title, work, batch, precision, modes=("eager",)))
    return lines


def format_row(
    document: Document,
    title: str,
    work: str,
    batch: int,
    precision: str,
    modes: Sequence[str] = MODES,
) -> str:
    """Return one row: the modes that are measured, and of the faster one what else is known."""
    rate = RATES.get(work, "chips/s")
    found = {
        row["mode"]: row
        for row in find_rows(document, work)
        if (row["batch"], row["precision"]) == (batch, precision)
    }
    cells = []
    for mode in MODES:
        if mode in found:
            cells.append(format_number(found[mode][rate]))
        elif mode in modes:
            cells.append(find_cause(document, f"{work}, batch {batch}, {precision}, {mode}"))
        else:
            cells.append(NOTHING)
    best = max(found.values(), key=lambda row: row[rate], default={})
    cells += [format_number(best.get(key)) for key in ("of the ceiling", "GiB")]
    return f"| {' | '.join([title, str(batch), *cells])} |"


def find_rows(document: Document, work: str) -> Iterator[Document]:
    """Yield the rows of a work."""
    return (row for row in document.get("rows", []) if row["work"] == work)


def find_cause(document: Document, task: str) -> str:
    """Return why there is no number: it failed, or it was not measured."""
    for failure in document.get("failures", []):
        if failure["task"] == task:
            return "out of memory" if failure["cause"] == "out of memory" else "failed"
    return NOT_MEASURED


def format_number(value: float | None) -> str:
    """Return a number to three digits."""
    if value is None:
        return NOTHING
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def tell_best(document: Document) -> Iterator[str]:
    """Yield the best rate of each work beside its goal; a dry run has none."""
    if not document or document["dry"]:
        return
    said = []
    for work, goal in GOALS.items():
        best = max(find_rows(document, work), key=lambda row: row[RATES[work]], default=None)
        rate = NOT_MEASURED
        if best is not None:
            how = f"batch {best['batch']}, {best['precision']}, {best['mode']}"
            rate = f"{format_number(best[RATES[work]])} {RATES[work]} ({how})"
        said.append(f"{work} {rate} of {goal}")
    yield f"The best, and the goal on one H100: {'; '.join(said)}."


def tell_profiles(document: Document) -> Iterator[str]:
    """Yield where the time goes."""
    for name, profile in document.get("profiles", {}).items():
        busy = profile["GPU busy"]
        computing = "" if busy is None else f", of which the GPU computes {100 * busy:.0f} %"
        kernels = {f"`{kernel[:60]}`": share for kernel, share in profile["kernels"].items()}
        yield (
            f"Where the time goes, {name.removeprefix('profile of ')}: {profile['ms']:.0f} ms"
            f"{computing}: {list_shares(profile['families'], 8)}. Most: {list_shares(kernels, 3)}."
        )
    waits = [
        f"{100 * row['waiting for data']:.0f} % (batch {row['batch']}, {row['mode']})"
        for row in find_rows(document, "end to end")
    ]
    if waits:
        yield f"Trained from a store, the host waited for data {', '.join(waits)} of the time."


def list_shares(shares: dict[str, float], n_shown: int) -> str:
    """Return the largest shares, as percentages; what would be 0 is left out."""
    shown = list(shares.items())[:n_shown]
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in shown if share >= 0.005)


def tell_missing(document: Document) -> Iterator[str]:
    """Yield what is not among the rows, and why."""
    named: Sequence[tuple[str, str, str]] = (
        ("Left out", "left_out", "reason"),
        ("Failed", "failures", "cause"),
    )
    for title, key, why in named:
        if document.get(key):
            parts = [f"{task['task']} ({task[why]})" for task in document[key]]
            yield f"{title}: {'; '.join(parts)}."


def replace_rows(path: Path, text: str) -> None:
    """Replace what is between the markers of a document, whole or not at all.

    Raises:
        SystemExit: It has no such markers.
    """
    document = path.read_text(encoding="utf-8")
    before, begun, rest = document.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (begun and ended):
        sys.exit(
            f"error: expected the lines {BEGIN.strip()} and {END.strip()}, got none such,"
            f" at {path}; put them around the rows"
        )
    half = path.with_name(f".{path.name}.half")
    half.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    half.replace(path)


if __name__ == "__main__":
    main()
