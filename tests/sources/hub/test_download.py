"""The real client of the hub against a loopback hub that goes wrong in the ways of networks."""

import hashlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from hub_server import TOKEN, Answer, HubServer, serve_hub
from waiting import PATIENCE_S, happens

from biomassters.errors import SourceError
from biomassters.sources.hub import download as hub_download
from biomassters.sources.hub.download import (
    STATE_FOLDER,
    RemoteFile,
    download,
    measure_room,
)
from biomassters.sources.hub.faults import StoppedError
from biomassters.sources.hub.hub_source import download_all, list_archives
from repository_copy import ROOT

NAME = "train_features.z01"
DATA = random.Random(4).randbytes(3 << 20)  # noqa: S311
MIB = 1 << 20


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serve_hub({NAME: DATA}, monkeypatch) as server:
        yield server


def list_features(server: HubServer) -> list[RemoteFile]:
    return list_archives(["train_features"], "main", server.endpoint)


def download_it(server: HubServer, folder: Path) -> None:
    download_all(list_features(server), folder)


def starts(server: HubServer) -> list[int]:
    return [sent.start for sent in server.sent]


def test_a_file_is_put_in_place_and_its_checksum_noted(server: HubServer, tmp_path: Path) -> None:
    download_it(server, tmp_path)
    assert (tmp_path / NAME).read_bytes() == DATA
    note = tmp_path / STATE_FOLDER / f"{NAME}.sha256"
    assert note.read_text() == f"{hashlib.sha256(DATA).hexdigest()}  {NAME}\n"
    assert sorted(path.name for path in tmp_path.rglob("*")) == [STATE_FOLDER, NAME, note.name]


def test_a_verified_file_is_not_asked_for_again(server: HubServer, tmp_path: Path) -> None:
    for _ in range(2):
        download_it(server, tmp_path)
    assert starts(server) == [0]


def test_a_file_that_the_user_put_there_is_verified_once(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / NAME).write_bytes(DATA)
    download_it(server, tmp_path)
    monkeypatch.setattr(hub_download, "hashlib", None)
    download_it(server, tmp_path)
    assert not server.sent


@pytest.mark.parametrize("present", [DATA[:-1], b"\0" * len(DATA), DATA + b"more"])
def test_another_file_in_its_place_is_replaced_once_the_right_one_is_there(
    present: bytes, server: HubServer, tmp_path: Path
) -> None:
    (tmp_path / NAME).write_bytes(present)
    server.bodies = [Answer(status=503)]
    download_it(server, tmp_path)
    assert (tmp_path / NAME).read_bytes() == DATA


def test_a_file_that_changed_after_it_was_verified_is_fetched_again(
    server: HubServer, tmp_path: Path
) -> None:
    download_it(server, tmp_path)
    (tmp_path / NAME).write_bytes(b"\0" * len(DATA))
    download_it(server, tmp_path)
    assert (tmp_path / NAME).read_bytes() == DATA
    assert starts(server) == [0, 0]


def test_a_lost_connection_is_resumed_where_it_was_lost(server: HubServer, tmp_path: Path) -> None:
    server.bodies = [Answer(n_sent=MIB), Answer(n_sent=10), Answer(n_sent=2 * MIB - 15)]
    download_it(server, tmp_path)
    assert starts(server) == [0, MIB, MIB + 10, 3 * MIB - 5]
    assert (tmp_path / NAME).read_bytes() == DATA


def test_many_lost_connections_are_no_fault_while_each_brings_much(
    server: HubServer, tmp_path: Path
) -> None:
    server.files[NAME] = DATA * 3
    server.bodies = [Answer(n_sent=MIB)] * 8
    download_it(server, tmp_path)
    assert starts(server) == [n * MIB for n in range(9)]


@pytest.mark.parametrize(
    ("answer", "next_start"),
    [
        (Answer(status=500), 0),
        (Answer(status=503), 0),
        (Answer(status=429), 0),
        (Answer(n_said=1000), 1000),
        (Answer(n_said=0), 0),
        (Answer(is_shifted=True), 0),
        (Answer(status=302), None),  # a redirect loop, once
    ],
)
def test_a_passing_fault_is_retried(
    answer: Answer, next_start: int | None, server: HubServer, tmp_path: Path
) -> None:
    server.bodies = [answer]
    download_it(server, tmp_path)
    assert (tmp_path / NAME).read_bytes() == DATA
    assert starts(server)[1:] == ([0] if next_start is None else [next_start])


