"""What is costly to make, kept while it is asked for again and again."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class Kept(Generic[KeyT, ValueT]):
    """The values that were asked for last, each made once, however many threads ask.

    One that cannot be made is not kept: whoever asks later tries again.
    """

    def __init__(self, make: Callable[[KeyT], ValueT], most: int) -> None:
        """Keep nothing yet.

        Args:
            make: Makes the value of a key; it is not to be changed.
            most: Values that are kept, 1 or more.
        """
        self._make = make
        self._most = most
        self._values: OrderedDict[KeyT, Future[ValueT]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: KeyT) -> ValueT:
        """Return a value; waits where another thread is making it.

        Raises:
            Exception: What `make` raises.
        """
        with self._lock:
            found = self._values.get(key)
            future = self._values.setdefault(key, found or Future())
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        if found is not None:
            return found.result()
        try:
            future.set_result(self._make(key))
        except BaseException as error:
            with self._lock:
                if self._values.get(key) is future:
                    del self._values[key]
            future.set_exception(error)
            raise
        return future.result()
