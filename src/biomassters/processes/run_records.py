"""How long a stage's last run took on this machine, and what machine that was.

Beside the pipeline, in the scratch folder: a time is no result, and a rerun for its sake would be
absurd. A record names the inputs of its run, so that it is never shown for another one.
"""

import json
import platform
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil

from biomassters.processes.counts import count_cores
from biomassters.processes.scratch import scratch_folder
from biomassters.processes.writing import write_whole

GPUS: Final = Path("/proc/driver/nvidia/gpus")
CPU_FACTS: Final = Path("/proc/cpuinfo")


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A stage's run.

    Attributes:
        stage: DVC's name of it, such as `train@0`.
        inputs: Digest of what it read.
        seconds: From its start to its end, without Python's own start.
        finished: When, UTC, ISO 8601.
        hardware: The machine, for people.
    """

    stage: str
    inputs: str
    seconds: float
    finished: str
    hardware: str


def write_record(stage: str, inputs: str, seconds: float) -> None:
    """Write the record of a run that has just ended; see `RunRecord`."""
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    record = RunRecord(
        stage=stage,
        inputs=inputs,
        seconds=seconds,
        finished=finished,
        hardware=describe_hardware(),
    )
    write_whole(record_path(stage), json.dumps(asdict(record), indent=2).encode() + b"\n")


def find_record(stage: str, inputs: str) -> RunRecord | None:
    """Return the record of a stage's last run, or None if there is none of these inputs."""
    try:
        record = RunRecord(**json.loads(record_path(stage).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # none, or one of another version
    return record if record.inputs == inputs else None


def record_path(stage: str) -> Path:
    """Return where a stage's record lies, for all experiments of this checkout."""
    return scratch_folder("runs") / f"{stage}.json"


def describe_hardware() -> str:
    """Return this machine's processor, cores, memory and GPUs."""
    memory = psutil.virtual_memory().total / 2**30
    parts = [f"{count_cores()} cores of {_name_processor()}", f"{memory:.0f} GiB"]
    return ", ".join([*parts, *_list_gpus()])


def _name_processor() -> str:
    try:
        names = re.findall(r"^model name\s*: (.+)$", CPU_FACTS.read_text(), re.MULTILINE)
    except OSError:
        names = []
    return names[0].strip() if names else platform.processor() or platform.machine()


def _list_gpus() -> list[str]:
    """Return the GPUs that the driver lists, without torch, which not every stage imports."""
    facts = (path.read_text() for path in sorted(GPUS.glob("*/information")))
    return [name for text in facts for name in re.findall(r"^Model:\s*(.+)$", text, re.MULTILINE)]
