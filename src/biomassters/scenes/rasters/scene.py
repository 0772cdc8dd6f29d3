"""A scene of rasters, open: boxes of it, read from many files.

Memory: a box takes 360 bytes a pixel for what is returned; while it is read, 75 more for one month,
and of one file the numbers and values of its window, some 12 bytes a pixel and band. Beside that,
whatever the scene's size, up to 64 MB of places in other CRSs (`sampling`), and GDAL's cache of
decoded blocks, which is 5 % of the machine's memory unless GDAL_CACHEMAX says otherwise.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window

from biomassters.dataset.files import FileError
from biomassters.errors import SceneError
from biomassters.packing.decoding import store_backscatter
from biomassters.scenes.grid import Box, Grid
from biomassters.scenes.rasters.addresses import Address
from biomassters.scenes.rasters.files import RasterFiles
from biomassters.scenes.rasters.headers import RasterHeader
from biomassters.scenes.rasters.sampling import (
    BLOCK,
    Lattice,
    average_points,
    find_window,
    interpolate,
    take_nearest,
)
from biomassters.scenes.rasters.values import ValueRule, convert, find_blank, to_decibels, to_power
from biomassters.scenes.scene import Pixels, make_nodata
from biomassters.store.bands import CLP, N_MONTHS, N_S1, N_S2, S2_STORED_NODATA

Array = NDArray[np.float32]


class Source(NamedTuple):
    """A file of a month.

    Attributes:
        month: 0 = September.
        address: Where it lies.
        header: What it says of itself.
        rule: What its numbers are.
        offset: Row and column of its first pixel on the map's lattice; None = it has another.
        points: That a pixel of the map takes from it, by row and by column.
    """

    month: int
    address: Address
    header: RasterHeader
    rule: ValueRule
    offset: tuple[int, int] | None
    points: int


class Measurements(NamedTuple):
    """The values of a box, before they are rounded; NaN = nodata.

    Attributes:
        s1: Backscatter, (12, 4, H, W), float32, dB.
        s2: Reflectance, DN, and cloud probability, percent, (12, 11, H, W), float32.
    """

    s1: Array
    s2: Array


class RasterScene:
    """A scene of rasters; see `scene.Scene`. It may be read by several threads at once.

    Attributes:
        name: Of its file, without `.yaml`.
        grid: Its pixels.
        identity: 16 hex digits over all that decides its pixels' values.
        period: Its first and its last day.
        bands: That it has in any month.
        sources: Its files; of those of a month the first has precedence.
    """

    def __init__(
        self,
        name: str,
        grid: Grid,
        identity: str,
        period: tuple[str, str],
        bands: tuple[str, ...],
        sources: Iterable[Source],
        files: RasterFiles,
    ) -> None:
        self.name = name
        self.grid = grid
        self.identity = identity
        self.period = period
        self.bands = bands
        self.sources = tuple(sources)
        self._files = files
        self._lattice = Lattice(grid)

    def read(self, box: Box) -> Pixels:
        """Read a box; pixels beyond the scene's data are nodata.

        Law: a pixel has the same values in whatever box it is read.

        Raises:
            UnreadableRasterError: A raster cannot be read, for now or for good.
            SceneError: A value is none that a radar can measure.
        """
        pixels = make_nodata(box)
        inside = box.intersect(self.grid.extent)
        if inside is None:
            return pixels
        place = inside.within(box)
        for month in range(N_MONTHS):
            s1, s2 = self._measure_month(inside, month)
            try:
                store_backscatter(s1, pixels.s1[month][:, *place])
            except FileError as fault:
                raise SceneError(
                    f"expected {fault.expected}, got {fault.got}, at {self._name_s1(month)}; if it"
                    " is no data, write `nodata:` beside `files`"
                ) from None
            store_reflectance(s2, pixels.s2[month][:, *place])
        return pixels

    def measure(self, box: Box) -> Measurements:
        """Read a box within the scene before rounding, as `read` does, to look at its values."""
        months = [self._measure_month(box, month) for month in range(N_MONTHS)]
        return Measurements(*(np.stack(arrays) for arrays in zip(*months, strict=True)))

    def close(self) -> None:
        """Close its files; they are opened again when it is read."""
        self._files.close()

    def _name_s1(self, month: int) -> str:
        names = (
            source.address.shown
            for source in self.sources
            if source.month == month and source.rule.sensor == "S1"
        )
        return ", ".join(names)

    def _measure_month(self, box: Box, month: int) -> tuple[Array, Array]:
        arrays = {
            "S1": np.full((N_S1, *box.shape), np.nan, np.float32),
            "S2": np.full((N_S2, *box.shape), np.nan, np.float32),
        }
        seen = {sensor: np.zeros(array.shape, np.bool_) for sensor, array in arrays.items()}
        for source in self.sources:
            sensor = source.rule.sensor
            if source.month == month and not seen[sensor][source.rule.indices].all():
                for part, values in self._read_source(source, box):
                    where = (slice(None), *part.within(box))
                    _lay(values, source.rule, arrays[sensor][where], seen[sensor][where])
        _drop_blank(arrays["S2"])
        return arrays["S1"], arrays["S2"]

    def _read_source(self, source: Source, box: Box) -> Iterator[tuple[Box, Array]]:
        """Yield parts of a box, and their values in a file, (C, h, w)."""
        if source.offset is None:
            parts = [box] if source.points == 1 else box.split(BLOCK // source.points)
            for part in parts:
                values = self._resample(source, part)
                if values is not None:
                    yield part, values
            return
        row, column = source.offset
        common = box.intersect(Box(row, column, *source.header.shape))
        if common is not None:
            window = Box(common.row - row, common.column - column, *common.shape)
            yield common, self._read_window(source, window)

    def _resample(self, source: Source, box: Box) -> Array | None:
        places = self._lattice.locate(box, source.header, source.points)
        window = find_window(places, source.header.shape)
        if window is None:
            return None
        values = self._read_window(source, window)
        if source.rule.sensor == "S1":
            power = to_power(values)
            if source.points == 1:
                return to_decibels(interpolate(power, window, places))
            taken = take_nearest(power, window, places)
            return to_decibels(average_points(taken, source.points))
        if source.points > 1:
            values[:, find_blank(values, source.rule)] = np.nan
        taken = take_nearest(values, window, places)
        return taken if source.points == 1 else average_points(taken, source.points)

    def _read_window(self, source: Source, window: Box) -> Array:
        bands = [rule.file_band for rule in source.rule.bands]
        place = Window(window.column, window.row, window.width, window.height)

        def read(dataset: DatasetReader) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
            numbers = dataset.read(bands, window=place)
            if not source.header.has_mask:
                return numbers, np.zeros(window.shape, np.bool_)
            return numbers, dataset.read_masks(bands[0], window=place) == 0

        return convert(*self._files.use(source.address, read), source.rule)


def store_reflectance(s2: Array, out: NDArray[np.uint16]) -> None:
    """Round reflectance and cloud probability to the store's units.

    Args:
        s2: DN and percent, of any shape; NaN = nodata. What is below 0 becomes 0.
        out: Gets the same, nodata as `bands.S2_STORED_NODATA`.
    """
    known = np.isfinite(s2)
    whole = np.clip(np.rint(np.where(known, s2, 0)), 0, S2_STORED_NODATA - 1)
    out[:] = np.where(known, whole, S2_STORED_NODATA).astype(np.uint16)


def _lay(values: Array, rule: ValueRule, into: Array, seen: NDArray[np.bool_]) -> None:
    """Put a file's values where none of an earlier file are; modifies `into` and `seen`.

    Args:
        values: Of the file, (C, H, W).
        rule: Whose bands these are.
        into: Of all bands of the sensor, (B, H, W).
        seen: Which of these are measured, not blank, (B, H, W).
    """
    blank = find_blank(values, rule)
    for value, band in zip(values, rule.indices, strict=True):
        fits = np.isfinite(value) & ~seen[band]
        free = fits & (~blank | ~np.isfinite(into[band]))
        into[band][free] = value[free]
        seen[band] |= free & ~blank


def _drop_blank(s2: Array) -> None:
    """Make nodata of pixels with no reflectance but 0, (11, H, W); modifies it."""
    reflectance = s2[:CLP]
    known = np.isfinite(reflectance)
    blank = known.any(axis=0) & ((reflectance == 0) | ~known).all(axis=0)
    s2[:, blank] = np.nan
