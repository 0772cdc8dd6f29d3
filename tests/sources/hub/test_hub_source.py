"""The hub as a source: from its list of archives to chips, with the real client."""

import errno
import hashlib
import os
import pickle
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import huggingface_hub
import pytest
from archive_examples import make_tar, make_zip, split_zip
from example_chips import simulate_record, simulate_records
from hub_server import Answer, HubServer, serve_hub
from locked import held_by_another_process

from biomassters.dataset.files import SPLITS, ChipRecord, FileRecord, Split, list_files
from biomassters.errors import BusyError, ParamsError, SourceError
from biomassters.processes.environment import FOLDER_VARIABLE, HUB_REVISION_VARIABLE
from biomassters.simulator.official_files import simulate_files
from biomassters.sources.hub import faults as hub_faults
from biomassters.sources.hub.download import STATE_FOLDER, RemoteFile
from biomassters.sources.hub.hub_source import (
    HubSource,
    check_room,
    find_held_folder,
    list_archives,
    open_hub,
)
from biomassters.sources.source import FetchedChip

CHIP_IDS = ("5eed0001", "5eed0002")
N_PARTS = 4


def make_record(chip_id: str, split: Split) -> ChipRecord:
    """Return a simulated chip's record in a split."""
    chip = simulate_record(chip_id)

    def move(record: FileRecord | None) -> FileRecord | None:
        return record and record._replace(folder=record.folder.replace("train", split))

    s1, s2 = (tuple(map(move, months)) for months in (chip.s1, chip.s2))
    return ChipRecord(chip_id, split, s1, s2, move(chip.agbm))


@cache
def make_archives() -> Mapping[str, bytes]:
    """Return the repository's files with one train and one test chip."""
    members: dict[str, dict[str, bytes]] = {}
    for chip_id, split in zip(CHIP_IDS, SPLITS, strict=True):
        files = simulate_files(chip_id, 32)
        for record in list_files(make_record(chip_id, split)):
            path = f"{record.folder}/{record.filename}"
            members.setdefault(record.folder, {})[path] = files[record.filename]
    archives = {
        "train_agbm.zip": make_zip(members["train_agbm"]),
        "test_agbm.tar": make_tar(members["test_agbm"]),
        "The_BioMassters_-_features_metadata.csv.csv": b"text",
    }
    for stem, folder in (
        ("train_features", "train_features"),
        ("test_features_splits", "test_features"),
    ):
        *parts, last = split_zip(make_zip(members[folder]), N_PARTS)
        archives |= {f"{stem}.z{number:02d}": part for number, part in enumerate(parts, 1)}
        archives[f"{stem}.zip"] = last
    return archives


def fetch(source: HubSource, *chips: ChipRecord) -> list[FetchedChip]:
    """Prepare here, and fetch from a copy as another process would."""
    source.prepare(chips)
    return list(pickle.loads(pickle.dumps(source)).fetch_chips(chips))  # noqa: S301


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serve_hub(make_archives(), monkeypatch) as server:
        yield server


def list_features(server: HubServer) -> list[RemoteFile]:
    return list_archives(["train_features"], "main", server.endpoint)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("train_features.z01", "train_features"),
        ("train_features.zip", "train_features"),
        ("test_features_splits.z04", "test_features"),
        ("train_agbm.zip", "train_agbm"),
        ("test_agbm.tar", "test_agbm"),
        ("The_BioMassters_-_features_metadata.csv.csv", None),
        ("README.md", None),
        ("old/train_agbm.zip", None),
        ("../train_agbm.zip", None),
        ("train_agbm.zip\n", None),
    ],
)
def test_an_archive_s_name_says_what_it_holds(name: str, folder: str | None) -> None:
    assert find_held_folder(name) == folder


def test_the_list_of_archives_is_the_hub_s(server: HubServer) -> None:
    server.files = {
        "train_features.zip": b"last",
        "train_features.z01": b"first",
        "train_agbm.zip": b"targets",
        "test_agbm.tar": b"not wanted",
        "../train_agbm.zip": b"not ours",
        "README.md": b"text",
    }
    archives = list_archives(["train_features", "train_agbm"], "main", server.endpoint)
    assert [file[:3] for file in archives] == [
        ("train_agbm.zip", 7, hashlib.sha256(b"targets").hexdigest()),
        ("train_features.z01", 5, hashlib.sha256(b"first").hexdigest()),
        ("train_features.zip", 4, hashlib.sha256(b"last").hexdigest()),
    ]


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(401, "HF_TOKEN"), (403, "HF_TOKEN"), (404, "HF_ENDPOINT and BIOMASSTERS_HUB_REVISION")],
)
def test_a_refusal_is_not_retried(status: int, remedy: str, server: HubServer) -> None:
    server.listing = [Answer(status=status)]
    with pytest.raises(SourceError, match=rf"got status {status}, at .*{remedy}.*by hand"):
        list_features(server)
    assert len(server.tokens) == 1


@pytest.mark.parametrize("answer", [Answer(status=500), Answer(status=504), Answer(is_page=True)])
def test_a_list_that_fails_for_a_while_is_asked_for_again(
    answer: Answer, server: HubServer
) -> None:
    server.listing = [answer, answer]
    assert len(list_features(server)) == N_PARTS


def test_an_unreachable_hub_is_named_with_the_way_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_faults, "WAITS_S", (0.0,))
    source = HubSource(tmp_path, "main", "http://127.0.0.1:9")
    message = (
        r"got ConnectError \(.*refused\) in each of 2 attempts, at"
        r" http://127\.0\.0\.1:9/datasets/nascetti-a/BioMassters; check the network.*by hand into"
        " a folder, name it in BIOMASSTERS_FOLDER and set data.source to archives"
    )
    with pytest.raises(SourceError, match=message):
        source.prepare(simulate_records("5eed0001"))


