"""Pixels of an item on the map's grid, through odc-stac, with patience for a network's failures."""

import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pystac
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from biomassters.errors import UnreadableRasterError
from biomassters.scenes.grid import Box, Grid
from biomassters.scenes.patience import Patience
from biomassters.scenes.stac.search_results import redact

log = logging.getLogger(__name__)

BLOCK: Final = 256
"""Side of what is loaded at once, pixels, on a lattice from the CRS's origin.

GDAL approximates the way from one CRS to another over the whole of what it is asked for, so that a
pixel's value may depend on that (issue 252 of opendatacube/odc-stac). So it is always asked for
whole blocks.
"""

_GDAL: Final = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "GDAL_HTTP_TIMEOUT": "120",
}

_GONE: Final = {401: "no permission", 403: "no permission", 404: "no such file", 410: "gone"}
"""Answers that no waiting changes."""


PATIENCE: Final = Patience(tries=5, first_wait_s=1.0)
"""With items' rasters, unless another is asked for."""


class Load(NamedTuple):
    """What is loaded of an item.

    Attributes:
        bands: Names of its assets.
        dtype: Of the arrays.
        nodata: Their value where there are no pixels.
    """

    bands: tuple[str, ...]
    dtype: str
    nodata: float


class _OwnThread(threading.local):
    is_loading = False


_own_thread = _OwnThread()


class _Silence(logging.Filter):
    """Keeps from logs what libraries say while we load: whole addresses, with their signatures."""

    def filter(self, _record: logging.LogRecord) -> bool:
        return not _own_thread.is_loading


_silence = _Silence()
_OUTSPOKEN: Final = ("odc.loader._rio", "rasterio._env", "rasterio._err", "rasterio._io")


def load_block(
    item: pystac.Item, load: Load, grid: Grid, box: Box, patience: Patience
) -> dict[str, NDArray[Any]]:
    """Load a box of an item's bands, each pixel from the nearest of the file.

    Args:
        item: Its assets are files of one band.
        load: What of it.
        grid: Of the map.
        box: Pixels; the values may depend on it.
        patience: For addresses on a network.

    Returns:
        By band: (H, W).

    Raises:
        UnreadableRasterError: A file cannot be read, now or for good.
    """

    def attempt(**options: str) -> dict[str, NDArray[Any]]:
        with _hold_environment(options):
            return _load(item, load, grid, box)

    return _try_patiently(attempt, item, load, patience)


def _load(item: pystac.Item, load: Load, grid: Grid, box: Box) -> dict[str, NDArray[Any]]:
    import odc.stac  # takes a second: dask and xarray come with it
    from odc.geo.geobox import GeoBox

    geobox = GeoBox(box.shape, grid.transform(box), grid.crs)
    dataset = odc.stac.load(
        [item],
        bands=list(load.bands),
        geobox=geobox,
        groupby="id",
        resampling="nearest",
        dtype=load.dtype,
        nodata=load.nodata,
        fail_on_error=True,
    )
    return {band: dataset[band].values[0] for band in load.bands}


@contextmanager
def _hold_environment(options: dict[str, str]) -> Iterator[None]:
    """Set GDAL's options for this thread, and leave it as it was."""
    for name in _OUTSPOKEN:
        logging.getLogger(name).addFilter(_silence)  # once: a logger has no filter twice
    _ignore_nowhere()
    had_environment = rasterio.env.hasenv()
    _own_thread.is_loading = True
    try:
        with rasterio.Env(**_GDAL, **options):
            yield
    finally:
        _own_thread.is_loading = False
        if not had_environment and rasterio.env.hasenv():
            rasterio.env.delenv()


def _ignore_nowhere() -> None:
    """Ignore rasterio's warning of rasters without a place, for good.

    When it warps, rasterio makes one, and ignores its own warning for that moment; but warnings
    are a matter of the whole process, and another thread's moment may end just then.
    """
    known = ((entry[0], entry[2]) for entry in list(warnings.filters))
    if ("ignore", NotGeoreferencedWarning) not in known:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)


def _try_patiently(
    attempt: Callable[..., dict[str, NDArray[Any]]],
    item: pystac.Item,
    load: Load,
    patience: Patience,
) -> dict[str, NDArray[Any]]:
    options: dict[str, str] = {}
    for n_tries in range(1, patience.tries + 1):
        try:
            return attempt(**options)
        except (RasterioError, OSError) as error:
            band, told = _find_culprit(item, load, error)
            status = _ask_status(item.assets[band].href) if band else None
            if not _is_remote(item, load) or status in _GONE or n_tries == patience.tries:
                raise _explain(item, band, told, status) from None
        wait_s = patience.wait_s(n_tries)
        log.warning("item %s: %s; trying again in %g s", item.id, told, wait_s)
        # GDAL would answer from what it kept of the failure.
        hosts = {"/vsicurl/" + "/".join(a.href.split("/")[:3]) for a in item.assets.values()}
        options = {"CPL_VSIL_CURL_NON_CACHED": ":".join(sorted(hosts))}
        time.sleep(wait_s)
    raise AssertionError("patience.tries is 0")


def _is_remote(item: pystac.Item, load: Load) -> bool:
    return any("://" in item.assets[band].href for band in load.bands)


def _find_culprit(item: pystac.Item, load: Load, error: BaseException) -> tuple[str | None, str]:
    """Return the band whose file an error names, and what it says, without signatures."""
    texts = []
    cause: BaseException | None = error
    while cause is not None:
        texts.append(str(cause))
        cause = cause.__cause__
    told = redact("; ".join(texts)).replace("\n", " ")
    for band in load.bands:
        if redact(item.assets[band].href).rsplit("/", 1)[-1] in told:
            return band, told
    return (load.bands[0] if len(load.bands) == 1 else None), told


def _ask_status(address: str) -> int | None:
    """Return what a server answers for an address, which GDAL does not tell; None = nothing."""
    if not address.startswith(("http://", "https://")):
        return None
    request = Request(address, headers={"Range": "bytes=0-0"})  # noqa: S310
    try:
        with urlopen(request, timeout=20) as answer:  # noqa: S310
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code
    except (URLError, OSError, ValueError):
        return None


def _explain(
    item: pystac.Item, band: str | None, told: str, status: int | None
) -> UnreadableRasterError:
    href = redact(item.assets[band].href) if band else "one of its assets"
    got = f"status {status}, {_GONE[status]}" if status in _GONE else told
    remedy = "run the same command again, or take the item out"
    if status in (401, 403):
        remedy = "if its signature has expired, sign or search the items again"
    elif status in _GONE:
        remedy = "mend its address, or take the item out"
    return UnreadableRasterError(
        f"expected a raster, got {got}, at item {item.id}: {href}; {remedy}"
    )
