"""A map by the workers of a Dask cluster: tiles as tasks, which survive the loss of a worker.

Workers see the same files under the same paths (a shared disk), and have this project installed.
"""

import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from biomassters.errors import BusyError, SceneError
from biomassters.mapping.job import MapJob, Mapper, open_mapper
from biomassters.mapping.making import Outcome, make_tiles
from biomassters.scenes.grid import Box

CONNECT_S: Final = 20
"""That a scheduler may take to answer."""

RETRIES: Final = 3
"""Of a task that fails, but for its rasters; that of a lost worker is done again anyway."""

_LOCK: Final = threading.Lock()
"""A worker with several threads makes one tile at a time: models are opened once, and use all."""


def make_with_dask(
    job: MapJob, tiles: Sequence[Box], address: str, memory: int | None, fingerprint: str
) -> Iterator[Outcome]:
    """Make tiles as tasks of a Dask cluster; yield them as they are done.

    Args:
        job: What to make.
        tiles: Which are to be made.
        address: The scheduler's, such as tcp://scheduler:8786.
        memory: Of each worker, bytes; None = by default.
        fingerprint: The map's, which each worker must come to as well.

    Raises:
        BusyError: There is no scheduler, or workers were lost again and again.
        SceneError: A worker sees another scene, other models or other code.
    """
    from distributed import Client, KilledWorker, as_completed

    try:
        client = Client(address, timeout=CONNECT_S)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:  # a time-out is one
        raise BusyError(
            f"expected a Dask scheduler, got {type(error).__name__}: {error}, at {address}; start"
            " one (docs/maps.md), or mend --dask"
        ) from None
    with client:
        located = job.locate()
        futures = [
            client.submit(
                _make_tile, located, box, memory, fingerprint, retries=RETRIES, pure=False
            )
            for box in tiles
        ]
        try:
            for future in as_completed(futures):  # type: ignore[no-untyped-call]
                yield future.result()
        except KilledWorker as error:
            raise BusyError(
                f"expected workers that stay, got {error}, at {address}; give them more memory, and"
                " run the same command again, which makes what is missing"
            ) from None
        finally:
            client.cancel(futures)  # type: ignore[no-untyped-call]


def _make_tile(job: MapJob, box: Box, memory: int | None, fingerprint: str) -> Outcome:
    with _LOCK:
        mapper = _open_once(job)
        if mapper.fingerprint != fingerprint:
            raise SceneError(
                f"expected the map {fingerprint}, got {mapper.fingerprint}, at a Dask worker; give"
                " all workers the same version of this project, the same scene and the same models"
            )
        return next(make_tiles(mapper, [box], memory=memory), Outcome())


@lru_cache(maxsize=1)
def _open_once(job: MapJob) -> Mapper:
    return open_mapper(job)