def test_offline_mode_is_said_at_once(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="got the setting HF_HUB_OFFLINE, at"):
        list_features(server)


def test_absent_archives_are_named(server: HubServer) -> None:
    del server.files["train_agbm.zip"]
    with pytest.raises(SourceError, match=r"expected train_agbm\.zip, its parts or train_agbm\.ta"):
        list_archives(["train_features", "train_agbm"], "main", server.endpoint)


def test_room_is_checked_before_anything_is_fetched(server: HubServer, tmp_path: Path) -> None:
    file = list_features(server)[0]
    with pytest.raises(SourceError, match=r"room for 1000000\.0 GB of archives, got \d+\.\d GB"):
        check_room([file._replace(size=10**15)], tmp_path)


@pytest.mark.parametrize(
    ("chip_id", "split", "names"),
    [
        (CHIP_IDS[0], "train", {"train_agbm.zip", "train_features"}),
        (CHIP_IDS[1], "test", {"test_agbm.tar", "test_features_splits"}),
    ],
)
def test_chips_come_out_of_the_archives_that_they_need_and_no_others(
    chip_id: str, split: Split, names: set[str], server: HubServer, tmp_path: Path
) -> None:
    chip = make_record(chip_id, split)
    source = HubSource(tmp_path / "new" / "folder", "main", server.endpoint)
    assert fetch(source, chip) == [FetchedChip(chip, simulate_files(chip_id, 32))]
    n_files = len(server.sent)
    assert n_files == N_PARTS + 1
    assert {sent.name if "agbm" in sent.name else sent.name[:-4] for sent in server.sent} == names
    assert fetch(source, chip) == [FetchedChip(chip, simulate_files(chip_id, 32))]
    assert len(server.sent) == n_files


def test_chips_without_targets_need_no_targets(server: HubServer, tmp_path: Path) -> None:
    chip = make_record(CHIP_IDS[1], "test")._replace(agbm=None)
    [fetched] = fetch(HubSource(tmp_path, "main", server.endpoint), chip)
    assert not fetched.bad_files
    assert {sent.name[:-4] for sent in server.sent} == {"test_features_splits"}


def test_with_nothing_to_fetch_the_hub_is_not_asked(server: HubServer, tmp_path: Path) -> None:
    HubSource(tmp_path, "main", server.endpoint).prepare([])
    assert not server.tokens


def test_chips_come_through_a_network_that_fails_again_and_again(
    server: HubServer, tmp_path: Path
) -> None:
    chip = make_record(CHIP_IDS[0], "train")
    server.listing = [Answer(status=503)]
    server.bodies = [Answer(n_sent=500), Answer(status=500), Answer(n_said=9)] * 2
    server.bodies.append(Answer(is_flipped=True))
    source = HubSource(tmp_path, "main", server.endpoint)
    assert fetch(source, chip) == [FetchedChip(chip, simulate_files(CHIP_IDS[0], 32))]


def test_one_process_downloads_into_a_folder(server: HubServer, tmp_path: Path) -> None:
    source = HubSource(tmp_path, "main", server.endpoint)
    with held_by_another_process(tmp_path / STATE_FOLDER), pytest.raises(BusyError):
        source.prepare(simulate_records(CHIP_IDS[0]))
    assert not server.tokens


@pytest.mark.parametrize(
    ("in_the_way", "got"),
    [
        (".download", "File exists"),
        ("train_agbm.zip/", "a folder"),
        (".download/train_agbm.zip.part/", "Is a directory"),
        (".download/train_agbm.zip.sha256/", "Is a directory"),
    ],
)
def test_what_is_in_the_way_is_named_and_nothing_is_half_written(
    in_the_way: str, got: str, server: HubServer, tmp_path: Path
) -> None:
    obstacle = tmp_path / in_the_way
    if in_the_way.endswith("/"):
        obstacle.mkdir(parents=True)
    else:
        obstacle.touch()
    source = HubSource(tmp_path, "main", server.endpoint)
    message = rf"^expected .*, got {got}, at {re.escape(str(obstacle))}; [^\n]*$"
    with pytest.raises(SourceError, match=message):
        source.prepare([make_record(CHIP_IDS[0], "train")])
    whole = make_archives()
    for path in tmp_path.glob("train_*"):
        assert path.is_dir() or path.read_bytes() == whole[path.name]


def test_a_disk_that_is_full_at_the_end_is_named(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems tell of a full disk only then."""

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    chip = make_record(CHIP_IDS[0], "train")
    source = HubSource(tmp_path, "main", server.endpoint)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        message = f"got No space left on device, at {tmp_path}; make room.*what is downloaded is"
        with pytest.raises(SourceError, match=message):
            source.prepare([chip])
    assert not list(tmp_path.glob("train_*"))
    assert fetch(source, chip) == [FetchedChip(chip, simulate_files(CHIP_IDS[0], 32))]


def test_the_hub_is_opened_as_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in (FOLDER_VARIABLE, HUB_REVISION_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DVC_ROOT", "root")
    assert open_hub().folder == Path("root/work/hub")
    assert open_hub().revision == "main"
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setenv(HUB_REVISION_VARIABLE, "v1.0")
    assert open_hub().folder == tmp_path
    assert open_hub().revision == "v1.0"
    monkeypatch.setenv(FOLDER_VARIABLE, "")
    with pytest.raises(ParamsError, match="existing folder"):
        open_hub()
