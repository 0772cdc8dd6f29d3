"""Open rasters, shared by threads: few at a time, and opened anew when reading fails.

GDAL keeps what it got over a network, failures and cut bodies too, for the whole process; but of
files that it is told not to cache, it forgets all when they are closed. So all are such, stay open
as long as they are in use, and are closed before each new try.

rasterio keeps Python's lock in some of its calls that ask a server (opening a file that may have
others beside it, such as masks). So no folder is listed, and GDAL itself never waits, as its own
retries do: the waits between tries are here.
"""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import rasterio
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from biomassters.errors import UnreadableRasterError
from biomassters.scenes.patience import Patience
from biomassters.scenes.rasters.addresses import Address

T = TypeVar("T")

MOST_IDLE: Final = 64
"""Rasters that stay open between uses; each takes some 100 kB, and its blocks GDAL's cache."""

_GDAL_OPTIONS: Final = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/",
    "GDAL_HTTP_MAX_RETRY": "0",
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
}
"""For what the environment does not set itself."""

_FOR_GOOD: Final = (
    ("403", "no access (HTTP 403)", "the address's signature may have expired: fetch new ones"),
    ("401", "no access (HTTP 401)", "give credentials to GDAL by environment variables"),
    ("404", "no such file (HTTP 404)", "mend the address, or declare the month as absent"),
    ("AccessDenied", "no access", "give credentials to GDAL by environment variables"),
    ("ExpiredToken", "no access", "the credentials have expired: get new ones"),
    ("NoSuchKey", "no such file", "mend the address, or declare the month as absent"),
    ("NoSuchBucket", "no such bucket", "mend the address"),
)
"""Parts of GDAL's messages for which no further try helps, what was got, and the remedy."""


class RasterFiles:
    """Rasters that are open, or are opened when they are used; any thread may use them."""

    def __init__(self, patience: Patience | None = None, most_idle: int = MOST_IDLE) -> None:
        self.patience = patience or Patience()
        self._most_idle = most_idle
        self._idle: OrderedDict[int, tuple[str, DatasetReader]] = OrderedDict()
        self._lock = threading.Lock()

    def use(self, address: Address, action: Callable[[DatasetReader], T]) -> T:
        """Do something with an open raster, again if that fails.

        Args:
            address: Where it lies.
            action: Reads from it; may be called several times.

        Raises:
            UnreadableRasterError: All tries failed, or no further one would help.
        """
        tries = self.patience.tries if address.is_remote else 1
        for number in range(1, tries + 1):
            try:
                with _gdal_options(), self._lend(address) as dataset:
                    return action(dataset)
            except RasterioError as error:
                words = _gather_words(error)
                if number == tries or _find_reason(words) is not None:
                    raise _explain(address, words, number) from None
            time.sleep(self.patience.wait_s(number))
        raise AssertionError("there is one try at least")

    def close(self) -> None:
        """Close those that are not in use."""
        with self._lock:
            idle = [dataset for _, dataset in self._idle.values()]
            self._idle.clear()
        for dataset in idle:
            dataset.close()

    @contextmanager
    def _lend(self, address: Address) -> Iterator[DatasetReader]:
        """Lend a raster to one thread; it is kept open unless the block fails."""
        dataset = self._take(address.gdal)
        if dataset is None:
            dataset = rasterio.open(address.gdal)
        try:
            yield dataset
        except BaseException:
            with suppress(RasterioError):
                dataset.close()
            raise
        self._put_back(address.gdal, dataset)

    def _take(self, name: str) -> DatasetReader | None:
        with self._lock:
            for key, (idle_name, dataset) in reversed(self._idle.items()):
                if idle_name == name:
                    del self._idle[key]
                    return dataset
        return None

    def _put_back(self, name: str, dataset: DatasetReader) -> None:
        with self._lock:
            self._idle[id(dataset)] = name, dataset
            surplus = [
                self._idle.popitem(last=False)[1][1]
                for _ in range(len(self._idle) - self._most_idle)
            ]
        for old in surplus:
            old.close()


@contextmanager
def _gdal_options() -> Iterator[None]:
    options: dict[str, Any] = {k: v for k, v in _GDAL_OPTIONS.items() if k not in os.environ}
    with rasterio.Env(**options):
        yield


def _gather_words(error: BaseException) -> str:
    """Return what GDAL said, the deepest cause last."""
    words = []
    cause: BaseException | None = error
    while cause is not None:
        words.append(" ".join(str(cause).split()))
        cause = cause.__cause__ or cause.__context__
    return "; ".join(dict.fromkeys(words))


def _find_reason(words: str) -> tuple[str, str] | None:
    """Return what was got and what to do, where no further try helps."""
    for part, got, remedy in _FOR_GOOD:
        if part.isdigit():
            found = any(f"{before}{part}" in words for before in ("code: ", "code : ", "code "))
        else:
            found = part in words
        if found:
            return got, remedy
    return None


def _explain(address: Address, words: str, n_tries: int) -> UnreadableRasterError:
    reason = _find_reason(words)
    if reason is not None:
        got, remedy = reason
    elif address.is_remote and "does not exist" in words:
        got = f"no such file, or no answer ({n_tries} tries)"
        remedy = "mend the address, declare the month as absent, or run it again later"
    else:
        # GDAL's own words name the address as it opened it, with all its secrets.
        words = words.replace(address.gdal, address.shown).replace(address.written, address.shown)
        _, question, query = address.written.partition("?")
        words = words.replace(f"{question}{query}", "") if query else words
        got = f"{words[:200]} ({n_tries} tries)" if n_tries > 1 else words[:200]
        remedy = "run it again later" if address.is_remote else "mend the file"
    return UnreadableRasterError(
        f"expected a raster that can be read, got {got}, at {address.shown}; {remedy}"
    )
