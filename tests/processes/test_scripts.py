import errno
from pathlib import Path

import pytest

from biomassters.errors import BiomasstersError
from biomassters.processes.scripts import run_script, scratch_folder


def raise_error(error: BaseException) -> None:
    raise error


def test_users_mistake_is_one_line_and_exit_code_1() -> None:
    with pytest.raises(SystemExit, match=r"^error: expected chips, got none$"):
        run_script(lambda: raise_error(BiomasstersError("expected chips, got none")))


def test_full_disk_is_one_line_that_names_the_file() -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "chips/train.zarr")
    with pytest.raises(SystemExit, match=r"^error: .*room on the disk.*chips/train\.zarr"):
        run_script(lambda: raise_error(error))


def test_programmers_mistake_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_script(lambda: raise_error(ZeroDivisionError()))


def test_scratch_is_the_main_checkouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", "/main")
    assert scratch_folder("train-0") == Path("/main/work/train-0")
    monkeypatch.delenv("DVC_ROOT")
    assert scratch_folder("train-0") == Path("work/train-0")
