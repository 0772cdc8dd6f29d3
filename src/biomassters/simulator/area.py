"""What is simulated: a chip, or a part of an endless landscape."""

from dataclasses import dataclass
from typing import Protocol

from biomassters.simulator.noise import EndlessNoise, NoiseSource, Shape


class Area(Protocol):
    """Some pixels and the randomness of what is on them and over them."""

    @property
    def name(self) -> str:
        """Decides, with the place, what is simulated."""
        ...

    @property
    def shape(self) -> Shape:
        """Height and width, pixels of 10 m."""
        ...

    def open_noise(self, subject: str, *details: str) -> NoiseSource:
        """Return the random numbers of a subject, such as the land, or of a detail of it."""
        ...


@dataclass(frozen=True)
class ChipArea:
    """A square with a forest of its own.

    Attributes:
        name: The chip's id.
        size: Its side, pixels.
    """

    name: str
    size: int

    @property
    def shape(self) -> Shape:
        """Height and width, pixels of 10 m."""
        return self.size, self.size

    def open_noise(self, subject: str, *details: str) -> NoiseSource:
        """Return the random numbers of a subject, such as the land: others for another size."""
        return NoiseSource(subject, self.name, str(self.size), *details)


@dataclass(frozen=True)
class LandscapeArea:
    """A rectangle of an endless landscape.

    Attributes:
        name: The landscape's.
        origin: Its first row and column.
        shape: Height and width, pixels of 10 m.
    """

    name: str
    origin: Shape
    shape: Shape

    def open_noise(self, subject: str, *details: str) -> NoiseSource:
        """Return the random numbers of a subject, such as the land: the same for any rectangle."""
        return EndlessNoise(self.origin, "landscape", self.name, subject, *details)
