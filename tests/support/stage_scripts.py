"""The scripts of the stages, as modules whose functions tests call."""

import importlib.util
import sys
from typing import Any

from repository_copy import SRC


def read_script(stage: str) -> Any:
    """Import a stage's script under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"script_{stage}", SRC / f"{stage}.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = script
    spec.loader.exec_module(script)
    return script
