"""The source `s3`: the public buckets, or any S3 service, read by many requests at a time.

The client, obstore, asks again after an outage, with growing waits, and goes on with a broken body
where it broke. Here: each object is held against the catalogue before it counts as fetched, what
is wrong is fetched anew, an answer takes no more memory than its record says, and a place that
gives nothing at all ends the work. What remains bad is reported with its chip.

A process has a few chips in flight: while it decodes one, the files of the next arrive. They come
through an event loop, which can be left at any moment, where threads that wait in `obstore.get`
must be waited for. Those get 1.5 to 2 times as many objects of 16 KiB a second, but of 1 MiB, as
chips' files are, between 0.5 and 1.2 times.
"""

import asyncio
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from itertools import islice
from typing import Final, NamedTuple, NoReturn

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from biomassters.dataset.catalogue import targets_file
from biomassters.dataset.files import (
    LARGEST_FILE,
    ChipRecord,
    FileError,
    FileRecord,
    list_files,
    split_address,
    verify,
)
from biomassters.errors import SourceError
from biomassters.processes.environment import (
    S3_ENDPOINT_VARIABLE,
    S3_FOLDER_VARIABLE,
    S3_REGION_VARIABLE,
)
from biomassters.sources.s3.faults import Fault, Meaning, explain_fault
from biomassters.sources.s3.settings import (
    S3Settings,
    count_connections,
    read_s3_settings,
)
from biomassters.sources.source import FetchedChip, sort_files

CHIPS_AT_A_TIME: Final = 3
"""On their way or being decoded, by a process; 25 files and 30 MB each."""

REFUSALS_OF_A_PLACE: Final = 100
"""After as many refused objects and not one sound, the place itself refuses."""

KEPT_STORES: Final = 8
"""Buckets whose connections are kept; the official catalogue has one."""


class Patience(NamedTuple):
    """How long an object is tried: `tries` times `retries` + 1 requests at most.

    Attributes:
        tries: How often it is asked for from its first byte.
        retries: Requests by which the client then goes on after an outage.
        first_wait_s: Its wait before the first of these.
        longest_wait_s: Its longest wait; it draws each between the first and ten times the last.
        connect_s: To a connection.
        silence_s: Between two pieces of an answer.
        answer_s: To the end of an answer; the rest of a longer one is asked for again.
    """

    tries: int = 3
    retries: int = 3
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    connect_s: float = 10.0
    silence_s: float = 15.0
    answer_s: float = 120.0

    def is_over(self, fault: Fault, n_tries: int) -> bool:
        """Tell whether an object is given up after so many tries."""
        return n_tries >= self.tries or fault.meaning not in (Meaning.OUTAGE, Meaning.DAMAGE)


class S3Source:
    """Reads objects at the catalogue's addresses, or under a folder of one's own."""

    kind = "s3"

    def __init__(
        self, settings: S3Settings, n_connections: int, patience: Patience | None = None
    ) -> None:
        self.settings = settings
        self.n_connections = n_connections
        self.patience = patience or Patience()

    def prepare(self, chips: Sequence[ChipRecord]) -> None:
        """Check that every file has an address, and that one's own folder is not empty.

        Raises:
            SourceError: A file has none, or nothing is there.
        """
        for chip in chips:
            for record in list_files(chip):
                if self.settings.find_address(record) is None:
                    otherwise = f"{S3_REGION_VARIABLE} to another region"
                    if record.folder == "test_agbm":  # of which the official catalogue has none
                        otherwise = f"take {targets_file('test')} out of the catalogue"
                    raise SourceError(
                        f"expected an address of {record.filename} in the region"
                        f" {self.settings.region}, got none in the catalogue; set"
                        f" {S3_FOLDER_VARIABLE} to s3://bucket/prefix of your mirror,"
                        f" or {otherwise}"
                    )
        if chips and self.settings.folder:
            self._check_folder(self.settings.folder)

    def fetch_chips(self, chips: Iterable[ChipRecord]) -> Iterator[FetchedChip]:
        """Yield each chip when it is complete; at most `CHIPS_AT_A_TIME` are begun.

        Raises:
            SourceError: The place gives nothing at all.
        """
        waiting = iter(chips)
        fetcher = _Fetcher(self.settings, self.n_connections, self.patience)
        in_flight: list[Future[FetchedChip]] = []
        with _run_loop() as loop:
            while True:
                for chip in islice(waiting, CHIPS_AT_A_TIME - len(in_flight)):
                    coroutine = fetcher.fetch_chip(chip)
                    in_flight.append(asyncio.run_coroutine_threadsafe(coroutine, loop))
                if not in_flight:
                    return
                wait(in_flight, return_when=FIRST_COMPLETED)
                done = next(index for index, chip in enumerate(in_flight) if chip.done())
                yield in_flight.pop(done).result()

    def _check_folder(self, folder: str) -> None:
        bucket, prefix = split_address(folder)
        store = open_store(bucket, self.settings, self.patience._replace(retries=0))
        try:
            first = next(iter(obstore.list(store, prefix or None, chunk_size=1)), [])
        except (OSError, BaseError) as error:
            if explain_fault(error, folder).meaning is not Meaning.NO_PLACE:
                return  # not all places may be listed; fetching will tell
            first = []
        if not first:
            raise SourceError(
                f"expected chips in the folders of {folder}, got nothing, at"
                f" {self.settings.endpoint}; set {S3_FOLDER_VARIABLE} to the folder that has"
                " train_features"
            )


