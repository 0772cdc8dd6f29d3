import os
from pathlib import Path

import pytest

from biomassters.processes.writing import write_whole, writing_whole


def test_file_and_its_folder_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.bin"
    write_whole(path, b"\0\r\n")
    assert path.read_bytes() == b"\0\r\n"
    assert list(path.parent.iterdir()) == [path]


def test_older_file_is_replaced_and_never_written_to(tmp_path: Path) -> None:
    path, shared = tmp_path / "a", tmp_path / "cache"
    shared.write_bytes(b"old")
    os.link(shared, path)
    write_whole(path, b"new")
    assert (path.read_bytes(), shared.read_bytes()) == (b"new", b"old")


@pytest.mark.parametrize("error", [OSError("no room"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["write_bytes", "replace"])
def test_error_leaves_the_older_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail(self: Path, _: object) -> None:
        self.touch()
        raise error

    monkeypatch.setattr(Path, step, fail)
    with pytest.raises(type(error)):
        write_whole(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_file_that_is_written_step_by_step_is_there_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a"
    with writing_whole(path) as unfinished:
        for part in (b"one, ", b"two"):
            with unfinished.open("ab") as file:
                file.write(part)
        assert not path.exists()
    assert path.read_bytes() == b"one, two"
    assert list(path.parent.iterdir()) == [path]


def test_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    with pytest.raises(FileNotFoundError) as caught, writing_whole(tmp_path / "a") as unfinished:
        unfinished.write_bytes(absent.read_bytes())
    assert caught.value.filename == str(absent)
    assert list(tmp_path.iterdir()) == []
