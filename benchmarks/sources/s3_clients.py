"""Which S3 client is made for many small objects: python benchmarks/sources/s3_clients.py [--help].

Each client fetches the same objects, unsigned, with as many requests at a time, from a server on
loopback that only answers GET. They take turns in one run, so that all see the same machine; the
ratios are of medians. `source` is this project's own, which also computes each object's cksum.
"""

import argparse
import asyncio
import importlib.util
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

import obstore
from obstore.store import S3Store

from biomassters.dataset.files import ChipRecord, FileRecord, list_files, posix_cksum
from biomassters.sources.s3.s3_source import Patience, S3Source, open_store
from biomassters.sources.s3.settings import S3Settings

BUCKET: Final = "bucket"
BLOCK: Final = bytes(range(256)) * 4096
FILES_A_CHIP: Final = 25
REFERENCE: Final = "boto3"

Client = Callable[[str, Sequence[str], int], int]
"""Fetches the objects of these keys from an endpoint, so many at a time; returns all bytes."""


class Took(NamedTuple):
    """What a client took: by the clock, and of processors in its own process."""

    seconds: float
    cpu_seconds: float


class StaticServer(asyncio.Protocol):
    """Answers each GET of `/bucket/<bytes>/...` with as many bytes; keeps connections."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin a connection."""
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        """Answer the requests that are complete."""
        *requests, self._received = (self._received + data).split(b"\r\n\r\n")
        for request in requests:
            n_bytes = int(request.split(b"/", 3)[2])
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % n_bytes
            self._transport.write(head)
            if request.startswith(b"GET"):
                self._transport.write(memoryview(BLOCK)[:n_bytes])


