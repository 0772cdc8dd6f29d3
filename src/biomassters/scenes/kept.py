"""Blocks of the lattice that are costly to make, kept while boxes around them are read."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from biomassters.scenes.grid import Box
from biomassters.scenes.scene import Pixels


class KeptBlocks:
    """The blocks that were asked for last, each made once, however many threads ask.

    One that cannot be made is not kept: whoever asks later tries again.
    """

    def __init__(self, make: Callable[[Box], Pixels], most: int) -> None:
        """Keep nothing yet.

        Args:
            make: Makes a block; its pixels are not to be changed.
            most: Blocks that are kept, 1 or more.
        """
        self._make = make
        self._most = most
        self._blocks: OrderedDict[Box, Future[Pixels]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, block: Box) -> Pixels:
        """Return a block; waits where another thread is making it.

        Raises:
            Exception: What `make` raises.
        """
        with self._lock:
            found = self._blocks.get(block)
            future = self._blocks.setdefault(block, found or Future())
            self._blocks.move_to_end(block)
            while len(self._blocks) > self._most:
                self._blocks.popitem(last=False)
        if found is not None:
            return found.result()
        try:
            future.set_result(self._make(block))
        except BaseException as error:
            with self._lock:
                if self._blocks.get(block) is future:
                    del self._blocks[block]
            future.set_exception(error)
            raise
        return future.result()
