import multiprocessing
import pickle
import shutil
import subprocess
import tarfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from archive_examples import (
    CHIP,
    OTHER_CHIP,
    cut,
    fetch,
    fetch_one,
    is_whole,
    make_tar,
    make_zip,
    members_of,
    split_zip,
    write_numbered,
    write_split,
)
from example_chips import read_real_files, read_real_record, simulate_record, simulate_records

from biomassters.dataset.files import ChipRecord, FileRecord
from biomassters.errors import SourceError
from biomassters.sources.archives.archive_source import ArchiveSource

BOTH = members_of(CHIP, OTHER_CHIP)
ZIPS = {
    "deflated": make_zip(BOTH),
    "stored": make_zip(BOTH, stored=True),
    "zip64": make_zip(BOTH, zip64=True),
    "with data descriptors": make_zip(BOTH, streamed=True),
    "zip64 with data descriptors": make_zip(BOTH, streamed=True, zip64=True),
    "with the longest comment": make_zip(BOTH, comment=b"x" * 65_535),
    "without folders": make_zip(members_of(CHIP, OTHER_CHIP, folders=False)),
    "with ./": make_zip({f"./{path}": data for path, data in BOTH.items()}),
    "with other folders": make_zip({f"a/b/{path}": data for path, data in BOTH.items()}),
}


def needs(program: str) -> str:
    """Return the path of a program, or skip the test."""
    return shutil.which(program) or pytest.skip(f"needs the program {program}")


def both_are_whole(folder: Path) -> bool:
    """Tell whether both chips are there, byte for byte."""
    return all(map(is_whole, fetch(folder, *simulate_records(CHIP, OTHER_CHIP))))


def write_folder(folder: Path) -> None:
    for path, data in BOTH.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


@pytest.mark.parametrize("data", ZIPS.values(), ids=ZIPS.keys())
def test_zip_gives_its_chips_in_one_piece_split_and_cut(data: bytes, tmp_path: Path) -> None:
    layouts = [tmp_path / name for name in ("whole", "split", "cut", "numbered", "from 0")]
    for folder in layouts:
        folder.mkdir()
    (layouts[0] / "train_features.ZIP").write_bytes(data)
    write_split(layouts[1], "train_features", split_zip(data, 7))
    write_split(layouts[2], "train_features", cut(data, 7))
    write_numbered(layouts[3], "train_features.zip", cut(data, 101))
    write_numbered(layouts[4], "train_features.zip", split_zip(data, 7), first=0)
    assert all(map(both_are_whole, layouts))


@pytest.mark.parametrize(
    "tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
@pytest.mark.parametrize("folder", ["", "d" * 60 + "/" + "e" * 60 + "/"])
def test_tar_gives_its_chips(tar_format: int, folder: str, tmp_path: Path) -> None:
    data = make_tar({folder + path: data for path, data in BOTH.items()}, tar_format)
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "test_agbm.tar").write_bytes(data)
    write_numbered(tmp_path, "test_agbm.tar", cut(data, 101))
    assert both_are_whole(tmp_path / "whole")
    assert both_are_whole(tmp_path)


@pytest.mark.parametrize(
    "options",
    ["-fz", "-fd", "-D -j", "-s 64k", "-s 64k -0", "-s 64k -fz", "-s 64k -0 -fz", "-s 100k -9"],
)
def test_zip_program_and_we_agree(options: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "files")
    (tmp_path / "zips").mkdir()
    command = [needs("zip"), "-qr", *options.split(), "../zips/train_features.zip", "."]
    subprocess.run(command, cwd=tmp_path / "files", check=True)
    n_parts = len(list((tmp_path / "zips").iterdir()))
    assert n_parts > 4 if "-s" in options else n_parts == 1
    assert both_are_whole(tmp_path / "zips")


@pytest.mark.parametrize("tar_format", ["v7", "ustar", "gnu", "pax"])
def test_tar_program_and_we_agree(tar_format: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "files")
    command = [needs("tar"), f"--format={tar_format}", "-cf", "test_agbm.tar", "files"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert both_are_whole(tmp_path)


def test_chip_may_lie_in_several_archives(tmp_path: Path) -> None:
    members = members_of(CHIP)
    features = {path: data for path, data in members.items() if "agbm" not in path}
    targets = {path: data for path, data in members.items() if "agbm" in path}
    first, second = dict(list(features.items())[::2]), dict(list(features.items())[1::2])
    write_split(tmp_path, "train_features", split_zip(make_zip(first), 3))
    (tmp_path / "more.zip").write_bytes(make_zip(second))
    (tmp_path / "train_agbm.tar").write_bytes(make_tar(targets))
    (tmp_path / "The_BioMassters_-_features_metadata.csv.csv").write_text("not an archive")
    assert is_whole(fetch_one(tmp_path))


def test_real_chip_comes_out_as_it_is(shared_folder: Path, tmp_path: Path) -> None:
    chip = read_real_record(shared_folder, "288afc34")
    files = read_real_files(shared_folder, "288afc34")
    parts = split_zip(make_zip(files), 5)
    write_split(tmp_path, "train_features", parts)
    [fetched] = fetch(tmp_path, chip)
    assert fetched.files == files
    assert not fetched.bad_files


def test_prepared_source_works_in_other_processes(tmp_path: Path) -> None:
    write_split(tmp_path, "train_features", split_zip(make_zip(BOTH), 7))
    chips = simulate_records(CHIP, OTHER_CHIP)
    source = ArchiveSource(tmp_path)
    source.prepare(chips)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context) as pool:
        fetched = list(pool.map(_fetch_in_worker, [source, source], [[chips[0]], [chips[1]]]))
    assert all(is_whole(chip) for share in fetched for chip in share)


