"""Files that are there whole or not at all, whatever ends the process that writes them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all, as `writing_whole` does.

    Args:
        path: The file; its folder is made if absent. One thread of a process writes it at a time.
        data: All that is in it.

    Raises:
        OSError: It cannot be written; the error names `path`, or the folder that cannot be made.
    """
    with writing_whole(path) as unfinished:
        unfinished.write_bytes(data)


@contextmanager
def writing_whole(path: Path) -> Iterator[Path]:
    """Let a block write a file, which is there once it ends well; an older one stays until then.

    The bytes go to a file beside it, which is renamed at the end and removed on any error; a
    killed process may leave it, hidden. So the older file is never written to: DVC's cache may
    share its bytes.

    Args:
        path: The file; its folder is made if absent. One thread of a process writes it at a time.

    Yields:
        The file beside it, to be written.

    Raises:
        OSError: It cannot be written; the error names `path`, or the folder that cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Named by the process: several may write the same file, each whole, and the last one stays.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield unfinished
        unfinished.replace(path)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(unfinished)):
            # The system names no file when a write fails, and the hidden one when a renaming does.
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
