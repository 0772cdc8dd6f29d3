import time

import pytest
import s3_server
from s3_server import (
    BUCKET,
    FOLDER,
    IMPATIENT,
    QUICK,
    Answer,
    HostileProxy,
    Mischief,
    always,
    answer_with,
    assert_all_right,
    at_first,
    fetch,
    only,
    open_source,
    pass_on,
)
from waiting import happens

from biomassters.dataset.files import BadFile, FileRecord, list_files
from biomassters.sources.s3.faults import Meaning, explain_fault

CHIPS = s3_server.CHIPS[:3]
FIRST = CHIPS[0]
ONE_FILE = f"{FIRST.chip_id}_S1_03.tif"
BUSY = answer_with("503 Slow Down", "SlowDown")
ADDRESS = f"{FOLDER}/train_features/{ONE_FILE}"


@pytest.mark.parametrize(
    "mischief",
    [
        BUSY,
        answer_with("500 Internal Server Error", "InternalError"),
        answer_with("429 Too Many Requests"),
        answer_with("400 Bad Request", "RequestTimeout"),
        s3_server.break_off,
        s3_server.cut,
        s3_server.lengthen,
        s3_server.flip_a_bit,
        s3_server.reset,
        s3_server.reset_within,
        s3_server.babble,
        s3_server.send_chunks,
    ],
)
def test_fault_that_passes_leaves_no_trace(service: int, mischief: Mischief) -> None:
    with HostileProxy(service, at_first(2, mischief)) as proxy:
        assert_all_right(fetch(proxy.port))
        assert min(proxy.asked.values()) == 3


@pytest.mark.parametrize("mischief", [s3_server.stay_silent, s3_server.drip])
def test_answer_that_takes_too_long_is_asked_for_again(service: int, mischief: Mischief) -> None:
    with HostileProxy(service, at_first(1, mischief)) as proxy:
        assert_all_right(fetch(proxy.port, patience=IMPATIENT))
        assert min(proxy.asked.values()) >= 2


def test_many_faults_at_random_leave_no_trace(service: int) -> None:
    kinds = [
        pass_on,
        s3_server.flip_a_bit,
        s3_server.reset,
        s3_server.break_off,
        BUSY,
    ]

    def plan(path: str, number: int) -> Mischief:
        return kinds[(sum(path.encode()) + number) % len(kinds)] if number < 6 else pass_on

    patient = QUICK._replace(tries=8)
    with HostileProxy(service, plan) as proxy:
        assert_all_right(fetch(proxy.port, CHIPS, patience=patient), CHIPS)


def test_broken_body_goes_on_where_it_broke(service: int) -> None:
    with HostileProxy(service, at_first(1, s3_server.break_off)) as proxy:
        assert_all_right(fetch(proxy.port))
        heads = [head.lower() for head in proxy.heads if ONE_FILE in head]
    assert "\r\nrange:" not in heads[0]
    assert f"\r\nrange: bytes={SIZE // 2}-{SIZE - 1}\r\n" in heads[1]
    assert len(heads) == 2


def test_broken_body_without_a_tag_is_asked_for_anew(service: int) -> None:
    """The client must know that the rest is of the same object."""

    def break_off_untagged(client, answer: Answer) -> bool:
        return s3_server.break_off(client, answer._replace(kept=""))

    with HostileProxy(service, at_first(2, break_off_untagged)) as proxy:
        assert_all_right(fetch(proxy.port))
        assert not any("\r\nrange:" in head.lower() for head in proxy.heads)


SIZE, CKSUM = next(r[2:4] for r in list_files(FIRST) if r.filename == ONE_FILE)


