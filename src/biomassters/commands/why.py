"""What makes a stage out of date since its last run, by name: modules, params, inputs.

DVC's `status` says that a file has changed. This says which module's meaning did, what a param was,
and which stage an input comes from.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from biomassters.commands.dvc_calls import ask_dvc, flatten, run_dvc
from biomassters.errors import ParamsError
from biomassters.fingerprint.closure import hash_closure
from biomassters.fingerprint.records import encode_record, find_record, hash_record
from biomassters.fingerprint.stage_inputs import FINGERPRINTS, PIPELINE_FILE, fingerprint_path
from biomassters.model.weights_header import read_packages
from biomassters.params.reading import PARAMS_FILE, find_value, read_document
from biomassters.processes.packages import list_versions
from biomassters.processes.scratch import scratch_folder

LOCK_FILE: Final = Path("dvc.lock")
FINGERPRINT_STAGE: Final = "fingerprint"

Entry = tuple[str, str]
"""What kind of thing, and what about it."""


def explain(target: str | None = None) -> str:
    """Tell why a stage is out of date, and all that it depends on.

    Args:
        target: A stage of dvc.yaml, such as `train` (all folds) or `train@0`; None = all stages.

    Returns:
        A few lines for people.

    Raises:
        ParamsError: There is no such stage, or no pipeline here.
        DvcError: DVC cannot read the pipeline.
    """
    edges = _list_edges()
    stages = _sort(edges)
    wanted = [s for s in stages if target in (None, s, s.partition("@")[0])]
    if not wanted:
        names = ", ".join(s for s in stages if s != FINGERPRINT_STAGE)
        raise ParamsError(f"expected a stage ({names}), got {target!r}, at why; name one of these")
    shown = {stage for each in wanted for stage in (each, *_list_above(each, edges))}
    reasons = _find_reasons(stages, edges)
    blocks = [
        "\n".join(_describe(stage, reasons[stage]))
        for stage in stages
        if stage in wanted or (stage in shown and reasons[stage])
    ]
    return "\n".join([*blocks, *_describe_packages()])


def _find_reasons(stages: list[str], edges: list[tuple[str, str]]) -> dict[str, list[Entry]]:
    """Return why each stage is out of date; without a reason it is up to date."""
    status = ask_dvc("status")
    lock = read_document(LOCK_FILE)["stages"] if LOCK_FILE.exists() else {}
    reasons: dict[str, list[Entry]] = {}
    for stage in stages:
        if stage == FINGERPRINT_STAGE:
            reasons[stage] = []  # under a second, and no reason of its own for anything
        elif stage not in lock:
            reasons[stage] = [("run", "never: dvc.lock does not know it")]
        else:
            reasons[stage] = [*_list_code(stage, lock[stage]), *_list_status(status, stage, lock)]
        above = [up for up, down in edges if down == stage and reasons.get(up)]
        reasons[stage] += [("input", f"of {up}, which is out of date itself") for up in above]
    return reasons


def _list_code(stage: str, locked: Mapping[str, Any]) -> Iterator[Entry]:
    """Yield the modules whose meaning has changed since the run that dvc.lock knows."""
    path = fingerprint_path(stage)
    now = hash_closure(Path("src") / f"{path.stem}.py")
    md5 = next((d["md5"] for d in locked["deps"] if d["path"] == str(path)), None)
    if md5 == hash_record(encode_record(now).encode()):
        return
    before = md5 and find_record(path, md5, scratch_folder(FINGERPRINTS.name))
    if before is None:
        yield "code", "has changed; the hashes of the last run are neither here nor in git"
        return
    for module in sorted({*before, *now}):
        if before.get(module) != now.get(module):
            word = "changed" if module in before and module in now else "added"
            yield "code", f"{module} {word if module in now else 'removed'}"


def _list_status(status: Mapping[str, Any], stage: str, lock: Mapping[str, Any]) -> Iterator[Entry]:
    """Yield what DVC itself says, but for fingerprints."""
    for finding in status.get(stage, []):
        if isinstance(finding, str):  # "changed command"
            yield "stage", finding
            continue
        for path, how in finding.get("changed deps", {}).items():
            if isinstance(how, Mapping):
                yield from _list_params(lock[stage], how)
            elif Path(path).parent != FINGERPRINTS:
                yield "input", f"{path} {how}"
        for path, how in finding.get("changed outs", {}).items():
            yield "output", f"{path} {how}"


def _list_params(locked: Mapping[str, Any], changes: Mapping[str, str]) -> Iterator[Entry]:
    params = read_document(PARAMS_FILE)
    before = locked.get("params", {}).get(str(PARAMS_FILE), {})
    for key in changes:
        old, new = flatten(key, before.get(key)), flatten(key, find_value(params, key))
        for name in {**old, **new}:
            if old.get(name) != new.get(name):
                yield "param", f"{name}: {old.get(name, 'none')} → {new.get(name, 'none')}"


def _describe(stage: str, entries: list[Entry]) -> Iterator[str]:
    yield f"{stage} is {'out of date:' if entries else 'up to date'}"
    for kind, text in entries:
        yield f"  {kind:6}  {text}"


def _describe_packages() -> Iterator[str]:
    """Yield a line on versions that differ from those of the weights that are here."""
    now = list_versions()
    for path in sorted(Path("models").glob("*/*.safetensors")):
        before = read_packages(path)
        changes = [
            f"{name} {before[name]} → {now[name]}"
            for name in now
            if name in before and before[name] != now[name]
        ]
        if changes:
            yield f"{path} was made by other packages, which reruns nothing: {', '.join(changes)}"


def _list_edges() -> list[tuple[str, str]]:
    """Return which stage depends on which, (above, below)."""
    dot = run_dvc("dag", "--dot")
    return [(up, down) for up, down in re.findall(r'"(.+)" -> "(.+)"', dot) if up != "data.dvc"]


def _list_above(stage: str, edges: list[tuple[str, str]]) -> set[str]:
    above = {up for up, down in edges if down == stage}
    return above.union(*(_list_above(up, edges) for up in above))


def _sort(edges: list[tuple[str, str]]) -> list[str]:
    """Return the stages in the order of dvc.yaml, matrix items in their own."""
    names = list(read_document(PIPELINE_FILE)["stages"])
    stages = {stage for edge in edges for stage in edge}
    return sorted(stages, key=lambda stage: (names.index(stage.partition("@")[0]), stage))
