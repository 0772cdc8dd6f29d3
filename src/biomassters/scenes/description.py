"""What every scene's YAML has, and the YAML of simulated scenes.

What `rasters` and `stac` have beside it is in their packages; `opening` puts them together.
"""

from typing import Annotated, Literal

from pydantic import Field

from biomassters.params.sections import Positive, Section
from biomassters.scenes.grid import Grid
from biomassters.store.bands import PIXEL_SIZE_M

Bounds = Annotated[tuple[float, float, float, float], Field(strict=False)]


class SceneDescription(Section):
    """What all scenes have.

    Attributes:
        crs: Of the map, such as EPSG:3067.
        bounds: West, south, east and north of the map, in the CRS's unit.
        resolution: Side of a pixel in that unit; models are trained on 10 m.
    """

    crs: str
    bounds: Bounds
    resolution: Positive = float(PIXEL_SIZE_M)

    def lay_grid(self, where: str) -> Grid:
        """Return the map's pixels.

        Raises:
            SceneError: There is no such CRS, or nothing within the bounds.
        """
        return Grid.from_bounds(self.crs, self.resolution, self.bounds, where)


class SyntheticDescription(SceneDescription):
    """A simulated landscape, to try everything with.

    Attributes:
        landscape: Any name; another one is another landscape.
        year: Of its September, for the map's tags.
    """

    source: Literal["synthetic"]
    landscape: str = Field(min_length=1)
    year: int = Field(ge=1, le=9998)
