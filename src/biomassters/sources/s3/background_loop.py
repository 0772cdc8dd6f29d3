"""An event loop in a thread of its own, so that transfers go on while this thread computes.

Knows how to start and end it; knows nothing of what runs in it.
"""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

Result = TypeVar("Result")


class BackgroundLoop:
    """Runs coroutines until its `with` block ends; what still runs then is cancelled."""

    def __init__(self) -> None:
        # A daemon: an interrupted process never waits for the network.
        self._thread = threading.Thread(target=self._run, name="transfers", daemon=True)
        self._is_ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event

    def submit(self, coroutine: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Start a coroutine."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def __enter__(self) -> "BackgroundLoop":
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