def test_zip_of_more_than_65535_members_is_indexed_in_a_few_megabytes(tmp_path: Path) -> None:
    names = [f"{chip:08x}_S1_{month:02d}.tif" for chip in range(5500) for month in range(12)]
    (tmp_path / "a.zip").write_bytes(make_zip({name: name.encode() for name in names}, stored=True))
    records = [FileRecord(name, "train_features", len(name), None) for name in names]
    chips = [
        ChipRecord(f"{chip:08x}", "train", tuple(records[at : at + 12]), (None,) * 12, None)
        for chip, at in enumerate(range(0, len(names), 12))
    ]
    source = ArchiveSource(tmp_path)
    source.prepare(chips)
    assert len(pickle.dumps(source)) < 80 * len(names)
    for chip in source.fetch_chips(chips[::50]):
        assert chip.files == {name: name.encode() for name in chip.files}
        assert not chip.bad_files


def test_only_the_chips_asked_for_are_needed(tmp_path: Path) -> None:
    (tmp_path / "train_features.zip").write_bytes(make_zip(members_of(CHIP)))
    assert is_whole(fetch_one(tmp_path))
    fetched = fetch_one(tmp_path, OTHER_CHIP)
    assert len(fetched.bad_files) == len(members_of(OTHER_CHIP))
    assert not fetched.files
    bad = fetched.bad_files[0]
    assert bad == (OTHER_CHIP, bad.filename, "a member of the archives", "none")


def test_no_chip_needs_no_archive(tmp_path: Path) -> None:
    assert fetch(tmp_path) == []


def test_path_tells_which_of_two_members_is_meant(tmp_path: Path) -> None:
    others = {f"test_features/{Path(path).name}": b"other" for path in members_of(CHIP)}
    (tmp_path / "a.zip").write_bytes(make_zip(others))
    (tmp_path / "b.zip").write_bytes(make_zip(members_of(CHIP)))
    (tmp_path / "c.tar").write_bytes(make_tar(others))
    assert is_whole(fetch_one(tmp_path))


def test_copies_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(make_zip(members_of(CHIP)))
    (tmp_path / "b.tar").write_bytes(make_tar(members_of(CHIP)))
    message = r"each file in one member, got 25 files in several, at 5eed0001\S+ in a.zip and b.tar"
    with pytest.raises(SourceError, match=message.replace("25", r"\d+")):
        fetch_one(tmp_path)


def test_unusable_archive_is_passed_over_where_nothing_of_it_is_needed(tmp_path: Path) -> None:
    (tmp_path / "train_features.zip").write_bytes(make_zip(members_of(CHIP)))
    (tmp_path / "test_features_splits.z02").write_bytes(b"half a download")
    (tmp_path / "notes.zip").write_bytes(make_zip(members_of(CHIP))[:-30])
    assert is_whole(fetch_one(tmp_path))
    with pytest.raises(SourceError, match=r"notes\.zip"):
        fetch_one(tmp_path, OTHER_CHIP)


def test_nothing_is_written_and_no_file_stays_open(tmp_path: Path) -> None:
    write_split(tmp_path, "train_features", split_zip(make_zip(BOTH), 7))
    before = sorted(tmp_path.rglob("*"))
    descriptors = Path("/proc/self/fd")
    n_open = len(list(descriptors.iterdir())) if descriptors.exists() else None
    source = ArchiveSource(tmp_path)
    chips = simulate_records(CHIP, OTHER_CHIP)
    source.prepare(chips)
    unfinished = source.fetch_chips(chips)
    assert is_whole(next(unfinished))
    unfinished.close()
    assert sorted(tmp_path.rglob("*")) == before
    assert n_open is None or len(list(descriptors.iterdir())) == n_open


def test_fetching_needs_a_prepared_source(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="prepare comes first"):
        list(ArchiveSource(tmp_path).fetch_chips([simulate_record(CHIP)]))


def _fetch_in_worker(source: ArchiveSource, chips: list[ChipRecord]):
    return list(source.fetch_chips(chips))
