"""DVC's own commands, whose printed JSON is its stable interface."""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from biomassters.errors import BiomasstersError


class DvcError(BiomasstersError):
    """DVC refuses.

    Attributes:
        reason: What it says, on one line.
    """

    def __init__(self, command: str, reason: str) -> None:
        super().__init__(
            f"expected `dvc {command}` to work here, got {reason}; run in the repository's root"
        )
        self.reason = reason


def ask_dvc(*arguments: str) -> Any:
    """Return what a command of DVC prints with `--json`.

    Args:
        *arguments: Such as `status`, `train@0`.

    Raises:
        DvcError: It refuses, or prints something else.
    """
    text = run_dvc(*arguments, "--json")
    try:
        return json.loads(text)
    except ValueError:
        raise DvcError(f"{' '.join(arguments)} --json", f"no JSON but {text[:100]!r}") from None


def run_dvc(*arguments: str) -> str:
    """Return what a command of DVC prints.

    Raises:
        DvcError: It refuses.
    """
    # As a module: this Python's DVC, also where its environment is not on the PATH.
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise DvcError(" ".join(arguments), reason)
    return done.stdout


def flatten(key: str, value: Any) -> dict[str, Any]:
    """Return a param by its dotted key, or those within it if it is a section."""
    if not isinstance(value, Mapping):
        return {key: value}
    return {k: v for name in value for k, v in flatten(f"{key}.{name}", value[name]).items()}
