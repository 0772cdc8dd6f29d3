"""The source `s3`: the public buckets, or any S3 service, read by many requests at a time.

Knows how to get objects whole, how long to try and when to give the place up. Each object is held
against the catalogue before it counts as fetched.

A process has a few chips in flight: while it decodes one, the files of the next arrive. An object
that fails is tried again after a growing wait, in which the others go on. What remains bad is
reported with its chip. Only a place that gives nothing at all ends the work.
"""

import asyncio
import random
import threading
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from datetime import timedelta
from functools import lru_cache
from itertools import islice
from types import TracebackType
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

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


Result = TypeVar("Result")


class Patience(NamedTuple):
    """How long an object is tried.

    Attributes:
        tries: Requests, while the service does not answer or breaks off.
        damage_tries: Requests, while whole answers come that are not the file.
        first_wait_s: Wait after the first try; it doubles after each.
        longest_wait_s: The longest wait; a random part of up to a half is taken off each.
        connect_s: To a connection.
        silence_s: Between two pieces of an answer.
        answer_s: To the end of an answer, beside what its size takes.
        slowest_bytes_s: Bytes a second of the slowest connection that is not given up.
    """

    tries: int = 8
    damage_tries: int = 3
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    connect_s: float = 10.0
    silence_s: float = 20.0
    answer_s: float = 30.0
    slowest_bytes_s: float = 16_384.0

    def wait_s(self, n_tries: int) -> float:
        """Return how long to wait after so many tries."""
        longest = min(self.longest_wait_s, self.first_wait_s * 2.0 ** (n_tries - 1))
        return random.uniform(0.5, 1) * longest  # noqa: S311 - keeps requests apart, no secret

    def deadline_s(self, size: int) -> float:
        """Return how long an answer of `size` bytes may take in all."""
        return self.answer_s + size / self.slowest_bytes_s

    def is_over(self, fault: Fault, n_tries: int) -> bool:
        """Tell whether an object is given up after so many tries."""
        limits = {Meaning.OUTAGE: self.tries, Meaning.DAMAGE: self.damage_tries}
        return n_tries >= limits.get(fault.meaning, 1)


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
        with _BackgroundLoop() as loop:
            while True:
                for chip in islice(waiting, CHIPS_AT_A_TIME - len(in_flight)):
                    in_flight.append(loop.submit(fetcher.fetch_chip(chip)))
                if not in_flight:
                    return
                wait(in_flight, return_when=FIRST_COMPLETED)
                done = next(index for index, chip in enumerate(in_flight) if chip.done())
                yield in_flight.pop(done).result()

    def _check_folder(self, folder: str) -> None:
        bucket, prefix = split_address(folder)
        store = open_store(bucket, self.settings, self.patience, self.patience.answer_s)
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


def open_store(
    bucket: str, settings: S3Settings, patience: Patience, longest_s: float | None = None
) -> S3Store:
    """Return a client of a bucket that tries everything once.

    Args:
        bucket: Its name.
        settings: Where it is.
        patience: How long to wait for a connection, and between two pieces of an answer.
        longest_s: How long an answer may take in all; None = as long as the largest file.
    """
    if longest_s is None:
        longest_s = patience.deadline_s(LARGEST_FILE)
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
            "timeout": timedelta(seconds=longest_s),
        },
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=0)},
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
        n_sound_before = n_tries = 0
        while True:
            n_tries += 1
            async with self._free:
                data = await self._try_once(record, address)
            if isinstance(data, bytes):
                self._n_sound += 1
                self._last_sound = record, address
                return data
            if n_tries <= self._patience.tries // 2:  # so what was under way then does not count
                n_sound_before = self._n_sound
            if self._patience.is_over(data, n_tries):
                await self._judge_place(data, is_silent=self._n_sound == n_sound_before)
                return FileError(data.expected, data.got)
            await asyncio.sleep(self._patience.wait_s(n_tries))

    async def _try_once(self, record: FileRecord, address: str) -> bytes | Fault:
        bucket, key = split_address(address)
        try:
            async with asyncio.timeout(self._patience.deadline_s(record.size)):
                store = self._open(bucket, self._settings, self._patience)
                answer = await obstore.get_async(store, key)
                # Before its body is read: an answer never takes more memory than its record says.
                if answer.meta["size"] != record.size:
                    raise FileError(f"{record.size} bytes", str(answer.meta["size"]))
                data = bytes(await answer.bytes_async())
            verify(record, data)
        except (FileError, OSError, BaseError) as error:
            return explain_fault(error, address)
        return data

    async def _judge_place(self, fault: Fault, *, is_silent: bool) -> None:
        """End the work if it is not this object alone that cannot be had.

        Args:
            fault: Why the object was given up.
            is_silent: No sound object came in the later half of the tries.
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


class _BackgroundLoop:
    """An event loop in a thread of its own, so that transfers go on while this thread computes.

    It runs coroutines until its `with` block ends; what still runs then is cancelled.
    """

    def __init__(self) -> None:
        # A daemon: an interrupted process never waits for the network.
        self._thread = threading.Thread(target=self._run, name="transfers", daemon=True)
        self._is_ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event

    def submit(self, coroutine: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Start a coroutine."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def __enter__(self) -> "_BackgroundLoop":
        self._thread.start()
        self._is_ready.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._wait_for_end())

    async def _wait_for_end(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._is_ready.set()
        await self._end.wait()
