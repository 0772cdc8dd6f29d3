"""What a stage of dvc.yaml reads, and a fingerprint of it.

Knows the few forms that this project's dvc.yaml uses: `deps`, `params` and the templates
`${key}` and `${item.key}`.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from biomassters.params.reading import PARAMS_FILE, look_up, read_document

TEMPLATE = re.compile(r"\$\{([^}]+)\}")


def fingerprint_stage(stage: str, **item: object) -> str:
    """Return 16 hex digits over a stage's name, its item, its params and the bytes of its deps.

    Args:
        stage: A stage of dvc.yaml in the current directory.
        **item: The matrix item, such as `fold=0`.
    """
    definition = read_document(Path("dvc.yaml"))["stages"][stage]
    params = read_document(PARAMS_FILE)
    values = {key: look_up(params, key) for key in definition.get("params", [])}
    digest = hashlib.sha256(json.dumps([stage, item, values], sort_keys=True).encode())
    for dependency in definition["deps"]:
        path = Path(fill_in(dependency, {**params, "item": item}))
        digest.update(f"\0{path}\0".encode())
        for file in _content_files(path):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def fill_in(text: str, values: Mapping[str, Any]) -> str:
    """Replace the templates of `text`."""
    return TEMPLATE.sub(lambda match: str(look_up(values, match[1])), text)


def _content_files(path: Path) -> list[Path]:
    if path.suffix == ".zarr":
        # Its root metadata hold a digest of all that the store holds: no need to read it all.
        return [path / "zarr.json"]
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [path]
