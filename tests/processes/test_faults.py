"""Each error is the system's own: made for real, and told in one line."""

import errno
import os
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from biomassters.processes.faults import describe_fault
from biomassters.processes.writing import write_whole


def provoke(call: Callable[[], object]) -> OSError:
    with pytest.raises(OSError) as caught:  # noqa: PT011  # any of them
        call()
    return caught.value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file, and a folder that is not empty."""
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda f: (f / "absent").read_bytes(),
            "expected a file or folder, got none, at {}/absent",
        ),
        (lambda f: (f / "full").read_bytes(), "expected a file, got a folder, at {}/full; move"),
        (lambda f: (f / "file" / "a" / "b").touch(), "expected a folder, got a file, at {}/file;"),
        (lambda f: (f / "file").mkdir(exist_ok=True), "expected a folder, got a file, at {}/file;"),
        (lambda f: write_whole(f / "full", b""), "expected a file, got a folder, at {}/full;"),
        (
            lambda f: write_whole(f / "file" / "a", b""),
            "expected a folder, got a file, at {}/file;",
        ),
        (
            lambda f: (f / "full").rmdir(),
            "expected an empty folder, got one with files, at {}/full",
        ),
        (lambda f: (f / ("a" * 300)).touch(), "expected a shorter name, got one that is too long"),
        (lambda f: (f / "a\nb").read_bytes(), r"got none, at '{}/a\nb'; put it back"),
        (
            lambda _: Path("/dev/full").write_bytes(b"a"),
            "expected room on the disk, got none left;",
        ),
    ],
)
def test_error_is_one_line_that_names_the_path_to_blame(
    folder: Path, call: Callable[[Path], object], text: str
) -> None:
    told = describe_fault(provoke(lambda: call(folder)))
    assert told is not None
    assert text.format(folder) in told
    assert "\n" not in told


def test_permission_is_asked_for(folder: Path) -> None:
    (folder / "file").chmod(0)
    user = os.geteuid()
    if user == 0:  # who may read everything
        os.seteuid(65534)
    try:
        error = provoke((folder / "file").read_bytes)
    finally:
        os.seteuid(user)
    told = describe_fault(error)
    assert told == (
        f"expected the permission to use it, got none, at {folder}/file; change its owner or its"
        " mode (`chmod`), or work in a folder of your own"
    )


def test_limits_of_the_shell_are_named(folder: Path) -> None:
    size, files = (
        resource.getrlimit(resource.RLIMIT_FSIZE),
        resource.getrlimit(resource.RLIMIT_NOFILE),
    )
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, size[1]))
        large = provoke(lambda: write_whole(folder / "large", b"\0" * 1000))
        resource.setrlimit(resource.RLIMIT_FSIZE, size)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, files[1]))
        many = provoke(lambda: [os.open(os.devnull, os.O_RDONLY) for _ in range(4)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, size)
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
    assert f"a limit on the size of files, at {folder}/large; raise" in str(describe_fault(large))
    assert "`ulimit -n`" in str(describe_fault(many))
    assert not (folder / "large").exists()


def test_folder_for_temporary_files_is_named_by_its_variable(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(folder / "file")])
    monkeypatch.setattr(tempfile, "tempdir", None)
    told = str(describe_fault(provoke(tempfile.mkdtemp)))
    assert "no usable temporary directory" in told.lower()
    assert told.endswith("; set TMPDIR to a folder on a disk with room")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EBADF, errno.EPIPE, None])
def test_error_that_is_a_programmers_is_not_told_away(number: int | None) -> None:
    assert describe_fault(OSError(number, "whatever") if number else OSError("whatever")) is None
