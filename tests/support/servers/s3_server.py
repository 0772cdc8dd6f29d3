"""A real S3 service on loopback, and a hostile proxy before it.

The proxy passes each request on to the service and may spoil what comes back: its plan says how,
by the object's path and how often that was asked for.
"""

import contextlib
import http.client
import re
import socket
import socketserver
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import boto3
import pytest
from example_chips import simulate_records
from moto.server import ThreadedMotoServer
from waiting import PATIENCE_S

from biomassters.dataset.files import ChipRecord, list_files
from biomassters.simulator.official_files import simulate_files
from biomassters.sources.s3.s3_source import Patience, S3Source
from biomassters.sources.s3.settings import S3Settings
from biomassters.sources.source import FetchedChip

CHIPS = simulate_records("5eed0001", "5eed0002", "5eed0003", "5eed0004", "5eed0005")
BUCKET = "biomass"
PREFIX = "mirror"
FOLDER = f"s3://{BUCKET}/{PREFIX}"
QUICK = Patience(tries=3, retries=1, first_wait_s=0.01, longest_wait_s=0.04)
ENDLESS = QUICK._replace(silence_s=PATIENCE_S, answer_s=PATIENCE_S)
"""For answers that wait for something else to happen."""
IMPATIENT = QUICK._replace(tries=2, silence_s=0.8, answer_s=1.4)
"""For answers that never come or never end."""


@cache
def files_of(chip_id: str) -> dict[str, bytes]:
    """Return the files of a simulated chip of 32 pixels."""
    return simulate_files(chip_id, 32)


def open_source(port: int, n_connections: int = 32, patience: Patience = QUICK) -> S3Source:
    """Return a source that reads the mirror behind a port."""
    settings = S3Settings("eu", "eu-central-1", f"http://127.0.0.1:{port}", FOLDER, is_signed=False)
    return S3Source(settings, n_connections, patience)


def fetch(
    port: int, chips: Sequence[ChipRecord] = CHIPS[:1], n_connections: int = 32, **options: Patience
) -> list[FetchedChip]:
    """Return chips as they come from the mirror behind a port."""
    return list(open_source(port, n_connections, **options).fetch_chips(chips))


def assert_all_right(
    fetched: Sequence[FetchedChip], chips: Sequence[ChipRecord] = CHIPS[:1]
) -> None:
    """Hold that each chip came once, whole, byte for byte."""
    assert sorted(one.chip.chip_id for one in fetched) == [chip.chip_id for chip in chips]
    for chip, files, bad_files in fetched:
        assert bad_files == ()
        assert files == files_of(chip.chip_id)
        assert all(type(data) is bytes for data in files.values())


def connect(port: int) -> Any:
    """Return a client of the service behind a port, with an account."""
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",  # noqa: S106
    )