def test_a_silent_server_is_left(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_download, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    server.bodies = [Answer(n_sent=MIB, is_held=True)]
    download_it(server, tmp_path)
    assert starts(server) == [0, MIB]


def test_a_server_without_ranges_sends_the_whole_file(server: HubServer, tmp_path: Path) -> None:
    server.bodies = [Answer(n_sent=100), Answer(is_whole=True)]
    download_it(server, tmp_path)
    assert (tmp_path / NAME).read_bytes() == DATA


def test_wrong_bytes_are_fetched_again_from_the_start_once(
    server: HubServer, tmp_path: Path
) -> None:
    server.bodies = [Answer(is_flipped=True)]
    download_it(server, tmp_path)
    assert (tmp_path / NAME).read_bytes() == DATA
    assert starts(server) == [0, 0]


def test_wrong_bytes_twice_end_the_work_and_leave_nothing(
    server: HubServer, tmp_path: Path
) -> None:
    server.bodies = [Answer(is_flipped=True)] * 2
    message = rf"expected {NAME} with the sha256 [0-9a-f]{{64}}, got another twice, at http"
    with pytest.raises(SourceError, match=message):
        download_it(server, tmp_path)
    assert not (tmp_path / NAME).exists()
    assert (tmp_path / STATE_FOLDER / f"{NAME}.part").stat().st_size == 0


def test_a_server_that_stays_faulty_is_named_with_what_to_do(
    server: HubServer, tmp_path: Path
) -> None:
    server.bodies = [Answer(n_sent=MIB + 7), *[Answer(status=502)] * 9]
    message = "got status 502 in each of 4 attempts, at http.*what is downloaded is kept.*by hand"
    with pytest.raises(SourceError, match=message):
        download_it(server, tmp_path)
    server.bodies.clear()
    download_it(server, tmp_path)
    assert starts(server)[-1] == MIB + 7


def test_one_bad_file_stops_the_others_and_keeps_what_came(
    server: HubServer, tmp_path: Path
) -> None:
    server.files["train_features.zip"] = DATA
    [_, good] = files = list_features(server)
    missing = files[0]._replace(url=f"{server.endpoint}/nothing/here")
    with pytest.raises(SourceError, match="status 404"):
        download_all([missing, good], tmp_path)
    download_it(server, tmp_path)
    assert (tmp_path / good.name).read_bytes() == DATA


def test_the_token_goes_to_the_hub_and_not_where_it_redirects(
    server: HubServer, tmp_path: Path
) -> None:
    download_it(server, tmp_path)
    assert server.tokens == [f"Bearer {TOKEN}"] * 2
    assert [sent.token for sent in server.sent] == [None]


def test_a_full_disk_is_said_with_what_to_do(server: HubServer, tmp_path: Path) -> None:
    part = tmp_path / STATE_FOLDER / f"{NAME}.part"
    part.parent.mkdir()
    part.symlink_to("/dev/full")
    with pytest.raises(SourceError, match=r"got 'No space left on device' after 0, at .*\.part;"):
        download_it(server, tmp_path)


def test_a_download_that_is_told_to_stop_keeps_what_it_has(
    server: HubServer, tmp_path: Path
) -> None:
    stop = Event()
    with pytest.raises(StoppedError):
        download(list_features(server)[0], tmp_path, lambda _: stop.set(), stop)
    n_kept = (tmp_path / STATE_FOLDER / f"{NAME}.part").stat().st_size
    assert 0 < n_kept < len(DATA)
    download_it(server, tmp_path)
    assert starts(server) == [0, n_kept]


def test_a_download_killed_again_and_again_asks_for_no_byte_twice(
    server: HubServer, tmp_path: Path
) -> None:
    script = (
        "from pathlib import Path\nfrom biomassters.sources.hub.hub_source import *\n"
        f"download_all(list_archives(['train_features'], 'main', {server.endpoint!r}),"
        f" Path({str(tmp_path)!r}))"
    )
    part = tmp_path / STATE_FOLDER / f"{NAME}.part"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    for kill in range(3):
        server.bodies = [Answer(n_sent=MIB // 2, is_held=True)]
        with subprocess.Popen([sys.executable, "-c", script], env=environment) as process:
            assert server.is_holding.wait(PATIENCE_S)
            goal = (kill + 1) * MIB // 2
            assert happens(lambda: part.stat().st_size >= goal)  # noqa: B023
            assert process.poll() is None
            process.send_signal(signal.SIGKILL)
        server.is_holding.clear()
    download_it(server, tmp_path)
    assert starts(server) == [n * MIB // 2 for n in range(4)]
    assert (tmp_path / NAME).read_bytes() == DATA


def test_room_is_needed_only_for_what_is_missing(tmp_path: Path) -> None:
    file = RemoteFile(NAME, 100, None, "")
    part = tmp_path / STATE_FOLDER / f"{NAME}.part"
    assert measure_room(file, tmp_path) == 100
    part.parent.mkdir()
    part.write_bytes(bytes(30))
    assert measure_room(file, tmp_path) == 70
    (tmp_path / NAME).write_bytes(bytes(100))
    assert measure_room(file, tmp_path) == 0


def test_a_file_without_checksum_is_known_by_its_size(server: HubServer, tmp_path: Path) -> None:
    [file] = list_features(server)
    for _ in range(2):
        download_all([file._replace(sha256=None)], tmp_path)
    assert (tmp_path / NAME).read_bytes() == DATA
    assert starts(server) == [0]


def test_a_large_file_is_asked_for_in_segments(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_download, "_SEGMENT_BYTES", MIB)
    download_it(server, tmp_path)
    assert starts(server) == [0, MIB, 2 * MIB]
    assert (tmp_path / NAME).read_bytes() == DATA