@pytest.mark.parametrize(
    ("mischief", "expected", "got", "n_tries"),
    [
        (answer_with("404 Not Found", "NoSuchKey"), f"the object {ADDRESS}", "none", 1),
        (
            answer_with("403 Forbidden", "AccessDenied"),
            f"the object {ADDRESS}",
            "403 Forbidden (AccessDenied): forbidden, or absent",
            1,
        ),
        (answer_with("410 Gone"), f"the object {ADDRESS}", "410 Gone", 1),
        (s3_server.redirect_to_itself, f"the object {ADDRESS}", "redirects without end", 11),
        (s3_server.cut, f"{SIZE} bytes", str(SIZE // 2), 3),
        (s3_server.lengthen, f"{SIZE} bytes", str(SIZE + 4), 3),
        (s3_server.flip_a_bit, f"cksum {CKSUM}", None, 3),
        (BUSY, f"the object {ADDRESS}", "503 Service Unavailable (SlowDown)", 6),
        (s3_server.break_off, f"the object {ADDRESS}", "a body cut short", 6),
        (s3_server.reset, f"the object {ADDRESS}", "connection reset", 6),
        (s3_server.stay_silent, f"the object {ADDRESS}", "no answer in time", 4),
        (s3_server.drip, f"the object {ADDRESS}", "no answer in time", 4),
        (s3_server.babble, f"the object {ADDRESS}", "an answer that is not HTTP", 3),
    ],
)
def test_fault_that_lasts_is_the_one_files_alone(
    service: int, mischief: Mischief, expected: str, got: str | None, n_tries: int
) -> None:
    patience = IMPATIENT if got == "no answer in time" else QUICK
    with HostileProxy(service, only(ONE_FILE, mischief)) as proxy:
        [fetched] = fetch(proxy.port, patience=patience)
        [bad] = fetched.bad_files
        asked = proxy.asked[f"/{BUCKET}/mirror/train_features/{ONE_FILE}"]
    assert bad[:3] == BadFile(FIRST.chip_id, ONE_FILE, expected, "")[:3]
    assert got is None or bad.got.startswith(got)
    assert len(fetched.files) == len(list_files(FIRST)) - 1
    assert asked == n_tries


@pytest.mark.parametrize(
    "mischief", [s3_server.drip, s3_server.stay_silent, BUSY, answer_with("403 Forbidden")]
)
def test_folder_that_cannot_be_listed_is_left_to_fetching(service: int, mischief: Mischief) -> None:
    with HostileProxy(service, always(mischief)) as proxy:
        open_source(proxy.port, patience=IMPATIENT).prepare(CHIPS)


def flood_into(n_sent: list[int]) -> Mischief:
    """Send a gigabyte, and note how much of it was taken."""

    def flood(client, answer: Answer) -> bool:
        client.sendall(answer.head(2**30))
        block, n_bytes = bytes(2**16), 0
        try:
            while n_bytes < 2**30:
                n_bytes += client.send(block)
        finally:
            n_sent.append(n_bytes)
        return False

    return flood


def test_gigabyte_in_place_of_a_file_is_not_read(service: int) -> None:
    n_sent: list[int] = []
    with HostileProxy(service, only(ONE_FILE, flood_into(n_sent))) as proxy:
        [fetched] = fetch(proxy.port)
    assert happens(lambda: n_sent)
    assert fetched.bad_files == (BadFile(FIRST.chip_id, ONE_FILE, f"{SIZE} bytes", str(2**30)),)
    assert max(n_sent) < 2**26  # what the sockets' buffers hold


def test_gigabyte_in_place_of_the_rest_of_a_file_is_not_read(service: int) -> None:
    n_sent: list[int] = []
    mischiefs = [flood_into(n_sent), s3_server.break_off]
    plan = lambda path, number: mischiefs[number % 2] if ONE_FILE in path else pass_on  # noqa: E731
    with HostileProxy(service, plan) as proxy:
        [fetched] = fetch(proxy.port)
    [bad] = fetched.bad_files
    assert bad[:3] == (FIRST.chip_id, ONE_FILE, f"{SIZE} bytes")
    assert happens(lambda: len(n_sent) == QUICK.tries)
    assert max(n_sent) < 2**26


def test_endless_page_of_an_error_is_cut_off(service: int) -> None:
    def babble_on(client, answer: Answer) -> bool:
        client.sendall(answer._replace(status="503 Slow Down").head(10**9))
        for _ in range(10**9 // 2**10):
            time.sleep(0.01)
            client.sendall(bytes(2**10))
        return False

    with HostileProxy(service, only(ONE_FILE, babble_on)) as proxy:
        [fetched] = fetch(proxy.port, patience=IMPATIENT)
    assert [bad.got for bad in fetched.bad_files] == ["no answer in time"]


def test_record_of_gigabytes_is_not_asked_for(service: int) -> None:
    agbm = FileRecord(f"{FIRST.chip_id}_agbm.tif", "train_agbm", 10**14, None)
    with HostileProxy(service) as proxy:
        [fetched] = fetch(proxy.port, [FIRST._replace(agbm=agbm)])
        assert not any("agbm" in path for path in proxy.asked)
    assert fetched.bad_files[0][2:] == ("a file of 268435456 bytes at most", str(10**14))


def test_page_of_html_in_an_error_is_cut_off() -> None:
    text = f"Generic S3 error: {'x' * 10**6}"
    fault = explain_fault(OSError(text), ADDRESS)
    assert fault.meaning is Meaning.OUTAGE
    assert len(fault.got) == 200