def tell_gdal(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let GDAL ask the service behind a port, without an account, for this test."""
    monkeypatch.setenv("AWS_S3_ENDPOINT", f"127.0.0.1:{port}")
    monkeypatch.setenv("AWS_HTTPS", "NO")
    monkeypatch.setenv("AWS_VIRTUAL_HOSTING", "FALSE")
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")


@contextlib.contextmanager
def run_service(chips: Sequence[ChipRecord] = CHIPS) -> Iterator[int]:
    """Yield the port of a service that has these chips in the mirror's folders."""
    service = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    service.start()
    try:
        _, port = service.get_host_and_port()
        client = connect(port)
        client.create_bucket(Bucket=BUCKET, ACL="public-read")
        for chip in chips:
            for record in list_files(chip):
                key = f"{PREFIX}/{record.folder}/{record.filename}"
                body = files_of(chip.chip_id)[record.filename]
                client.put_object(Bucket=BUCKET, Key=key, Body=body, ACL="public-read")
        client.close()
        yield port
    finally:
        service.stop()


class Answer(NamedTuple):
    """What the service answers to a request.

    Attributes:
        path: What was asked for.
        status: Such as `200 OK`.
        body: The object, or the range of it that was asked for.
        kept: Those lines of its head that the client needs to go on with a broken body.
    """

    path: str
    status: str
    body: bytes
    kept: str = ""

    def head(self, n_bytes: int | None = None, more: str = "") -> bytes:
        """Return the head, which claims `n_bytes` or the body's length."""
        length = len(self.body) if n_bytes is None else n_bytes
        more += self.kept
        return f"HTTP/1.1 {self.status}\r\nContent-Length: {length}\r\n{more}\r\n".encode()


Mischief = Callable[[socket.socket, Answer], bool]
"""Sends an answer, and tells whether the connection may serve another request."""

Plan = Callable[[str, int], Mischief]
"""Chooses by path and by the number of the request for it, from 1."""


def pass_on(client: socket.socket, answer: Answer) -> bool:
    client.sendall(answer.head() + answer.body)
    return True


def answer_with(status: str, code: str = "") -> Mischief:
    """Answer with an error."""

    def send(client: socket.socket, answer: Answer) -> bool:
        return pass_on(client, Answer(answer.path, status, f"<Code>{code}</Code>".encode()))

    return send


def break_off(client: socket.socket, answer: Answer) -> bool:
    client.sendall(answer.head() + answer.body[: len(answer.body) // 2])
    return False


def cut(client: socket.socket, answer: Answer) -> bool:
    return pass_on(client, answer._replace(body=answer.body[: len(answer.body) // 2]))


def lengthen(client: socket.socket, answer: Answer) -> bool:
    return pass_on(client, answer._replace(body=answer.body + b"more"))


def flip_a_bit(client: socket.socket, answer: Answer) -> bool:
    middle = len(answer.body) // 2
    flipped = bytes([answer.body[middle] ^ 1])
    body = answer.body[:middle] + flipped + answer.body[middle + 1 :]
    return pass_on(client, answer._replace(body=body))


def reset(client: socket.socket, answer: Answer) -> bool:  # noqa: ARG001
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()  # with a reset, as the zero says
    return False


def reset_within(client: socket.socket, answer: Answer) -> bool:
    break_off(client, answer)
    return reset(client, answer)


def stay_silent(client: socket.socket, answer: Answer) -> bool:  # noqa: ARG001
    client.recv(1)  # until the client gives up
    return False


def drip(client: socket.socket, answer: Answer) -> bool:
    client.sendall(answer.head())
    for byte in answer.body:
        time.sleep(0.1)
        client.sendall(bytes([byte]))
    return True


def babble(client: socket.socket, answer: Answer) -> bool:  # noqa: ARG001
    client.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
    return False


def send_chunks(client: socket.socket, answer: Answer) -> bool:
    head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    client.sendall(f"{head}{len(answer.body):x}\r\n".encode() + answer.body + b"\r\n0\r\n\r\n")
    return True


def redirect_to_itself(client: socket.socket, answer: Answer) -> bool:
    answer = Answer(answer.path, "307 Temporary Redirect", b"")
    client.sendall(answer.head(more=f"Location: {answer.path}\r\n"))
    return True


def always(mischief: Mischief) -> Plan:
    return lambda _path, _number: mischief


def at_first(n_times: int, mischief: Mischief) -> Plan:
    """Spoil the first answers for each object."""
    return lambda _path, number: mischief if number <= n_times else pass_on


def only(part: str, mischief: Mischief) -> Plan:
    """Spoil all answers for objects with this in their path."""
    return lambda path, _number: mischief if part in path else pass_on


class HostileProxy:
    """Stands between a client and the service.

    Attributes:
        plan: What to do with answers.
        port: Where it listens.
        asked: How often each path was asked for.
        heads: The heads of all requests.
        most_at_a_time: The most requests that were under way together, each until its answer is
            about to be sent: a client that has it may ask again before this side knows.
    """

    def __init__(self, service_port: int, plan: Plan | None = None) -> None:
        self.plan = plan or always(pass_on)
        self.port = 0
        self.asked: Counter[str] = Counter()
        self.heads: list[str] = []
        self.most_at_a_time = 0
        self._service_port = service_port
        self._lock = threading.Lock()
        self._n_under_way = 0
        self._clients: set[socket.socket] = set()
        self._answers: dict[tuple[str, str, str], Answer] = {}

    def __enter__(self) -> "HostileProxy":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._place.close()

    def start(self) -> None:
        """Listen, at the same port as before."""
        if not self.port:
            # Never listens: while the server is down, the port is refused, and nobody else's.
            self._place = socket.socket()
            self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._place.bind(("127.0.0.1", 0))
            self.port = self._place.getsockname()[1]
        self._server = _Server(("127.0.0.1", self.port), self._serve)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections, and break those that there are."""
        self._server.shutdown()
        self._server.server_close()
        with self._lock:
            for client in self._clients:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)

    def _serve(self, client: socket.socket, *_: object) -> None:
        with self._lock:
            self._clients.add(client)
        with contextlib.suppress(OSError):
            while self._serve_request(client):
                pass
        with self._lock:
            self._clients.discard(client)

    def _serve_request(self, client: socket.socket) -> bool:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            more = client.recv(4096)
            if not more:
                return False
            head += more
        method, path = re.match(rb"(\S+) (\S+)", head).groups()
        path = path.decode()
        byte_range = re.search(r"(?i)\r\nrange: (\S+)", head.decode())
        with self._lock:
            self.heads.append(head.decode())
            self.asked[path] += 1
            number = self.asked[path]
            self._n_under_way += 1
            self.most_at_a_time = max(self.most_at_a_time, self._n_under_way)
        try:
            mischief = self.plan(path, number)
            answer = self._ask_service(method.decode(), path, byte_range[1] if byte_range else "")
        finally:
            with self._lock:
                self._n_under_way -= 1
        return mischief(client, answer)

    def _ask_service(self, *question: str) -> Answer:
        # Once for each: impatient clients ask again, and a busy service may take longer than that.
        if question not in self._answers:
            self._answers[question] = self._ask_service_anew(*question)
        return self._answers[question]

    def _ask_service_anew(self, method: str, path: str, byte_range: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._service_port)
        with contextlib.closing(connection):
            connection.request(method, path, headers={"Range": byte_range} if byte_range else {})
            response = connection.getresponse()
            kept = "".join(
                f"{name}: {value}\r\n"
                for name, value in response.getheaders()
                if name.lower() in ("etag", "content-range")
            )
            return Answer(path, f"{response.status} {response.reason}", response.read(), kept)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Say nothing: the clients are the test."""
