"""What a stage of dvc.yaml reads: the meaning of its code, its params, its data.

Knows the few forms that this project's dvc.yaml uses: `deps`, `params` and the templates `${key}`
and `${item.key}`.

DVC records what a stage read after its command has ended (treeverse/dvc #11058): what was edited
during eight days of training would be recorded as what was trained. So a stage holds what it found
at its start against what is there at its end, and fails where they differ.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from biomassters.errors import ChangedInputsError, name_few
from biomassters.fingerprint.closure import hash_closure
from biomassters.fingerprint.digest import DIGITS, digest_facts
from biomassters.params.reading import PARAMS_FILE, find_value, read_document
from biomassters.processes.run_records import write_record

PIPELINE_FILE: Final = Path("dvc.yaml")
FINGERPRINTS: Final = Path("fingerprints")
"""Where the stage `fingerprint` writes the hashes of each other stage's code."""
ABSENT: Final = "absent"
"""In place of a digest, and of the value of a param."""
_TEMPLATE: Final = re.compile(r"\$\{([^}]+)\}")
_DVC_VARIABLE: Final = "DVC_STAGE"
"""DVC sets it for the commands that it runs."""


@dataclass(frozen=True, kw_only=True)
class StageInputs:
    """What a stage reads, at one moment.

    Attributes:
        stage: DVC's name of it, such as `train@0`.
        code: Hashes of meaning, by module.
        params: Values, by dotted key.
        data: Digests of files and folders, by path; of a chip store, of its root metadata alone,
            which hold a digest of all that it stores.
        stamps: Size, time of the last change and inode of each file of the chip stores, by path:
            134 GB are not hashed twice.
    """

    stage: str
    code: Mapping[str, str]
    params: Mapping[str, Any]
    data: Mapping[str, str]
    stamps: Mapping[str, tuple[int, int, int]]

    @property
    def digest(self) -> str:
        """16 hex digits over all but the stamps: equal inputs, on any machine, have equal ones."""
        return digest_facts([self.stage, self.code, self.params, self.data])

    @property
    def absent(self) -> list[str]:
        """The data that are not there."""
        return [path for path, digest in self.data.items() if digest == ABSENT]


@contextmanager
def hold_inputs(script: str, *, is_first: bool = True, **item: object) -> Iterator[StageInputs]:
    """Hold what a stage reads at its start against what is there at its end.

    Args:
        script: The stage's script, its own `__file__`.
        is_first: Whether this is the first of the processes that work together; the others only
            learn what the inputs are.
        **item: The matrix item, such as `fold=0`.

    Yields:
        What it reads: to be read only now.

    Raises:
        ChangedInputsError: The code is another than DVC will record, or something has changed.
        ParamsError: There is no pipeline in the current directory.
    """
    started = time.monotonic()
    inputs = read_inputs(Path(script), **item)
    if is_first:
        _hold_against_record(inputs)
    yield inputs
    if is_first:
        changes = list(list_changes(inputs, read_inputs(Path(script), **item)))
        if changes:
            raise ChangedInputsError(
                f"expected what {inputs.stage} read at its start, got a change of"
                f" {name_few(changes)}; put it back and repeat the command, which goes on from"
                " what is finished, or repeat it as it is, which runs anew with the change"
            )
        write_record(inputs.stage, inputs.digest, time.monotonic() - started)


def read_inputs(script: Path, **item: object) -> StageInputs:
    """Return what a stage reads, as it is now.

    Args:
        script: The stage's script.
        **item: The matrix item, such as `fold=0`.

    Raises:
        ParamsError: There is no pipeline in the current directory.
        SourceCodeError: A source is not Python, or one is missing.
    """
    params = read_document(PARAMS_FILE)
    definition = read_document(PIPELINE_FILE)["stages"].get(script.stem, {})
    values = {**params, "item": item}
    paths = [Path(fill_in(dependency, values)) for dependency in definition.get("deps", [])]
    data = [path for path in paths if path.parent != FINGERPRINTS]
    return StageInputs(
        stage="@".join([script.stem, *map(str, item.values())]),
        code=hash_closure(script),
        params={key: find_value(params, key, ABSENT) for key in definition.get("params", [])},
        data={str(path): _hash_content(path) for path in data},
        stamps={str(file): _stamp(file) for path in data for file in _list_store(path)},
    )


def list_changes(before: StageInputs, now: StageInputs) -> Iterator[str]:
    """Yield what differs, by name, for people."""
    for module in _differing(before.code, now.code):
        yield f"the module {module}"
    for key in _differing(before.params, now.params):
        old, new = (inputs.params.get(key, ABSENT) for inputs in (before, now))
        yield f"{PARAMS_FILE}: {key} ({old} → {new})"
    yield from _differing(before.data, now.data)
    yield from _differing(before.stamps, now.stamps)


def fill_in(text: str, values: Mapping[str, Any]) -> str:
    """Replace the templates of `text`; one whose key is missing stays."""
    return _TEMPLATE.sub(lambda match: str(find_value(values, match[1], match[0])), text)


def fingerprint_path(stage: str) -> Path:
    """Return the file with the hashes of a stage's code."""
    return FINGERPRINTS / f"{stage.partition('@')[0]}.json"


def _hold_against_record(inputs: StageInputs) -> None:
    """Refuse to run other code than that of the fingerprint, which DVC will record."""
    path = fingerprint_path(inputs.stage)
    if _DVC_VARIABLE not in os.environ or not path.exists():
        return
    recorded = json.loads(path.read_text(encoding="utf-8"))
    modules = [f"the module {name}" for name in _differing(recorded, inputs.code)]
    if modules:
        raise ChangedInputsError(
            f"expected the code of {path}, got another meaning of {name_few(modules)};"
            f" run `dvc repro {inputs.stage}` (without -s, which passes over its fingerprint)"
        )


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    keys = {**before, **now}
    return [key for key in keys if before.get(key, ABSENT) != now.get(key, ABSENT)]


def _hash_content(path: Path) -> str:
    digest = hashlib.sha256()
    files = [path / "zarr.json"] if path.suffix == ".zarr" else _list_files(path)
    try:
        for file in files:
            digest.update(f"\0{file.relative_to(path)}\0".encode())
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    except FileNotFoundError:
        return ABSENT
    return digest.hexdigest()[:DIGITS]


def _list_store(path: Path) -> list[Path]:
    return _list_files(path) if path.suffix == ".zarr" and path.exists() else []


def _list_files(path: Path) -> list[Path]:
    """Return a file, or all files of a folder but what editors leave there."""
    if not path.is_dir():
        return [path]
    return [
        Path(folder, name)
        for folder, _, names in sorted(os.walk(path))
        for name in sorted(names)
        if not name.startswith(".") and not name.endswith("~")
    ]


def _stamp(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino
