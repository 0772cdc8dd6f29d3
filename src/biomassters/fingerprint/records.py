"""The files that the stage `fingerprint` writes, now and before.

DVC knows a file by its MD5. Such a file is a few kilobytes, so a copy of each is kept by that name:
what the last run of a stage was made from can be told module by module, whatever ran since.
"""

import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from biomassters.processes.writing import write_whole

COMMITS_SEARCHED: Final = 100
"""Commits that changed a fingerprint, at most, from the last one back."""


def write_record(path: Path, hashes: Mapping[str, str]) -> None:
    """Write hashes by module, a line each and sorted: a change of one is a line of a diff."""
    write_whole(path, encode_record(hashes).encode())


def encode_record(hashes: Mapping[str, str]) -> str:
    """Return the text of a file of hashes."""
    return json.dumps(hashes, indent=2, sort_keys=True) + "\n"


def keep_record(path: Path, folder: Path) -> None:
    """Keep a copy of a file of hashes in `folder`, by its MD5."""
    data = path.read_bytes()
    write_whole(folder / f"{hash_record(data)}.json", data)


def find_record(path: Path, md5: str, folder: Path) -> dict[str, str] | None:
    """Return the hashes of the file that had an MD5: from this run, from earlier ones, or from git.

    Args:
        path: Where the file lies.
        md5: What DVC recorded of it.
        folder: Where `keep_record` kept copies.

    Returns:
        Hashes by module; None where no such file is found.
    """
    for data in _list_candidates(path, md5, folder):
        if hash_record(data) == md5:
            hashes: dict[str, str] = json.loads(data)
            return hashes
    return None


def hash_record(data: bytes) -> str:
    """Return the MD5 of a file, as DVC records it."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _list_candidates(path: Path, md5: str, folder: Path) -> Iterator[bytes]:
    for file in (folder / f"{md5}.json", path):
        if file.exists():
            yield file.read_bytes()
    command = ["git", "log", f"--max-count={COMMITS_SEARCHED}", "--format=%H", "--", str(path)]
    log = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    for commit in log.stdout.split():
        show = ["git", "show", f"{commit}:./{path}"]
        yield subprocess.run(show, capture_output=True, check=False).stdout  # noqa: S603
