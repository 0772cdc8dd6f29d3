from pathlib import Path

import pytest
from example_chips import simulate_record

from biomassters.catalogue import FileRecord
from biomassters.checksums import posix_cksum
from biomassters.data_source import open_source
from biomassters.errors import ChipDataError, ParamsError
from biomassters.params.data import ALL_CHIPS, DataParams
from biomassters.sources import (
    FOLDER_VARIABLE,
    FolderSource,
    SyntheticSource,
    list_files,
    simulate_files,
    verify,
)

DATA = b"0123456789"


def params(source):
    return DataParams(source=source, chip_size=64, on_bad_chip="fail", subset=ALL_CHIPS)


def test_synthetic_source_has_exactly_the_files_of_the_catalogue() -> None:
    chip = simulate_record("5eed0001")
    [(got, files)] = SyntheticSource(32).fetch_chips([chip])
    assert got == chip
    assert sorted(files) == sorted(record.filename for record in list_files(chip))
    for record in list_files(chip):
        verify(record, files[record.filename])


def test_synthetic_source_refuses_a_month_that_its_chip_lacks() -> None:
    chip = next(c for c in map(simulate_record, map(str, range(20))) if None in c.s2)
    month = chip.s2.index(None)
    extra = FileRecord(f"{chip.chip_id}_S2_{month:02d}.tif", "train_features", 1, None)
    s2 = (*chip.s2[:month], extra, *chip.s2[month + 1 :])
    with pytest.raises(ChipDataError, match=rf"expected an absent month, got {extra.filename}"):
        list(SyntheticSource(32).fetch_chips([chip._replace(s2=s2)]))


def test_folder_source_reads_the_official_layout(tmp_path: Path) -> None:
    chip = simulate_record("5eed0001")
    files = simulate_files("5eed0001", 32)
    for record in list_files(chip):
        (tmp_path / record.folder).mkdir(exist_ok=True)
        (tmp_path / record.folder / record.filename).write_bytes(files[record.filename])
    assert list(FolderSource(tmp_path).fetch_chips([chip])) == [(chip, files)]


def test_folder_source_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ChipDataError, match=r"train_features/5eed0001_S1_00\.tif, got none; add"):
        list(FolderSource(tmp_path).fetch_chips([simulate_record("5eed0001")]))


def test_open_source_follows_params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    synthetic = open_source(params("synthetic"), 1)
    folder = open_source(params("folder"), 1)
    assert isinstance(synthetic, SyntheticSource)
    assert synthetic.chip_size == 64
    assert isinstance(folder, FolderSource)
    assert folder.root == tmp_path


@pytest.mark.parametrize("value", [None, "", "no/such/folder"])
def test_folder_source_needs_an_existing_folder(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(FOLDER_VARIABLE, value)
    with pytest.raises(ParamsError, match=f"{FOLDER_VARIABLE}.*; set it to an existing folder"):
        open_source(params("folder"), 1)


def test_verify_accepts_what_the_record_says() -> None:
    verify(FileRecord("a.tif", "train_agbm", 10, None), DATA)
    verify(FileRecord("a.tif", "train_agbm", 10, posix_cksum(DATA)), DATA)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (FileRecord("a.tif", "train_agbm", 11, None), r"expected 11 bytes, got 10, at a\.tif"),
        (FileRecord("a.tif", "train_agbm", 10, 5), r"expected cksum 5, got \d+, at a\.tif"),
    ],
)
def test_verify_refuses_anything_else(record: FileRecord, message: str) -> None:
    with pytest.raises(ChipDataError, match=message):
        verify(record, DATA)
