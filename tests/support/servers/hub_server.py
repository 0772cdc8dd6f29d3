"""A hub on loopback: what huggingface_hub asks the real one for a dataset, with faults on demand.

As the real hub does, it lists files with their LFS checksums and answers an address of a file with
a redirect to another host, which sends the bytes.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import NamedTuple
from urllib.parse import urlsplit

import huggingface_hub
import pytest

from biomassters.sources.hub import faults as hub_faults
from biomassters.sources.hub.hub_source import HUB_REPOSITORY

TOKEN = "hf_of_the_tests"  # noqa: S105
COMMIT = hashlib.sha1(b"the only commit").hexdigest()  # noqa: S324
LIST_PATH = f"/api/datasets/{HUB_REPOSITORY}/revision/main"
RESOLVE_PATH = f"/datasets/{HUB_REPOSITORY}/resolve/{COMMIT}/"


class Answer(NamedTuple):
    """How the next answer of a kind differs from a right one.

    Attributes:
        status: Sent instead of an answer.
        n_sent: The connection ends after so many bytes of the body.
        n_said: The header claims so many bytes, and so many are sent.
        is_held: After `n_sent` bytes the connection stays open and silent.
        is_flipped: The body's first byte is wrong.
        is_whole: The range is not heeded.
        is_shifted: The range that is sent starts one byte late.
        is_page: A web page comes instead.
    """

    status: int | None = None
    n_sent: int | None = None
    n_said: int | None = None
    is_held: bool = False
    is_flipped: bool = False
    is_whole: bool = False
    is_shifted: bool = False
    is_page: bool = False


class Sent(NamedTuple):
    """A body that was asked for.

    Attributes:
        name: The file's.
        start: The first byte asked for.
        token: The authorization that came with it.
    """

    name: str
    start: int
    token: str | None


class HubServer(ThreadingHTTPServer):
    """Serves files as the dataset repository `HUB_REPOSITORY`, until it is left.

    Attributes:
        files: By name.
        listing: How the next lists of files are answered, the first first; then rightly.
        bodies: The same for the files' bytes.
        sent: What was asked of the second host, in order.
        tokens: The authorizations that came to the first.
        is_holding: An answer is being held.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = dict(files)
        self.listing: list[Answer] = []
        self.bodies: list[Answer] = []
        self.sent: list[Sent] = []
        self.tokens: list[str | None] = []
        self.is_holding = Event()
        self._end = Event()

    @property
    def endpoint(self) -> str:
        """The hub's address."""
        return f"http://127.0.0.1:{self.server_port}"

    def hold(self) -> None:
        """Stay silent until the server ends."""
        self.is_holding.set()
        self._end.wait()

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that went away."""

    def __enter__(self) -> "HubServer":
        Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == LIST_PATH:
            self._list_files()
        elif path.startswith(RESOLVE_PATH):
            self._redirect(path.removeprefix(RESOLVE_PATH))
        elif path.startswith("/cdn/"):
            self._send_file(path.removeprefix("/cdn/"))
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _list_files(self) -> None:
        self.server.tokens.append(self.headers["Authorization"])
        answer = self.server.listing.pop(0) if self.server.listing else Answer()
        if answer.status:
            self._send(answer.status, b"{}", {})
        elif answer.is_page:
            self._send(200, b"<html>Log in to this network", {"Content-Type": "text/html"})
        else:
            siblings = [_describe(name, data) for name, data in self.server.files.items()]
            body = {"id": HUB_REPOSITORY, "sha": COMMIT, "siblings": siblings}
            self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _redirect(self, name: str) -> None:
        self.server.tokens.append(self.headers["Authorization"])
        other_host = f"http://localhost:{self.server.server_port}/cdn/{name}"
        self._send(302, b"", {"Location": other_host, "X-Repo-Commit": COMMIT})

    def _send_file(self, name: str) -> None:
        data = self.server.files[name]
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        start, end = int(match[1]), int(match[2]) + 1
        self.server.sent.append(Sent(name, start, self.headers["Authorization"]))
        answer = self.server.bodies.pop(0) if self.server.bodies else Answer()
        if answer.status:
            self._send(answer.status, b"", {"Location": self.path})
            return
        start = 0 if answer.is_whole else start + answer.is_shifted
        body = data[start:] if answer.is_whole else data[start:end]
        if answer.is_flipped:
            body = bytes([body[0] ^ 1]) + body[1:]
        n_said = len(body) if answer.n_said is None else answer.n_said
        self.send_response(200 if answer.is_whole else 206)
        self.send_header("Content-Length", str(n_said))
        if not answer.is_whole:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(body[:n_said] if answer.n_sent is None else body[: answer.n_sent])
        if answer.is_held:
            self.server.hold()
        self.close_connection = answer.n_sent is not None


def _describe(name: str, data: bytes) -> dict[str, object]:
    """Return a file's entry in the list; what is no archive is not kept in LFS."""
    entry: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": "0" * 40}
    if not name.endswith((".csv", ".md")):
        sha256 = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 134}
    return entry


@contextmanager
def serve_hub(files: Mapping[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Serve files to an impatient client that knows `TOKEN` and no proxy."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(hub_faults, "WAITS_S", (0.0, 0.01, 0.01))
    with HubServer(files) as server:
        yield server
        huggingface_hub.close_session()
