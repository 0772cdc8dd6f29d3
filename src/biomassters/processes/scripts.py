"""What every script does around its work: one-line errors, exit codes, scratch space."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

from biomassters.errors import BiomasstersError


def run_script(main: Callable[[], None]) -> None:
    """Run a script; turn what a user can mend into one line on stderr and exit code 1."""
    try:
        main()
    except BiomasstersError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" at {error.filename}" if error.filename else ""
        sys.exit(
            f"error: expected room on the disk, got none left{where};"
            " free some space and run the same command again: finished work is kept"
        )
    except KeyboardInterrupt:
        sys.exit(130)


def scratch_folder(stage: str) -> Path:
    """Return the stage's scratch folder, shared by all experiments of this checkout.

    DVC sets DVC_ROOT to the main checkout, in temporary and queued experiments too.
    """
    return Path(os.environ.get("DVC_ROOT", ".")) / "work" / stage
