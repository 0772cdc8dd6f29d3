"""What is printed, on terminals and in files that do not take every character.

Python refuses to print what the encoding of its output does not have (`PYTHONIOENCODING=ascii`, a
locale of another time, a path that is no UTF-8): a finished command would end in a traceback.
"""

import codecs
import io
import sys
from typing import Final

LOOKALIKES: Final = {"±": "+-", "²": "2", "→": "->", "…": "..."}
"""What stands for the characters that this project prints; any other is escaped."""
HANDLER: Final = "biomassters.lookalikes"


def allow_any_output() -> None:
    """Let this process print any text, whatever its outputs' encodings."""
    codecs.register_error(HANDLER, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None, if it was closed from the start
            stream.reconfigure(errors=HANDLER)


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return what stands for characters, and where to go on; see `codecs.register_error`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    texts = (
        LOOKALIKES.get(c) or c.encode("ascii", "backslashreplace").decode() for c in characters
    )
    return "".join(texts), error.end
