import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from example_chips import LoggedSource, SpoiledSource, hash_folder, read_log
from locked import is_free
from waiting import PATIENCE_S, happens

from biomassters.dataset.catalogue import read_catalogue
from biomassters.dataset.files import ChipRecord
from biomassters.errors import BiomasstersError, ChipDataError, SourceError
from biomassters.packing.assembly import PackReport, pack_split
from biomassters.packing.workers import choose_workers
from biomassters.simulator.official_files import write_dataset
from biomassters.sources.folder_source import FolderSource
from biomassters.sources.source import Source
from biomassters.store.chips import ChipStore

N_CHIPS = 48


class Dataset(NamedTuple):
    """Simulated chips as files, and the hash of their store, packed in one process."""

    folder: Path
    chips: list[ChipRecord]
    store_hash: str


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("dataset")
    write_dataset(folder / "chips", n_train=N_CHIPS, n_test=1, chip_size=32)
    chips = read_catalogue(folder / "chips").chips("train")
    pack(chips, folder, FolderSource(folder / "chips"), n_workers=0)
    return Dataset(folder / "chips", chips, hash_folder(folder / "train.zarr"))


def pack(chips: list[ChipRecord], folder: Path, source: Source, **options) -> PackReport:
    options = {"n_workers": 2, **options}
    store = folder / "train.zarr"
    return pack_split(chips, source, store, folder / "scratch", chip_size=32, **options)


def fail() -> None:
    raise SourceError("expected an answer, got none, at there; wait")


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fill_the_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "chips/a")


def divide() -> None:
    raise ZeroDivisionError("a bug")


