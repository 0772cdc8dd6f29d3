"""Whether DVC can run experiments in folders of their own, as `--temp` and the queue do, from here.

DVC 3.67 writes the path of its cache into the settings of such a folder, in ASCII: in a checkout at
another path these commands end in "unexpected error - 'ascii' codec can't encode character", before
any code of ours runs. So the first stages of whatever ran before say it.
"""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

STAGE_VARIABLE: Final = "DVC_STAGE"
"""DVC sets it for the commands that it runs."""
FIRST_STAGES: Final = ("fingerprint", "fetch@train")
"""Those of the pipeline: either may be up to date and not run."""

log = logging.getLogger(__name__)


def warn_of_cache_path() -> None:
    """Log a line where DVC's cache lies at a path that is not ASCII, if this is a first stage."""
    if os.environ.get(STAGE_VARIABLE) not in FIRST_STAGES or str(Path.cwd()).isascii():
        return
    cache = _find_cache()
    if not cache.isascii():
        log.warning(
            "expected DVC's cache at a path of ASCII letters, got %s, with which `dvc exp run"
            " --temp` and `dvc queue start` fail; move it, and tell DVC: `mv %s FOLDER`, then"
            " `dvc cache dir --local FOLDER` (docs/experiments.md)",
            cache,
            cache,
        )


def _find_cache() -> str:
    """Ask DVC, whose settings lie in four files; this takes a second."""
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip() or str(Path(".dvc/cache").resolve())
