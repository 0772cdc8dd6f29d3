"""What goes wrong with a hub: what passes, what does not, and what the user can do."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Final, TypeVar

from huggingface_hub.errors import (  # type: ignore[attr-defined]
    HfHubHTTPError,
    HTTPError,  # of its client: httpx, or httpx2 from release 2 on
    OfflineModeIsEnabled,
)

from biomassters.errors import SourceError

WAITS_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Waits before each further attempt, as long as none brings anything."""

BY_HAND: Final = (
    "or download the archives by hand into a folder, name it in BIOMASSTERS_FOLDER and set"
    " data.source to archives"
)
"""The way that is always open."""

_PASSING_STATUSES: Final = (408, 425, 429, 500, 502, 503, 504)

log = logging.getLogger(__name__)
T = TypeVar("T")


class PassingError(Exception):
    """A fault that may be gone in the next attempt."""


class StoppedError(Exception):
    """The download was told to stop."""


@contextmanager
def name_faults(url: str) -> Iterator[None]:
    """Tell faults that may pass from those that end the work.

    Args:
        url: What is asked for.

    Raises:
        PassingError: The next attempt may succeed.
        SourceError: None will.
    """
    try:
        yield
    except OfflineModeIsEnabled:
        raise SourceError(
            f"expected leave to use the network, got the setting HF_HUB_OFFLINE, at {url};"
            f" unset it, {BY_HAND}"
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in _PASSING_STATUSES:
            raise PassingError(f"status {status}") from None
        raise SourceError(
            f"expected the hub to give the data, got status {status}, at {url};"
            f" {_remedy(status)}, {BY_HAND}"
        ) from None
    except HTTPError as error:
        raise PassingError(f"{type(error).__name__} ({error})") from None


@contextmanager
def name_disk_faults(folder: Path) -> Iterator[None]:
    """Say in one line what the disk refuses.

    Args:
        folder: Where the archives go.

    Raises:
        SourceError: Nothing can be written there, or read.
    """
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename or folder  # the second is where it should go
        raise SourceError(
            f"expected to read and write the hub's archives, got {error.strerror or error}, at"
            f" {where}; make room, give permission or remove what is in their place, and run the"
            " same command again: what is downloaded is kept"
        ) from None


def retry(action: Callable[[], T], url: str, stop: Event) -> T:
    """Do what may fail for a while, with growing waits.

    Args:
        action: Raises `PassingError` if it is worth another attempt.
        url: What is asked for.
        stop: Ends the waiting.

    Raises:
        SourceError: Every attempt failed.
    """
    for wait_s in WAITS_S:
        try:
            return action()
        except PassingError as fault:
            log.warning("%s at %s: trying again in %g s", fault, url, wait_s)
        if stop.wait(wait_s):
            raise StoppedError
    try:
        return action()
    except PassingError as fault:
        raise SourceError(
            f"expected the hub to give the data, got {fault} in each of {len(WAITS_S) + 1}"
            f" attempts, at {url}; check the network and run the same command again (what is"
            f" downloaded is kept), {BY_HAND}"
        ) from None


def _remedy(status: int) -> str:
    if status in (401, 403):
        return "ask for access to the repository and put your token in HF_TOKEN"
    return "check HF_ENDPOINT and BIOMASSTERS_HUB_REVISION"
