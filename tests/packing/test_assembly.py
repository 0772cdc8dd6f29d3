import errno
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from example_chips import (
    LoggedSource,
    ReversedSource,
    hash_folder,
    pack,
    read_log,
    simulate_record,
    simulate_records,
)
from locked import held_by_another_process

from biomassters.dataset.files import ChipRecord
from biomassters.errors import BusyError, ChipDataError, SourceError
from biomassters.packing import assembly as packing
from biomassters.packing import staging
from biomassters.sources.synthetic_source import SyntheticSource
from biomassters.store.bands import N_MONTHS, N_S1
from biomassters.store.chips import ChipStore

IDS = ("5eed0001", "5eed0002", "5eed0003")


def with_other_record(chip: ChipRecord) -> ChipRecord:
    """The same file, of which the catalogue says no cksum: another fingerprint."""
    return chip._replace(s1=(chip.s1[0]._replace(cksum=None), *chip.s1[1:]))


class InterruptedSource(SyntheticSource):
    """Fails when asked for the chips after the first two."""

    def fetch_chips(self, chips):
        """Yield two, then fail."""
        yield from super().fetch_chips(islice(chips, 2))
        raise SourceError("expected chips, got no connection")


def test_bytes_do_not_depend_on_the_order_of_arrival(tmp_path: Path) -> None:
    pack(simulate_records(*IDS), tmp_path / "a")
    pack(simulate_records(*IDS), tmp_path / "b", ReversedSource(SyntheticSource(32)))
    assert hash_folder(tmp_path / "a/train.zarr") == hash_folder(tmp_path / "b/train.zarr")


def test_scratch_is_empty_in_the_end_and_nothing_is_left_beside(tmp_path: Path) -> None:
    pack(simulate_records(*IDS), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scratch", "train.zarr"]
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["lock"]


def test_unchanged_catalogue_fetches_nothing(tmp_path: Path) -> None:
    first = pack(simulate_records(*IDS), tmp_path)
    before = hash_folder(tmp_path / "train.zarr")
    source = ReversedSource(SyntheticSource(32))
    second = pack(simulate_records(*IDS), tmp_path, source)
    assert source.asked == []
    assert (first[:3], second[:3]) == ((3, 0, 0), (0, 0, 3))
    assert hash_folder(tmp_path / "train.zarr") == before


def test_changed_catalogue_fetches_only_what_changed(tmp_path: Path) -> None:
    pack(simulate_records(*IDS), tmp_path)
    first, _, third = simulate_records(*IDS)
    changed = [simulate_record("5eed0000"), first, with_other_record(third)]
    source = ReversedSource(SyntheticSource(32))
    report = pack(changed, tmp_path, source)
    assert sorted(source.asked) == ["5eed0000", "5eed0003"]
    assert (report.fetched, report.reused) == (2, 1)
    pack(changed, tmp_path / "fresh")
    assert hash_folder(tmp_path / "train.zarr") == hash_folder(tmp_path / "fresh/train.zarr")


def test_targets_that_become_known_make_the_store_of_a_fresh_run(tmp_path: Path) -> None:
    chips = simulate_records(*IDS)
    pack([chip._replace(agbm=None) for chip in chips], tmp_path)
    half_known = [chips[0]._replace(agbm=None), *chips[1:]]
    assert pack(half_known, tmp_path)[:3] == (2, 0, 1)
    pack(half_known, tmp_path / "fresh")
    assert hash_folder(tmp_path / "train.zarr") == hash_folder(tmp_path / "fresh/train.zarr")


def test_content_id_follows_content_alone(tmp_path: Path) -> None:
    chips = simulate_records(*IDS)
    pack(chips, tmp_path / "a")
    pack(list(map(with_other_record, chips)), tmp_path / "b")
    pack(chips[:2], tmp_path / "c")
    a, b, c = (ChipStore.open(tmp_path / name / "train.zarr").content_id for name in "abc")
    assert a == b
    assert a != c


def test_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    chips = simulate_records(*IDS)
    with pytest.raises(SourceError, match="no connection"):
        pack(chips, tmp_path, InterruptedSource(32))
    assert not (tmp_path / "train.zarr").exists()
    assert pack(chips, tmp_path)[:3] == (1, 2, 0)
    pack(chips, tmp_path / "fresh")
    assert hash_folder(tmp_path / "train.zarr") == hash_folder(tmp_path / "fresh/train.zarr")


def test_damaged_chunks_are_fetched_again(tmp_path: Path) -> None:
    chips = simulate_records(*IDS)
    pack(chips, tmp_path)
    before = hash_folder(tmp_path / "train.zarr")
    [file] = (tmp_path / "train.zarr/s2").glob("c.0.*")
    os.truncate(file, 100)
    [file] = (tmp_path / "train.zarr/agbm").glob("c.2.*")
    file.unlink()
    assert pack(chips, tmp_path)[:3] == (2, 0, 1)
    assert hash_folder(tmp_path / "train.zarr") == before


def test_files_of_the_old_store_are_never_written(tmp_path: Path) -> None:
    chips = simulate_records(*IDS)
    pack(chips, tmp_path)
    cache = tmp_path / "cache"  # as DVC's: the same files by hard links, read-only
    for file in (tmp_path / "train.zarr").rglob("*"):
        if file.is_file():
            target = cache / file.relative_to(tmp_path / "train.zarr")
            target.parent.mkdir(parents=True, exist_ok=True)
            file.chmod(0o444)
            os.link(file, target)
    before = hash_folder(cache)
    pack([chips[2], simulate_record("5eed0004")], tmp_path)
    assert hash_folder(cache) == before
    assert ChipStore.open(tmp_path / "train.zarr").chip_ids == ["5eed0003", "5eed0004"]


def test_store_of_symbolic_links_is_reused(tmp_path: Path) -> None:
    chips = simulate_records(*IDS)
    pack(chips, tmp_path)
    before = hash_folder(tmp_path / "train.zarr")
    (tmp_path / "train.zarr").rename(tmp_path / "cache")
    for file in (tmp_path / "cache").rglob("*"):
        if file.is_file():
            link = tmp_path / "train.zarr" / file.relative_to(tmp_path / "cache")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    assert pack(chips, tmp_path).reused == 3
    assert not any(file.is_symlink() for file in (tmp_path / "train.zarr").rglob("*"))
    assert hash_folder(tmp_path / "train.zarr") == before


def test_without_hard_links_chunks_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(simulate_records(*IDS), tmp_path / "a")

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(packing.os, "link", refuse)
    pack(simulate_records(*IDS), tmp_path / "b")
    assert hash_folder(tmp_path / "a/train.zarr") == hash_folder(tmp_path / "b/train.zarr")


@pytest.mark.parametrize("place", [staging, packing])
def test_full_disk_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: object
) -> None:
    chips = [simulate_record(IDS[0])._replace(agbm=None), *simulate_records(*IDS[1:])]
    pack(chips[1:], tmp_path)
    before = hash_folder(tmp_path / "train.zarr")

    def fill_disk(path: Path, _: np.ndarray) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(place, "write_chunk", fill_disk)
    with pytest.raises(OSError, match="No space left"):
        pack(chips, tmp_path)
    assert hash_folder(tmp_path / "train.zarr") == before
    assert not list(tmp_path.rglob("incomplete*")) + list(tmp_path.glob(".train.zarr*"))


