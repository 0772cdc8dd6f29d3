import itertools
import threading
import time
from collections.abc import Iterator

import pytest
import s3_server
from example_chips import simulate_records
from s3_server import (
    BUCKET,
    ENDLESS,
    FOLDER,
    IMPATIENT,
    QUICK,
    Answer,
    HostileProxy,
    Mischief,
    always,
    answer_with,
    at_first,
    files_of,
    only,
    open_source,
    pass_on,
    run_service,
)
from waiting import PATIENCE_S, happens

from biomassters.dataset.files import BadFile, FileRecord, list_files, verify
from biomassters.errors import SourceError
from biomassters.sources.s3.faults import Meaning, explain_fault
from biomassters.sources.s3.s3_source import Patience

CHIPS = simulate_records("5eed0001", "5eed0002", "5eed0003")
FIRST = CHIPS[0]
ONE_FILE = f"{FIRST.chip_id}_S1_03.tif"
BUSY = answer_with("503 Slow Down", "SlowDown")
ADDRESS = f"{FOLDER}/train_features/{ONE_FILE}"


@pytest.fixture(scope="module")
def service() -> Iterator[int]:
    with run_service(CHIPS) as port:
        yield port


def fetch(port: int, chips=(FIRST,), **options):
    return list(open_source(port, **options).fetch_chips(chips))


def assert_all_right(fetched, chips=(FIRST,)) -> None:
    assert sorted(one.chip.chip_id for one in fetched) == [chip.chip_id for chip in chips]
    for one in fetched:
        assert one.bad_files == ()
        assert one.files == files_of(one.chip.chip_id)


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

    patient = QUICK._replace(tries=8, damage_tries=8)
    with HostileProxy(service, plan) as proxy:
        assert_all_right(fetch(proxy.port, CHIPS, patience=patient), CHIPS)


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
        (BUSY, f"the object {ADDRESS}", "503 Service Unavailable (SlowDown)", 4),
        (s3_server.break_off, f"the object {ADDRESS}", "a body cut short", 4),
        (s3_server.reset, f"the object {ADDRESS}", "connection reset", 4),
        (s3_server.stay_silent, f"the object {ADDRESS}", "no answer in time", 3),
        (s3_server.drip, f"the object {ADDRESS}", "no answer in time", 3),
        (s3_server.babble, f"the object {ADDRESS}", "an answer that is not HTTP", 4),
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
    ("mischief", "message"),
    [
        (BUSY, "got 503 Service Unavailable .SlowDown.,"),
        (s3_server.reset, "got connection reset,"),
        (s3_server.break_off, "got a body cut short,"),
        (s3_server.stay_silent, "got no answer in time,"),
        (answer_with("404 Not Found", "NoSuchBucket"), "got no such bucket,"),
        (answer_with("301 Moved Permanently"), "got a bucket of another region,"),
    ],
)
def test_place_that_gives_nothing_ends_the_work(
    service: int, mischief: Mischief, message: str
) -> None:
    with (
        HostileProxy(service, always(mischief)) as proxy,
        pytest.raises(SourceError, match=rf"{message} at http://127.0.0.1:{proxy.port}; .+"),
    ):
        fetch(proxy.port, CHIPS, patience=IMPATIENT)


