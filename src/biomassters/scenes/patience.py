"""How long a raster that cannot be read is tried."""

from typing import NamedTuple


class Patience(NamedTuple):
    """How long a raster that cannot be read is tried.

    Attributes:
        tries: In all, of a raster over a network; a local one is tried once.
        first_wait_s: Before the second; each further wait is twice the one before.
        longest_wait_s: At most.
    """

    tries: int = 6
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0

    def wait_s(self, n_tries: int) -> float:
        """Return the wait after so many tries that failed, 1 or more."""
        return min(self.first_wait_s * 2.0 ** (n_tries - 1), self.longest_wait_s)