def open_s3(n_workers: int) -> S3Source:
    """Open the source that the environment describes.

    Args:
        n_workers: Processes that will fetch from it at a time; they share the connections.

    Raises:
        ParamsError: A variable is not as it must be.
    """
    return S3Source(read_s3_settings(), count_connections(n_workers))


def open_store(bucket: str, settings: S3Settings, patience: Patience) -> S3Store:
    """Return a client of a bucket.

    Args:
        bucket: Its name.
        settings: Where it is.
        patience: How long it waits, and how often it tries again.
    """
    return S3Store(
        bucket,
        # Said under both names: each has a variable of its own, which must not win.
        endpoint=settings.endpoint,
        aws_endpoint_url_s3=settings.endpoint,
        region=settings.aws_region,
        skip_signature=not settings.is_signed,
        virtual_hosted_style_request=False,
        client_options={
            "allow_http": settings.endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=patience.connect_s),
            "read_timeout": timedelta(seconds=patience.silence_s),
            "timeout": timedelta(seconds=patience.answer_s),
        },
        retry_config={
            "max_retries": patience.retries,
            "retry_timeout": timedelta(
                seconds=(patience.answer_s + patience.longest_wait_s) * (patience.retries + 1)
            ),
            "backoff": {
                "init_backoff": timedelta(seconds=patience.first_wait_s),
                "max_backoff": timedelta(seconds=patience.longest_wait_s),
                "base": 10,
            },
        },
    )


class _Fetcher:
    """Fetches chips in one event loop, and remembers whether the place gives anything."""

    def __init__(self, settings: S3Settings, n_connections: int, patience: Patience) -> None:
        self._settings = settings
        self._patience = patience
        self._free = asyncio.Semaphore(n_connections)
        self._open = lru_cache(KEPT_STORES)(open_store)
        self._n_sound = 0
        self._n_refused = 0
        self._last_sound: tuple[FileRecord, str] | None = None

    async def fetch_chip(self, chip: ChipRecord) -> FetchedChip:
        """Fetch all files of a chip at a time."""
        records = list_files(chip)
        got = await asyncio.gather(*map(self._fetch, records))
        results = {record.filename: data for record, data in zip(records, got, strict=True)}
        return sort_files(chip, results)

    async def _fetch(self, record: FileRecord) -> bytes | FileError:
        """Try until the file is sound, or all patience gone."""
        if record.size > LARGEST_FILE:
            return FileError(f"a file of {LARGEST_FILE} bytes at most", f"{record.size}")
        address = self._settings.find_address(record)
        if address is None:
            return FileError(f"an address in the region {self._settings.region}", "none")
        n_tries = 0
        while True:
            n_tries += 1
            n_sound_before = self._n_sound
            async with self._free:
                data = await self._try_once(record, address)
            if isinstance(data, bytes):
                self._n_sound += 1
                self._last_sound = record, address
                return data
            if self._patience.is_over(data, n_tries):
                await self._judge_place(data, is_silent=self._n_sound == n_sound_before)
                return FileError(data.expected, data.got)

    async def _try_once(self, record: FileRecord, address: str) -> bytes | Fault:
        bucket, key = split_address(address)
        try:
            store = self._open(bucket, self._settings, self._patience)
            answer = await obstore.get_async(store, key)
            # Before its body is read: an answer never takes more memory than its record says.
            if answer.meta["size"] != record.size:
                raise FileError(f"{record.size} bytes", str(answer.meta["size"]))
            # Nor when it is broken and the client goes on with another: what comes first is all of
            # it or, as soon as there is a byte too many, as much as there is.
            pieces = answer.stream(min_chunk_size=record.size + 1)
            data = bytes(await anext(pieces, b""))
            verify(record, data)
        except (FileError, OSError, BaseError) as error:
            return explain_fault(error, address)
        return data

    async def _judge_place(self, fault: Fault, *, is_silent: bool) -> None:
        """End the work if it is not this object alone that cannot be had.

        Args:
            fault: Why the object was given up.
            is_silent: No sound object came in the last of its tries.
        """
        if fault.meaning is Meaning.NO_PLACE:
            self._give_up(
                fault, f"set {S3_ENDPOINT_VARIABLE} to its service, or {S3_FOLDER_VARIABLE}"
            )
        if fault.meaning is Meaning.REFUSAL:
            self._n_refused += 1
            if self._n_sound == 0 and self._n_refused >= REFUSALS_OF_A_PLACE:
                self._give_up(fault, "check the credentials and the bucket's policy")
        if fault.meaning is Meaning.OUTAGE and is_silent and not await self._is_alive():
            self._give_up(fault, "run again when it answers: what was fetched is kept")

    async def _is_alive(self) -> bool:
        if self._last_sound is None:
            return False
        async with self._free:
            return isinstance(await self._try_once(*self._last_sound), bytes)

    def _give_up(self, fault: Fault, remedy: str) -> NoReturn:
        raise SourceError(
            f"expected {fault.expected}, got {fault.got}, at {self._settings.endpoint}; {remedy}"
        )


@contextmanager
def _run_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in a thread of its own, so that transfers go on while this one computes.

    What still runs in it when the `with` block ends is cancelled.
    """
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def wait_for_end() -> None:
        end = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), end))
        await end.wait()

    # A daemon: an interrupted process never waits for the network.
    thread = threading.Thread(
        target=asyncio.run, args=(wait_for_end(),), name="transfers", daemon=True
    )
    thread.start()
    loop, end = started.result()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()