def test_place_that_refuses_all_ends_the_work(
    service: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("biomassters.sources.s3.s3_source.REFUSALS_OF_A_PLACE", 30)
    with HostileProxy(service, always(answer_with("403 Forbidden", "AccessDenied"))) as proxy:
        # One chip alone, as a rerun may try, is reported as its files.
        [fetched] = fetch(proxy.port)
        assert len(fetched.bad_files) == len(list_files(FIRST))
        with pytest.raises(SourceError, match=r"got 403 .*; check the credentials"):
            fetch(proxy.port, CHIPS)


def test_place_that_gave_a_file_does_not_refuse_all(
    service: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("biomassters.sources.s3.s3_source.REFUSALS_OF_A_PLACE", 30)
    forbid = answer_with("403 Forbidden", "AccessDenied")
    plan = lambda path, _: pass_on if FIRST.chip_id in path else forbid  # noqa: E731
    with HostileProxy(service, plan) as proxy:
        fetched = fetch(proxy.port, CHIPS, n_connections=1)
    n_bad = {one.chip.chip_id: len(one.bad_files) for one in fetched}
    assert n_bad == {CHIPS[0].chip_id: 0} | {c.chip_id: len(list_files(c)) for c in CHIPS[1:]}


def test_place_without_the_objects_reports_every_file(service: int) -> None:
    with HostileProxy(service, always(answer_with("404 Not Found", "NoSuchKey"))) as proxy:
        fetched = fetch(proxy.port, CHIPS)
    for chip, _, bad_files in fetched:
        assert [bad.filename for bad in bad_files] == [r.filename for r in list_files(chip)]


def test_refused_connections_end_the_work(service: int) -> None:
    with HostileProxy(service) as proxy:
        proxy.stop()
        refused = r"got connection refused.*; run again when it answers"
        with pytest.raises(SourceError, match=refused):
            fetch(proxy.port)


def stop_after(
    proxy: HostileProxy, n_requests: int, *, down_s: float | None = None
) -> threading.Thread:
    """Make the proxy break down once, after so many requests; None = for ever."""

    def break_down() -> None:
        proxy.stop()
        if down_s is not None:
            time.sleep(down_s)
            proxy.start()

    breakdown = threading.Thread(target=break_down, daemon=True)
    numbers = itertools.count(1)

    def plan(path: str, number: int) -> Mischief:  # noqa: ARG001
        if next(numbers) == n_requests:
            breakdown.start()
        return pass_on

    proxy.plan = plan
    return breakdown


def test_server_that_dies_half_way_ends_the_work_after_whole_chips(service: int) -> None:
    got = []
    with HostileProxy(service) as proxy:
        stop_after(proxy, len(list_files(FIRST)) + 3)
        source = open_source(proxy.port, 1)
        with pytest.raises(SourceError, match="run again when it answers"):
            got.extend(source.fetch_chips(CHIPS))
    assert_all_right(got)


def test_server_that_comes_back_is_waited_for(service: int) -> None:
    with HostileProxy(service) as proxy:
        breakdown = stop_after(proxy, 20, down_s=0.5)
        patience = QUICK._replace(tries=10_000, first_wait_s=0.05, longest_wait_s=0.1)
        assert_all_right(fetch(proxy.port, CHIPS, patience=patience), CHIPS)
        breakdown.join()


def test_last_object_that_never_comes_is_no_dead_place(service: int) -> None:
    """With nothing else under way, an object that was sound is asked for again."""
    target = f"{FIRST.chip_id}_agbm.tif"
    with HostileProxy(service, only(target, BUSY)) as proxy:
        [fetched] = fetch(proxy.port, n_connections=1)
    assert [bad.filename for bad in fetched.bad_files] == [target]


def test_busy_place_that_still_gives_files_is_not_dead(
    service: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object is given up, the sound one is busy too, but a third came in between."""
    is_retried, is_sound = threading.Event(), threading.Event()

    def note(record: FileRecord, data: bytes) -> None:
        verify(record, data)
        if "agbm" in record.filename:
            is_sound.set()

    monkeypatch.setattr("biomassters.sources.s3.s3_source.verify", note)

    def wait_for_retries(client, answer: Answer) -> bool:
        assert is_retried.wait(PATIENCE_S)
        return pass_on(client, answer)

    def let_the_other_pass(client, answer: Answer) -> bool:
        is_retried.set()
        assert is_sound.wait(PATIENCE_S)
        return BUSY(client, answer)

    def plan(path: str, number: int) -> Mischief:
        if ONE_FILE in path:
            return let_the_other_pass if number == QUICK.tries - 1 else BUSY
        if number > 1:
            return BUSY
        return wait_for_retries if "agbm" in path else pass_on

    with HostileProxy(service, plan) as proxy:
        [fetched] = fetch(proxy.port, patience=ENDLESS)
    assert [bad.filename for bad in fetched.bad_files] == [ONE_FILE]


@pytest.mark.parametrize(
    "mischief", [s3_server.drip, s3_server.stay_silent, BUSY, answer_with("403 Forbidden")]
)
def test_folder_that_cannot_be_listed_is_left_to_fetching(service: int, mischief: Mischief) -> None:
    with HostileProxy(service, always(mischief)) as proxy:
        open_source(proxy.port, patience=IMPATIENT).prepare(CHIPS)


def test_gigabyte_in_place_of_a_file_is_not_read(service: int) -> None:
    n_sent = []

    def flood(client, answer: Answer) -> bool:
        client.sendall(answer.head(2**30))
        block, n_bytes = bytes(2**16), 0
        try:
            while n_bytes < 2**30:
                n_bytes += client.send(block)
        finally:
            n_sent.append(n_bytes)
        return False

    with HostileProxy(service, only(ONE_FILE, flood)) as proxy:
        [fetched] = fetch(proxy.port)
    assert happens(lambda: n_sent)
    assert fetched.bad_files == (BadFile(FIRST.chip_id, ONE_FILE, f"{SIZE} bytes", str(2**30)),)
    assert max(n_sent) < 2**26  # what the sockets' buffers hold


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


def test_patience_doubles_its_waits_up_to_the_longest() -> None:
    patience = Patience(first_wait_s=1, longest_wait_s=5)
    for n_tries, longest in enumerate((1, 2, 4, 5, 5), 1):
        assert longest / 2 <= patience.wait_s(n_tries) <= longest


def test_page_of_html_in_an_error_is_cut_off() -> None:
    text = f"Generic S3 error: {'x' * 10**6}"
    fault = explain_fault(OSError(text), ADDRESS)
    assert fault.meaning is Meaning.OUTAGE
    assert len(fault.got) == 200