def test_second_packing_on_the_same_scratch_is_refused(tmp_path: Path) -> None:
    with (
        held_by_another_process(tmp_path / "scratch"),
        pytest.raises(BusyError, match="got another that does the same work; wait"),
    ):
        pack(simulate_records(*IDS), tmp_path)


def test_file_that_fails_its_cksum_is_refused(tmp_path: Path) -> None:
    chip = simulate_record(IDS[0])
    bad = chip._replace(s1=(chip.s1[0]._replace(cksum=1), *chip.s1[1:]))
    with pytest.raises(ChipDataError, match=r"expected cksum 1, got .* at 5eed0001_S1_00\.tif"):
        pack([bad], tmp_path)


def test_source_prepares_for_the_missing_chips_alone(tmp_path: Path) -> None:
    pack(simulate_records(*IDS[:2]), tmp_path)
    source = LoggedSource(SyntheticSource(32), tmp_path / "log")
    source.kind = "synthetic"
    pack(simulate_records(*IDS), tmp_path, source)
    pack(simulate_records(*IDS), tmp_path, source)
    assert read_log(source.log, "prepared") == ["1"]


DIES_BEFORE_EACH_CALL = """
import os, shutil, sys
from pathlib import Path
from example_chips import simulate_records
from biomassters.packing.assembly import pack_split
from biomassters.sources.synthetic_source import SyntheticSource

folder, chip_ids = Path(sys.argv[1]), sys.argv[2:]
chips = simulate_records(*chip_ids)
left = 0

def die_at_last(function):
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os._exit(9)
        return function(*arguments, **options)
    return call

for owner, name in ((os, "link"), (Path, "rename"), (shutil, "rmtree"), (Path, "write_text")):
    setattr(owner, name, die_at_last(getattr(owner, name)))
runs, status = 0, 9
while status == 9:
    left = runs = runs + 1
    child = os.fork()
    if not child:
        source = SyntheticSource(32)
        pack_split(chips, source, folder / "train.zarr", folder / "scratch", chip_size=32)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(runs, status)
"""


def test_killed_before_any_change_of_the_file_system_a_rerun_completes(tmp_path: Path) -> None:
    """Run n dies before its n-th call that links, renames, deletes or writes metadata."""
    pack(simulate_records(*IDS[:2]), tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", DIES_BEFORE_EACH_CALL, str(tmp_path), *IDS[1:]],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        check=True,
    )
    runs, status = map(int, done.stdout.split())
    assert status == 0
    assert runs > 20
    pack(simulate_records(*IDS[1:]), tmp_path / "fresh")
    assert hash_folder(tmp_path / "train.zarr") == hash_folder(tmp_path / "fresh/train.zarr")


def test_no_chips_are_a_store_of_none_that_others_open(tmp_path: Path) -> None:
    pack(simulate_records(*IDS), tmp_path)
    pack([], tmp_path)  # the catalogue has lost them
    before = hash_folder(tmp_path / "train.zarr")
    pack([], tmp_path)
    assert hash_folder(tmp_path / "train.zarr") == before
    store = ChipStore.open(tmp_path / "train.zarr")
    assert (len(store), store.chip_ids, store.has_targets) == (0, [], False)
    assert store.s2_present.shape == (0, N_MONTHS)
    xarray = pytest.importorskip("xarray")
    chips = xarray.open_zarr(tmp_path / "train.zarr")
    assert chips.s1.shape == (0, N_MONTHS, N_S1, 32, 32)
    assert chips.s2_block.values.shape == (0, N_MONTHS, 2)
    assert list(chips.chip_id.values) == []
