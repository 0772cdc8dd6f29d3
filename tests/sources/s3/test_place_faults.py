"""When a place as a whole gives nothing, and when it is but one object."""

import itertools
import threading
import time

import pytest
import s3_server
from s3_server import (
    ENDLESS,
    IMPATIENT,
    QUICK,
    Answer,
    HostileProxy,
    Mischief,
    always,
    answer_with,
    assert_all_right,
    fetch,
    only,
    open_source,
    pass_on,
)
from waiting import PATIENCE_S

from biomassters.dataset.files import FileRecord, list_files, verify
from biomassters.errors import SourceError

CHIPS = s3_server.CHIPS[:3]
FIRST = CHIPS[0]
ONE_FILE = f"{FIRST.chip_id}_S1_03.tif"
BUSY = answer_with("503 Slow Down", "SlowDown")
N_REQUESTS = QUICK.tries * (QUICK.retries + 1)


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
            return let_the_other_pass if number == N_REQUESTS else BUSY
        if number > 1:
            return BUSY
        return wait_for_retries if "agbm" in path else pass_on

    with HostileProxy(service, plan) as proxy:
        [fetched] = fetch(proxy.port, patience=ENDLESS)
    assert [bad.filename for bad in fetched.bad_files] == [ONE_FILE]
