"""Deleting the checkpoints in `work/` that no training will go on from.

Knows the folders that the scripts of `train` and `finetune` keep checkpoints in; of everything else
in `work/`, such as chips that a killed fetch has brought, it only says that it stays.
"""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from biomassters.commands.dvc_calls import ask_dvc
from biomassters.errors import BiomasstersError, BusyError
from biomassters.fingerprint.stage_inputs import read_inputs
from biomassters.params.reading import read_params
from biomassters.params.whole import Params
from biomassters.processes.scratch import hold_folder, scratch_folder

CHECKPOINTS: Final = re.compile(r"(train-\d+|finetune)-[0-9a-f]{16}")
"""Names of the folders that the scripts make: a training, then the fingerprint of its inputs."""

MEGABYTE: Final = 1e6


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What becomes of a folder.

    Attributes:
        folder: In `work/`.
        size_bytes: Of all that it holds.
        is_kept: Whether it stays.
        reason: Why.
    """

    folder: Path
    size_bytes: int
    is_kept: bool
    reason: str


def prune_checkpoints(*, dry_run: bool = False, everything: bool = False) -> str:
    """Delete the checkpoints of finished trainings and of other params, chips or code.

    A folder that a process holds is kept, whatever else is true of it.

    Args:
        dry_run: Only say what would be deleted.
        everything: Delete all checkpoints but those that a process holds.

    Returns:
        A line a folder, and the sum, for people.

    Raises:
        ParamsError: The current directory is no pipeline, or its params are wrong.
    """
    present = _list_present()
    verdicts = [
        _delete(verdict, dry_run=dry_run)
        for verdict in _judge(scratch_folder("."), present, everything=everything)
    ]
    word = "would delete" if dry_run else "deleted"
    lines = [
        f"{'kept' if v.is_kept else word}  {v.folder}  {v.size_bytes / MEGABYTE:.1f} MB: {v.reason}"
        for v in verdicts
    ]
    total = sum(verdict.size_bytes for verdict in verdicts if not verdict.is_kept)
    return "\n".join([*lines, f"{word} {total / MEGABYTE:.1f} MB"])


def _list_present() -> dict[str, str | None]:
    """Return the trainings of the present params: DVC's name of the stage, by that of its folder.

    None stands for a stage whose inputs are not here, by the beginning of its folder's name.
    """
    folds = read_params(Params).folds
    stages: dict[str, dict[str, Any]] = {f"train-{fold}": {"fold": fold} for fold in folds}
    present: dict[str, str | None] = {}
    for training, item in {**stages, "finetune": {}}.items():
        inputs = read_inputs(Path("src") / f"{training.partition('-')[0]}.py", **item)
        if inputs.absent:
            present[training] = None
        else:
            present[f"{training}-{inputs.digest}"] = inputs.stage
    return present


def _judge(work: Path, present: Mapping[str, str | None], *, everything: bool) -> Iterator[Verdict]:
    folders = sorted(path for path in work.glob("*") if path.is_dir())
    targets = [present.get(folder.name) for folder in folders]
    unfinished = _list_unfinished([target for target in targets if target is not None])
    for folder, target in zip(folders, targets, strict=True):
        match = CHECKPOINTS.fullmatch(folder.name)
        if match is None:
            is_kept, reason = True, "no checkpoints"
        elif everything:
            is_kept, reason = False, "as asked for by --all"
        elif match[1] in present:
            is_kept, reason = True, "the inputs of its stage are not here to compare it with"
        elif target is None:
            is_kept, reason = False, "of other params, chips or code than the present ones"
        elif target in unfinished:
            is_kept, reason = True, f"{target} can go on from it"
        else:
            is_kept, reason = False, f"{target} is finished"
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        yield Verdict(folder=folder, size_bytes=size, is_kept=is_kept, reason=reason)


def _delete(verdict: Verdict, *, dry_run: bool) -> Verdict:
    if verdict.is_kept:
        return verdict
    try:
        with hold_folder(verdict.folder):
            if not dry_run:
                shutil.rmtree(verdict.folder)
    except BusyError:
        return Verdict(
            folder=verdict.folder,
            size_bytes=verdict.size_bytes,
            is_kept=True,
            reason="a process is training there",
        )
    return verdict


def _list_unfinished(targets: Sequence[str]) -> set[str]:
    """Return the stages whose outs are not all there as DVC recorded them: all, if in doubt."""
    try:
        return set(ask_dvc("status", *targets)) if targets else set()
    except BiomasstersError:
        return set(targets)
