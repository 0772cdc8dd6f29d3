import csv
import pickle
from pathlib import Path

import pytest
from example_chips import ReversedSource, SpoiledSource, hash_folder, pack, simulate_records

from biomassters.dataset.files import BadFile
from biomassters.errors import ChipDataError
from biomassters.packing.assembly import pack_split
from biomassters.packing.bad_files import (
    MAX_LISTED,
    describe_bad_files,
    write_bad_files,
)
from biomassters.sources.synthetic_source import SyntheticSource

IDS = ("5eed0001", "5eed0002", "5eed0003", "5eed0004")
BAD = BadFile("5eed0003", "5eed0003_S1_00.tif", "100 bytes", "99")


def test_description_names_the_first_few_and_counts_the_others() -> None:
    assert describe_bad_files([BAD]) == "expected 100 bytes, got 99, at 5eed0003_S1_00.tif"
    text = describe_bad_files([BAD] * (MAX_LISTED + 2))
    assert text.count("5eed0003_S1_00.tif") == MAX_LISTED
    assert text.endswith("; 2 more bad files")


def test_description_is_one_line_whatever_a_file_says() -> None:
    assert "\n" not in describe_bad_files([BAD._replace(got="a\nb\rc")])


def test_list_is_a_csv_that_ends_with_the_last_bad_file(tmp_path: Path) -> None:
    path = tmp_path / "train_bad_files.csv"
    write_bad_files(path, [BAD, BAD._replace(got='a "b", c')])
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["chip_id", "filename", "expected", "got"],
        list(BAD),
        [*BAD[:3], 'a "b", c'],
    ]
    write_bad_files(path, [])
    assert not list(tmp_path.iterdir())


def test_bad_file_survives_another_process() -> None:
    bad = pickle.loads(pickle.dumps(BAD))  # noqa: S301
    assert bad == BAD
    assert describe_bad_files([bad]) == describe_bad_files([BAD])


def spoiled() -> SpoiledSource:
    return SpoiledSource(
        SyntheticSource(32), flipped=["5eed0003_S2_07.tif"], absent=["5eed0003_agbm.tif"]
    )


def test_bad_files_are_listed_when_all_other_chips_are_there(tmp_path: Path) -> None:
    chips = simulate_records(*IDS)
    with pytest.raises(ChipDataError, match=r"train_bad_files\.csv") as failure:
        pack_split(chips, spoiled(), tmp_path / "store", tmp_path / "fetch/train", chip_size=32)
    for part in ("5eed0003_S2_07.tif", "5eed0003_agbm.tif", "2 bad files of 1 chips", "skip"):
        assert part in str(failure.value)
    assert not (tmp_path / "store").exists()
    with (tmp_path / "fetch/train_bad_files.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["filename"] for row in rows] == ["5eed0003_S2_07.tif", "5eed0003_agbm.tif"]
    assert (rows[1]["chip_id"], rows[1]["got"]) == ("5eed0003", "none")


def test_rerun_asks_only_for_chips_with_bad_files(tmp_path: Path) -> None:
    chips = simulate_records(*IDS)
    with pytest.raises(ChipDataError):
        pack(chips, tmp_path, spoiled())
    source = ReversedSource(SyntheticSource(32))
    assert pack(chips, tmp_path, source)[:4] == (1, 3, 0, ())
    assert source.asked == ["5eed0003"]
    assert not (tmp_path / "scratch_bad_files.csv").exists()
    pack(chips, tmp_path / "fresh")
    assert hash_folder(tmp_path / "train.zarr") == hash_folder(tmp_path / "fresh/train.zarr")


def test_skipping_makes_the_store_of_the_other_chips(tmp_path: Path) -> None:
    chips = simulate_records(*IDS)
    report = pack(chips, tmp_path, spoiled(), on_bad_chip="skip")
    assert report[:4] == (3, 0, 0, ("5eed0003",))
    assert [bad.filename for bad in report.bad_files] == ["5eed0003_S2_07.tif", "5eed0003_agbm.tif"]
    assert str(report).endswith("1 left out (2 bad files)")
    assert (tmp_path / "scratch_bad_files.csv").exists()
    pack([chip for chip in chips if chip.chip_id != "5eed0003"], tmp_path / "others")
    assert hash_folder(tmp_path / "train.zarr") == hash_folder(tmp_path / "others/train.zarr")


def test_skipped_chips_are_asked_for_again_and_join_the_store(tmp_path: Path) -> None:
    chips = simulate_records(*IDS)
    pack(chips, tmp_path, spoiled(), on_bad_chip="skip")
    source = ReversedSource(SyntheticSource(32))
    assert pack(chips, tmp_path, source)[:4] == (1, 0, 3, ())
    assert source.asked == ["5eed0003"]
    pack(chips, tmp_path / "fresh")
    assert hash_folder(tmp_path / "train.zarr") == hash_folder(tmp_path / "fresh/train.zarr")


def test_store_of_before_stays_when_bad_files_end_the_run(tmp_path: Path) -> None:
    pack(simulate_records(*IDS[:2]), tmp_path)
    before = hash_folder(tmp_path / "train.zarr")
    with pytest.raises(ChipDataError):
        pack(simulate_records(*IDS[1:]), tmp_path, spoiled())
    assert hash_folder(tmp_path / "train.zarr") == before


def test_skipping_every_chip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ChipDataError, match=r"fetches only these$"):
        pack(simulate_records("5eed0003"), tmp_path, spoiled(), on_bad_chip="skip")
    assert not (tmp_path / "train.zarr").exists()
