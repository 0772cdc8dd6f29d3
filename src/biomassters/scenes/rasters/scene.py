"""A scene of rasters, open: boxes of it, read from many files.

Memory: a box takes 360 bytes a pixel for what is returned, and about as much while it is read, for
one month and one file: of 1,024 x 1,024 pixels 790 MB in all, 890 MB where all files were in
another CRS (measured, with GDAL's cache of decoded blocks at 64 MB). Whatever the scene's size,
places in other CRSs take up to 64 MB beside that (`sampling`), and GDAL's cache 5 % of the
machine's memory unless GDAL_CACHEMAX says otherwise.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window

from biomassters.dataset.files import FileError
from biomassters.errors import SceneError, name_few
from biomassters.packing.decoding import store_backscatter
from biomassters.scenes.grid import Box, Grid
from biomassters.scenes.rasters.addresses import Address
from biomassters.scenes.rasters.files import RasterFiles
from biomassters.scenes.rasters.headers import RasterHeader
from biomassters.scenes.rasters.sampling import (
    BLOCK,
    KEPT_BYTES,
    Lattice,
    average_points,
    find_window,
    interpolate,
    take_nearest,
)
from biomassters.scenes.rasters.values import (
    BANDS_OF,
    ValueRule,
    convert,
    find_blank,
    to_decibels,
    to_power,
)
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
        cover: The pixels of the map that may lie in it.
        points: That a pixel of the map takes from it, by row and by column.
        is_plain: Whether its pixels are the map's, those of `cover`.
    """

    month: int
    address: Address
    header: RasterHeader
    rule: ValueRule
    cover: Box
    points: int
    is_plain: bool


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
        self._months = [[one for one in self.sources if one.month == n] for n in range(N_MONTHS)]
        self._files = files
        self._lattice = Lattice(grid)

    @property
    def kept_bytes(self) -> int:
        """Memory that it keeps between reads, at most: places in other CRSs."""
        return 0 if all(source.is_plain for source in self.sources) else KEPT_BYTES

    def read(self, box: Box) -> Pixels:
        """Read a box, also beyond the map's bounds; pixels beyond all files are nodata.

        Law: a pixel has the same values in whatever box it is read.

        Raises:
            UnreadableRasterError: A raster cannot be read, for now or for good.
            SceneError: A value is none that a radar can measure.
        """
        pixels = make_nodata(box)
        for month in range(N_MONTHS):
            s1 = self._measure(box, month, "S1")
            if s1 is not None:
                self._store_backscatter(s1, pixels.s1[month], month)
            s2 = self._measure(box, month, "S2")
            if s2 is not None:
                store_reflectance(s2, pixels.s2[month])
        return pixels

    def measure(self, box: Box) -> Measurements:
        """Read a box within the scene before rounding, as `read` does, to look at its values."""
        s1 = np.full((N_MONTHS, N_S1, *box.shape), np.nan, np.float32)
        s2 = np.full((N_MONTHS, N_S2, *box.shape), np.nan, np.float32)
        for month in range(N_MONTHS):
            for array, sensor in ((s1, "S1"), (s2, "S2")):
                values = self._measure(box, month, sensor)
                if values is not None:
                    array[month] = values
        return Measurements(s1, s2)

    def close(self) -> None:
        """Close its files; they are opened again when it is read."""
        self._files.close()

    def _store_backscatter(self, s1: Array, out: NDArray[np.int16], month: int) -> None:
        try:
            store_backscatter(s1, out)
        except FileError as fault:
            names = [source.address.shown for source in self._list_sources(month, "S1")]
            raise SceneError(
                f"expected {fault.expected}, got {fault.got}, at {name_few(names)}; if it is no"
                " data, write `nodata:` beside `files`"
            ) from None

    def _list_sources(self, month: int, sensor: str) -> list[Source]:
        return [source for source in self._months[month] if source.rule.sensor == sensor]

    def _measure(self, box: Box, month: int, sensor: str) -> Array | None:
        """Return a month's values, (B, H, W); None = there are none in the box."""
        laid: _Laid | None = None
        for source in self._list_sources(month, sensor):
            if laid is None or not laid.seen[source.rule.indices].all():
                for part, values in self._read_source(source, box):
                    laid = laid or _Laid(len(BANDS_OF[source.rule.sensor]), box)
                    laid.lay(values, source.rule, part)
        if laid is None:
            return None
        if sensor == "S2":
            _drop_blank(laid.values)
        return laid.values

    def _read_source(self, source: Source, box: Box) -> Iterator[tuple[Box, Array]]:
        """Yield parts of a box, and their values in a file, (C, h, w)."""
        common = box.intersect(source.cover)
        if common is None:
            return
        if source.is_plain:
            row, column = common.row - source.cover.row, common.column - source.cover.column
            yield common, self._read_window(source, Box(row, column, *common.shape))
            return
        for part in [common] if source.points == 1 else common.split(BLOCK // source.points):
            values = self._resample(source, part)
            if values is not None:
                yield part, values

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


class _Laid:
    """What the files of a month have of a box, one laid under the other.

    Attributes:
        values: Of all bands of the sensor, (B, H, W), NaN = nodata.
        seen: Which of these are measured, not blank, (B, H, W).
    """

    def __init__(self, n_bands: int, box: Box) -> None:
        self.box = box
        self.values = np.full((n_bands, *box.shape), np.nan, np.float32)
        self.seen = np.zeros(self.values.shape, np.bool_)
        self._begun: set[int] = set()

    def lay(self, values: Array, rule: ValueRule, part: Box) -> None:
        """Put a file's values, (C, h, w), where none of an earlier file are."""
        place = part.within(self.box)
        measured = ~find_blank(values, rule)
        for value, band in zip(values, rule.indices, strict=True):
            into, seen = self.values[band][place], self.seen[band][place]
            if band not in self._begun and part == self.box:
                into[:] = value
                np.logical_and(np.isfinite(value), measured, out=seen)
            else:
                free = np.isfinite(value) & ~seen & (measured | ~np.isfinite(into))
                np.copyto(into, value, where=free)
                seen |= free & measured
            self._begun.add(band)


def store_reflectance(s2: Array, out: NDArray[np.uint16]) -> None:
    """Round reflectance and cloud probability to the store's units.

    Args:
        s2: DN and percent, (11, H, W); NaN = nodata. What is below 0 becomes 0. Modified.
        out: Gets the same, nodata as `bands.S2_STORED_NODATA`.
    """
    for band, stored in zip(s2, out, strict=True):
        nodata = np.isnan(band)
        np.rint(band, out=band)
        np.clip(band, 0, S2_STORED_NODATA - 1, out=band)
        np.copyto(band, np.float32(S2_STORED_NODATA), where=nodata)
        stored[:] = band.astype(np.uint16)


def _drop_blank(s2: Array) -> None:
    """Make nodata of pixels with no reflectance but 0, (11, H, W); modifies it."""
    is_zero, has_any = np.ones((2, *s2.shape[1:]), np.bool_)
    has_any[:] = False
    for band in s2[:CLP]:
        known = np.isfinite(band)
        is_zero &= (band == 0) | ~known
        has_any |= known
    blank = is_zero & has_any
    if blank.any():
        s2[:, blank] = np.nan
