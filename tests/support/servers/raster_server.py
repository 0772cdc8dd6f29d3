"""A real HTTP server on loopback that serves a folder by ranges, and spoils answers as told.

It is a process of its own: rasterio keeps Python's lock in some calls that ask the server, which in
the same process could then never answer. Faults and counts go over the path /control.
"""

import contextlib
import http.server
import json
import re
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

STATUSES = {
    "slow down": (429, b"slow down"),
    "busy": (503, b"busy"),
    "expired": (403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message>"),
    "missing": (404, b"no such file"),
}
"""Faults that are answers; `reset` and `cut` are none."""


class Fault(NamedTuple):
    """How answers are spoilt.

    Attributes:
        kind: One of STATUSES, `reset` (the connection) or `cut` (the body, in its middle).
        part: Of the path of the files that it concerns.
        n_times: The first requests for each file that it concerns.
        after: Requests for each file that are answered rightly before.
    """

    kind: str
    part: str = ""
    n_times: int = 10**9
    after: int = 0


class RasterServer:
    """A client of the process that serves a folder; `port` is where it listens."""

    def __init__(self, port: int) -> None:
        self.port = port

    def url(self, name: str) -> str:
        """Return the address of a file."""
        return f"http://127.0.0.1:{self.port}/{name}"

    def spoil(self, *faults: Fault) -> None:
        """Spoil answers from now on; counts begin anew."""
        data = json.dumps(faults).encode()
        with urllib.request.urlopen(self.url("control"), data, timeout=60):  # noqa: S310
            pass

    def count(self) -> dict[str, int]:
        """Return how often each file was asked for since `spoil`; `spoilt` are wrong answers."""
        with urllib.request.urlopen(self.url("control"), timeout=60) as answer:  # noqa: S310
            return dict(json.load(answer))


@contextlib.contextmanager
def serve_folder(folder: Path) -> Iterator[RasterServer]:
    """Serve a folder for as long as the block runs."""
    with _run(str(folder)) as port:
        yield RasterServer(port)


@contextlib.contextmanager
def serve_s3() -> Iterator[int]:
    """Run a real S3 service for as long as the block runs, and yield its port."""
    with _run(stderr=subprocess.DEVNULL) as port:
        yield port


@contextlib.contextmanager
def _run(*arguments: str, stderr: int | None = None) -> Iterator[int]:
    command = [sys.executable, "-u", __file__, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, stderr=stderr
    ) as process:
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()  # at which it ends
            process.wait()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.faults: list[Fault] = []
        self.asked: Counter[str] = Counter()
        self.lock = threading.Lock()

    def choose(self, path: str) -> str | None:
        """Count a request, and return the fault of its answer."""
        with self.lock:
            self.asked[path] += 1
            for fault in self.faults:
                number = self.asked[path] - fault.after
                if fault.part in path and 0 < number <= fault.n_times:
                    self.asked["spoilt"] += 1
                    return fault.kind
        return None

    def handle_error(self, *_: object) -> None:
        """Say nothing: the clients are the test."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        if self.path == "/control":
            with self.server.lock:
                self._send(200, json.dumps(self.server.asked).encode())
        else:
            self._answer()

    def do_POST(self) -> None:
        faults = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.faults = [Fault(*fault) for fault in faults]
            self.server.asked.clear()
        self._send(200, b"")

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/")
        kind = self.server.choose(path)
        file = self.server.folder / path
        if kind == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
            self.close_connection = True
        elif kind in STATUSES:
            self._send(*STATUSES[kind])
        elif not file.is_file():
            self._send(*STATUSES["missing"])
        else:
            self._send_file(file.read_bytes(), cut=kind == "cut")

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "0")
        self._send_body(body, len(body))

    def _send_file(self, data: bytes, *, cut: bool) -> None:
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        size = len(data)
        if asked:
            first, last = int(asked[1]), min(int(asked[2] or size - 1), size - 1)
            data = data[first : last + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        else:
            self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self._send_body(data, len(data) // 2 if cut else len(data))
        self.close_connection = cut or self.close_connection

    def _send_body(self, body: bytes, n_sent: int) -> None:
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(OSError):
                self.wfile.write(body[:n_sent])


def _serve(folder: Path) -> None:
    with _Server(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_address[1])  # noqa: T201
        sys.stdin.read()


def _serve_s3() -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1])  # noqa: T201
    sys.stdin.read()


if __name__ == "__main__":
    _serve(Path(sys.argv[1])) if len(sys.argv) > 1 else _serve_s3()