class StrangeError(Exception):
    """Cannot be made again from its arguments."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


def be_strange() -> None:
    raise StrangeError(1, 2)


class SpecialSource(FolderSource):
    """Does something else, once, before it yields the chip that is the third for its process."""

    def __init__(self, folder: Path, marker: Path, act: Callable[[], None]) -> None:
        super().__init__(folder)
        self.marker, self.act = marker, act

    def fetch_chips(self, chips):
        """Yield the chips in the order given."""
        for number, fetched in enumerate(super().fetch_chips(chips)):
            if number == 2 and not self.marker.exists():
                self.marker.touch()
                self.act()
            yield fetched


class EagerSource(FolderSource):
    """Takes chips in threads, and more of them than it has yielded."""

    def fetch_chips(self, chips):
        """Yield the chips in the order given."""
        with ThreadPoolExecutor(3) as pool:
            futures = [pool.submit(next, chips, None) for _ in range(3)]
            while futures:
                chip = futures.pop(0).result()
                if chip is not None:
                    futures.append(pool.submit(next, chips, None))
                    yield from super().fetch_chips([chip])


class TogetherSource(LoggedSource):
    """Yields nothing before two processes have started."""

    def fetch_chips(self, chips):
        """Yield the chips in the order given."""
        self.write("started here")
        assert happens(lambda: len(read_log(self.log, "started")) == 2)
        yield from super().fetch_chips(chips)


class CountingSource(FolderSource):
    """Notes how many threads its process has."""

    def fetch_chips(self, chips):
        """Yield the chips in the order given."""
        for fetched in super().fetch_chips(chips):
            with (self.root / "threads").open("a") as file:
                print(len(list(Path("/proc/self/task").iterdir())), file=file)
            yield fetched


class SettingsSource(FolderSource):
    """Notes how the C library of its process is to keep memory."""

    def fetch_chips(self, chips):
        """Yield the chips in the order given."""
        settings = sorted(f"{k}={v}" for k, v in os.environ.items() if k.startswith("MALLOC_"))
        (self.root / "settings").write_text("\n".join(settings))
        yield from super().fetch_chips(chips)


def test_bytes_do_not_depend_on_the_number_of_workers(dataset: Dataset, tmp_path: Path) -> None:
    report = pack(dataset.chips, tmp_path, FolderSource(dataset.folder), n_workers=3)
    assert report == (N_CHIPS, 0, 0, (), ())
    assert hash_folder(tmp_path / "train.zarr") == dataset.store_hash
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["lock"]


def test_each_chip_is_fetched_once_by_one_of_the_workers(dataset: Dataset, tmp_path: Path) -> None:
    source = TogetherSource(FolderSource(dataset.folder), tmp_path / "log")
    pack(dataset.chips, tmp_path, source)
    assert sorted(read_log(source.log, "fetched")) == [chip.chip_id for chip in dataset.chips]
    assert hash_folder(tmp_path / "train.zarr") == dataset.store_hash
    assert read_log(source.log, "prepared") == [str(N_CHIPS)]
    lines = [line.split() for line in source.log.read_text().splitlines()]
    assert [line[0] for line in lines if line[1] == "prepared"] == [str(os.getpid())]
    assert len({line[0] for line in lines if line[1] == "fetched"} - {str(os.getpid())}) == 2


def test_source_may_take_chips_ahead_in_threads(dataset: Dataset, tmp_path: Path) -> None:
    pack(dataset.chips, tmp_path, EagerSource(dataset.folder))
    assert hash_folder(tmp_path / "train.zarr") == dataset.store_hash


def test_few_chips_start_no_process() -> None:
    assert [choose_workers(8, n_chips) for n_chips in (0, 15, 16, 40, 10_000)] == [0, 1, 2, 5, 8]
    assert choose_workers(0, 10_000) == 0


def test_worker_has_no_threads_but_its_own(dataset: Dataset, tmp_path: Path) -> None:
    """The second watches the parent."""
    source = CountingSource(dataset.folder)
    pack(dataset.chips, tmp_path, source)
    assert set(map(int, (dataset.folder / "threads").read_text().split())) <= {1, 2}


def test_worker_keeps_freed_memory_and_its_parents_settings_stay(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "7")
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    pack(dataset.chips, tmp_path, SettingsSource(dataset.folder))
    assert (dataset.folder / "settings").read_text().split() == [
        "MALLOC_ARENA_MAX=2",
        "MALLOC_MMAP_THRESHOLD_=33554432",
        "MALLOC_TRIM_THRESHOLD_=67108864",
    ]
    assert os.environ["MALLOC_ARENA_MAX"] == "7"
    assert "MALLOC_TRIM_THRESHOLD_" not in os.environ


@pytest.mark.parametrize(
    ("act", "error", "message", "is_ours"),
    [
        (fail, SourceError, r"^expected an answer, got none, at there; wait$", True),
        (be_killed, BiomasstersError, r"ended by SIGKILL .* BIOMASSTERS_WORKERS$", True),
        (fill_the_disk, OSError, r"No space left on device: 'chips/a'", False),
        (divide, ZeroDivisionError, "a bug", False),
        (be_strange, RuntimeError, r"(?s)in be_strange.*StrangeError: 1 and 2", True),
    ],
)
def test_what_ends_a_worker_ends_the_run_and_a_rerun_completes(
    dataset: Dataset,
    tmp_path: Path,
    act: Callable[[], None],
    error: type[Exception],
    message: str,
    is_ours: bool,
) -> None:
    chips = dataset.chips[:24]
    source = SpecialSource(dataset.folder, tmp_path / "acted", act)
    with pytest.raises(error, match=message) as failure:
        pack(chips, tmp_path, source)
    notes = "".join(getattr(failure.value, "__notes__", []))
    assert (f"in {act.__name__}" in notes) == (not is_ours)
    assert not (tmp_path / "train.zarr").exists()
    assert not list((tmp_path / "scratch").glob("incomplete*"))
    report = pack(chips, tmp_path, source, n_workers=0)
    assert report.resumed >= 2
    assert report.fetched + report.resumed == len(chips)
    assert len(ChipStore.open(tmp_path / "train.zarr")) == len(chips)


def test_bad_files_that_workers_find_end_the_run_only_when_all_others_are_there(
    dataset: Dataset, tmp_path: Path
) -> None:
    names = [dataset.chips[index].s1[3].filename for index in (5, 30)]
    source = SpoiledSource(FolderSource(dataset.folder), flipped=names[:1], absent=names[1:])
    with pytest.raises(ChipDataError, match="2 bad files of 2 chips"):
        pack(dataset.chips, tmp_path, source)
    log = LoggedSource(source, tmp_path / "log")
    report = pack(dataset.chips, tmp_path, log, on_bad_chip="skip")
    skipped = [dataset.chips[index].chip_id for index in (5, 30)]
    assert sorted(read_log(log.log, "fetched")) == skipped
    assert (report[:3], report.skipped) == ((0, N_CHIPS - 2, 0), tuple(skipped))
    kept = [chip.chip_id for chip in dataset.chips if chip.chip_id not in skipped]
    assert ChipStore.open(tmp_path / "train.zarr").chip_ids == kept


PACKS_SLOWLY = """
import signal
import sys
from pathlib import Path
from example_chips import LoggedSource
from biomassters.dataset.catalogue import read_catalogue
from biomassters.sources.folder_source import FolderSource
from biomassters.packing.assembly import pack_split