def serve(port: Connection) -> None:
    """Serve until killed."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(StaticServer, "127.0.0.1", 0, backlog=512)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def settings_for(endpoint: str) -> S3Settings:
    """Return settings whose files are at `s3://bucket/<bytes>/<file name>`."""
    return S3Settings("eu", "eu-central-1", endpoint, f"s3://{BUCKET}", is_signed=False)


def open_obstore(endpoint: str) -> S3Store:
    """Return a client as this project sets it up."""
    return open_store(BUCKET, settings_for(endpoint), Patience())


def fetch_by_obstore_async(endpoint: str, keys: Sequence[str], n_connections: int) -> int:
    """Fetch in one event loop."""
    store = open_obstore(endpoint)

    async def fetch(key: str, free: asyncio.Semaphore) -> int:
        async with free:
            return len(bytes(await (await obstore.get_async(store, key)).bytes_async()))

    async def fetch_all() -> int:
        free = asyncio.Semaphore(n_connections)
        return sum(await asyncio.gather(*(fetch(key, free) for key in keys)))

    return asyncio.run(fetch_all())


def fetch_by_obstore_threads(endpoint: str, keys: Sequence[str], n_connections: int) -> int:
    """Fetch in a pool of threads."""
    store = open_obstore(endpoint)
    with ThreadPoolExecutor(n_connections) as pool:
        return sum(pool.map(lambda key: len(bytes(obstore.get(store, key).bytes())), keys))


def fetch_by_source(endpoint: str, keys: Sequence[str], n_connections: int) -> int:
    """Fetch as chips of 25 files, each held against its size and cksum."""
    cksums = {n_bytes: posix_cksum(BLOCK[:n_bytes]) for n_bytes in sizes_of(keys)}
    records = []
    for key in keys:
        folder, filename = key.split("/")
        records.append(FileRecord(filename, folder, int(folder), cksums[int(folder)]))
    chips = []
    for first in range(0, len(records), FILES_A_CHIP):
        files = tuple(records[first : first + FILES_A_CHIP])
        chips.append(ChipRecord(str(first), "train", files, (), None))
    source = S3Source(settings_for(endpoint), n_connections)
    n_bytes = 0
    for chip in source.fetch_chips(chips):
        if chip.bad_files or len(chip.files) != len(list_files(chip.chip)):
            raise SystemExit(f"expected whole chips, got {chip.bad_files}")
        n_bytes += sum(map(len, chip.files.values()))
    return n_bytes


def fetch_by_boto3(endpoint: str, keys: Sequence[str], n_connections: int) -> int:
    """Fetch in a pool of threads that share a client."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(
        signature_version=UNSIGNED,
        max_pool_connections=n_connections,
        retries={"total_max_attempts": 1},
        s3={"addressing_style": "path"},
    )
    client = boto3.client("s3", endpoint_url=endpoint, region_name="eu-central-1", config=config)

    def fetch(key: str) -> int:
        return len(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    with ThreadPoolExecutor(n_connections) as pool:
        return sum(pool.map(fetch, keys))


def fetch_by_s3fs(endpoint: str, keys: Sequence[str], n_connections: int) -> int:
    """Fetch in one event loop."""
    import s3fs

    async def fetch_all() -> int:
        files = s3fs.S3FileSystem(
            anon=True,
            endpoint_url=endpoint,
            config_kwargs={"max_pool_connections": n_connections},
            asynchronous=True,
            skip_instance_cache=True,
        )
        session = await files.set_session()
        free = asyncio.Semaphore(n_connections)

        async def fetch(key: str) -> int:
            async with free:
                return len(await files._cat_file(f"{BUCKET}/{key}"))

        n_bytes = sum(await asyncio.gather(*map(fetch, keys)))
        await session.close()
        return n_bytes

    return asyncio.run(fetch_all())


CLIENTS: Final[dict[str, Client]] = {
    "boto3": fetch_by_boto3,
    "s3fs": fetch_by_s3fs,
    "obstore, threads": fetch_by_obstore_threads,
    "obstore, asyncio": fetch_by_obstore_async,
    "source": fetch_by_source,
}


def sizes_of(keys: Sequence[str]) -> set[int]:
    """Return the sizes that keys ask for."""
    return {int(key.split("/")[0]) for key in keys}


def measure(client: Client, endpoint: str, keys: Sequence[str], n_connections: int) -> Took:
    """Run a client once, and check that it got all."""
    start, cpu_start = time.perf_counter(), cpu_seconds()
    n_bytes = client(endpoint, keys, n_connections)
    took = Took(time.perf_counter() - start, cpu_seconds() - cpu_start)
    expected = sum(int(key.split("/")[0]) for key in keys)
    if n_bytes != expected:
        raise SystemExit(f"expected {expected} bytes, got {n_bytes}")
    return took


def cpu_seconds() -> float:
    """Return the processor time of this process, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def compare(endpoint: str, n_objects: int, n_bytes: int, options: argparse.Namespace) -> None:
    """Let all clients take turns, and print a row of each."""
    keys = [f"{n_bytes}/{index:06d}.tif" for index in range(n_objects)]
    clients = {
        name: client
        for name, client in CLIENTS.items()
        if name != "s3fs" or importlib.util.find_spec("s3fs")
    }
    runs: dict[str, list[Took]] = {name: [] for name in clients}
    for _ in range(options.rounds):
        for name, client in clients.items():
            runs[name].append(measure(client, endpoint, keys, options.connections))
    seconds, cpu = (
        {name: statistics.median(took[index] for took in tooks) for name, tooks in runs.items()}
        for index in range(2)
    )
    print(f"\n{n_objects:,} objects of {n_bytes:,} bytes, {options.connections} at a time")
    print("| client | objects/s | MB/s | times boto3 | CPU ms an object | boto3's CPU over it |")
    print("|---|---|---|---|---|---|")
    for name in clients:
        rate = n_objects / seconds[name]
        print(
            f"| {name} | {rate:,.0f} | {rate * n_bytes / 1e6:,.0f}"
            f" | {seconds[REFERENCE] / seconds[name]:.2f}"
            f" | {1e3 * cpu[name] / n_objects:.2f} | {cpu[REFERENCE] / cpu[name]:.2f} |"
        )


def main() -> None:
    """Start the server, and compare the clients with small objects and with those of a chip."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=3000, help="objects of 16 KiB")
    parser.add_argument("--large", type=int, default=400, help="objects of 1 MiB")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    endpoint = f"http://127.0.0.1:{ours.recv()}"
    compare(endpoint, options.small, 16 * 2**10, options)
    compare(endpoint, options.large, 2**20, options)
    server.terminate()


if __name__ == "__main__":
    main()
