from pathlib import Path

import pytest
from example_chips import simulate_record

from biomassters.dataset.files import (
    BadFile,
    FileError,
    FileRecord,
    list_files,
    verify,
)
from biomassters.errors import ParamsError
from biomassters.sources.source import (
    FOLDER_VARIABLE,
    FetchedChip,
    SyntheticSource,
    gather_files,
    read_folder_variable,
)

DATA = b"0123456789"


def test_synthetic_source_has_exactly_the_files_of_the_catalogue() -> None:
    chip = simulate_record("5eed0001")
    [(got, files, bad_files)] = SyntheticSource(32).fetch_chips([chip])
    assert got == chip
    assert not bad_files
    assert sorted(files) == sorted(record.filename for record in list_files(chip))
    for record in list_files(chip):
        verify(record, files[record.filename])


def test_synthetic_source_lists_a_month_that_its_chip_lacks_as_bad() -> None:
    chip = next(c for c in map(simulate_record, map(str, range(20))) if None in c.s2)
    month = chip.s2.index(None)
    extra = FileRecord(f"{chip.chip_id}_S2_{month:02d}.tif", "train_features", 1, None)
    wrong = chip._replace(s2=(*chip.s2[:month], extra, *chip.s2[month + 1 :]))
    [fetched] = SyntheticSource(32).fetch_chips([wrong])
    [bad] = fetched.bad_files
    assert bad[:2] == (chip.chip_id, extra.filename)
    assert bad.expected.startswith("an absent month")
    assert len(fetched.files) == len(list_files(chip))


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


@pytest.mark.parametrize("value", [None, "", "no/such/folder"])
def test_folder_variable_must_name_an_existing_folder(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(FOLDER_VARIABLE, value)
    with pytest.raises(ParamsError, match=f"{FOLDER_VARIABLE}.*; set it to an existing folder"):
        read_folder_variable("folder")