# A test run in the background may have been told to ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
chips, folder, n_workers, most = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])
pack_split(
    read_catalogue(chips).chips("train"),
    LoggedSource(FolderSource(chips), folder / "log", 0.06, most),
    folder / "train.zarr",
    folder / "scratch",
    chip_size=32,
    n_workers=n_workers,
)
"""


def start_packing(
    dataset: Dataset, folder: Path, n_workers: int, most: int
) -> "subprocess.Popen[str]":
    """Pack in a process that leads a session of its own, until `most` chips were fetched."""
    numbers = (str(n_workers), str(most))
    return subprocess.Popen(
        [sys.executable, "-c", PACKS_SLOWLY, str(dataset.folder), str(folder), *numbers],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_lines(log: Path, n_lines: int, process: "subprocess.Popen[str]") -> None:
    is_there = lambda: len(read_log(log, "fetched")) >= n_lines  # noqa: E731
    assert happens(lambda: process.poll() is not None or is_there(), 0.002)


def list_session(leader: int) -> list[int]:
    """Return the processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state != "Z":
            found.append(int(path.parent.name))
    return found


def session_ends(leader: int) -> bool:
    return happens(lambda: not list_session(leader))


@pytest.mark.parametrize(("n_workers", "n_kills"), [(0, 6), (2, 7)])
def test_killed_at_random_moments_only_chips_in_flight_are_fetched_again(
    dataset: Dataset, tmp_path: Path, n_workers: int, n_kills: int
) -> None:
    """A process has one chip in flight. Every second kill hits the workers, too."""
    random = np.random.default_rng(n_workers)
    log = tmp_path / "log"
    for kill in range(n_kills):
        goal = len(read_log(log, "fetched")) + int(random.integers(1, 5))
        with start_packing(dataset, tmp_path, n_workers, goal + 1) as process:
            wait_for_lines(log, goal, process)
            time.sleep(random.uniform(0, 0.03))
            assert process.poll() is None
            end = os.killpg if kill % 2 else os.kill
            end(process.pid, signal.SIGKILL)
        assert session_ends(process.pid)
        assert happens(lambda: is_free(tmp_path / "scratch"))
    report = pack(dataset.chips, tmp_path, LoggedSource(FolderSource(dataset.folder), log))
    assert report.resumed > 0
    fetched, staged = read_log(log, "fetched"), read_log(log, "staged")
    assert len(staged) == len(set(staged))
    assert len(fetched) - N_CHIPS <= n_kills * max(1, n_workers)
    assert hash_folder(tmp_path / "train.zarr") == dataset.store_hash


def test_interrupt_from_the_keyboard_ends_all_processes(dataset: Dataset, tmp_path: Path) -> None:
    with start_packing(dataset, tmp_path, 2, 5) as process:
        wait_for_lines(tmp_path / "log", 4, process)
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -signal.SIGINT
    assert stderr.count("Traceback") == 1
    assert stderr.rstrip().endswith("KeyboardInterrupt")
    assert session_ends(process.pid)
    assert not list((tmp_path / "scratch").glob("incomplete*"))
    assert happens(lambda: is_free(tmp_path / "scratch"))
