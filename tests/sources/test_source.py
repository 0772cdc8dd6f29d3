from pathlib import Path

import pytest
from example_chips import simulate_record

from biomassters.dataset.files import (
    BadFile,
    FileError,
    FileRecord,
    list_files,
)
from biomassters.errors import ParamsError
from biomassters.processes.environment import FOLDER_VARIABLE
from biomassters.sources.source import (
    FetchedChip,
    gather_files,
    read_folder_variable,
)

DATA = b"0123456789"


def test_gathering_goes_on_after_a_bad_file() -> None:
    chip = simulate_record("5eed0001")
    first, *others = list_files(chip)

    def read(record: FileRecord) -> bytes:
        if record == first:
            raise FileError("8 bytes", "7")
        return DATA

    assert gather_files(chip, read) == FetchedChip(
        chip,
        {record.filename: DATA for record in others},
        (BadFile("5eed0001", first.filename, "8 bytes", "7"),),
    )


def test_folder_variable_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert read_folder_variable("folder") == tmp_path


@pytest.mark.parametrize("value", [None, "", "no/such/folder", __file__, "x" * 5000])
def test_folder_variable_must_name_an_existing_folder(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(FOLDER_VARIABLE, value)
    with pytest.raises(ParamsError, match=f"{FOLDER_VARIABLE}.*; set it to an existing folder"):
        read_folder_variable("folder")
