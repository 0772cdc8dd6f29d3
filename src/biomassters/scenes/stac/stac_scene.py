"""Scenes of STAC items: opened, checked, and read block by block."""

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from biomassters.fingerprint.digest import digest_facts
from biomassters.scenes.grid import Box, Grid
from biomassters.scenes.kept import Kept
from biomassters.scenes.patience import Patience
from biomassters.scenes.scene import BYTES_PER_PIXEL, Pixels, make_nodata
from biomassters.scenes.stac.acquisitions import (
    CLOUDS,
    Acquisition,
    S1Acquisition,
    S2Acquisition,
    list_acquisitions,
)
from biomassters.scenes.stac.compositing import (
    ClearestPixels,
    MeanPower,
    grade_clouds,
    to_power,
    to_reflectance,
)
from biomassters.scenes.stac.description import StacDescription
from biomassters.scenes.stac.loading import BLOCK, PATIENCE, Load, load_block
from biomassters.scenes.stac.pixel_checks import check_s1, check_s2
from biomassters.scenes.stac.search_results import read_items
from biomassters.scenes.stac.selection import select_acquisitions
from biomassters.store.bands import BANDS, CLP, N_MONTHS, S2_BANDS, S2_STORED_NODATA

KEPT: Final = 8
"""Composited blocks, of 24 MB each: neighbouring boxes share some, which take seconds to make."""

_VERSION: Final = 1
"""Of how months are made: another one makes other pixels of the same items."""

_DIRECTIONS: Final = {True: "ascending", False: "descending"}


class StacScene:
    """A scene that is open, as `scene.Scene` has it.

    Attributes:
        name: Of its file, without `.yaml`.
        grid: Its pixels.
        identity: 16 hex digits over its description and its items.
        period: Its first and its last day.
        bands: The names of the bands that it has in any month.
    """

    def __init__(
        self,
        path: Path,
        grid: Grid,
        description: StacDescription,
        s1: Sequence[S1Acquisition],
        s2: Sequence[S2Acquisition],
        patience: Patience,
    ) -> None:
        self.name = path.stem
        self.grid = grid
        self.identity = _identify(description, [*s1, *s2])
        self.period = f"{description.year}-09-01", f"{description.year + 1}-08-31"
        self.bands = _list_bands(s1, s2)
        self._description = description
        self._s1 = s1
        self._s2 = s2
        self._patience = patience
        self._blocks = Kept(self._composite, KEPT)

    @property
    def kept_bytes(self) -> int:
        """Memory that it keeps between reads, at most."""
        return KEPT * BYTES_PER_PIXEL * BLOCK**2

    def read(self, box: Box) -> Pixels:
        """Read a box; pixels beyond the scene's data are nodata.

        Law: a pixel has the same values in whatever box it is read: those of its block.

        Raises:
            UnreadableRasterError: A raster cannot be read, for now or for good.
        """
        pixels = make_nodata(box)
        for part in box.split(BLOCK):
            block = part.find_square(BLOCK)
            (rows, columns), place = part.within(box), part.within(block)
            for image, values in zip(pixels, self._blocks.get(block).cut(*place), strict=True):
                image[..., rows, columns] = values
        return pixels

    def _composite(self, block: Box) -> Pixels:
        """Make a block of the lattice."""
        pixels = make_nodata(block)
        for month in range(N_MONTHS):
            for bands, values in self._composite_s1(block, month):
                pixels.s1[month, bands] = values
            s2 = self._composite_s2(block, month)
            if s2 is not None:
                pixels.s2[month] = s2
        return pixels

    def _composite_s1(self, block: Box, month: int) -> Iterable[tuple[slice, NDArray[np.int16]]]:
        """Yield the bands of each orbit, and their month, (2, H, W), as stored."""
        for is_ascending, bands in ((True, slice(0, 2)), (False, slice(2, 4))):
            found = [
                acquisition
                for acquisition in self._s1
                if acquisition.month == month
                and acquisition.is_ascending == is_ascending
                and acquisition.touches(self.grid, block)
            ]
            mean = MeanPower((2, *block.shape))
            for _, swath in groupby(found, key=lambda acquisition: acquisition.swath):
                mean.add(self._join_swath(list(swath), block))
            if found:
                yield bands, mean.to_stored()

    def _join_swath(self, swath: list[S1Acquisition], block: Box) -> NDArray[np.float32]:
        """Return the linear power of a pass, (2, H, W), NaN = nodata; the first item wins."""
        power = np.full((2, *block.shape), np.nan, np.float32)
        for acquisition in swath:
            load = Load(acquisition.bands, "float32", math.nan)
            loaded = load_block(acquisition.item, load, self.grid, block, self._patience)
            for index, band in enumerate(("VV", "VH")):
                if band in loaded:
                    values = to_power(loaded[band], self._description.s1.unit)
                    np.copyto(power[index], values, where=np.isnan(power[index]))
        return power

    def _composite_s2(self, block: Box, month: int) -> NDArray[np.uint16] | None:
        """Return a month, (11, H, W), as stored; None = nothing was acquired."""
        found = [
            acquisition
            for acquisition in self._s2
            if acquisition.month == month and acquisition.touches(self.grid, block)
        ]
        if not found:
            return None
        clearest = ClearestPixels(block.shape)
        for acquisition in found:
            clouds, probability = self._grade(acquisition, block)
            if clearest.may_gain(clouds):  # else its ten bands need not be read
                clearest.add(self._read_reflectance(acquisition, block), clouds, probability)
        return clearest.s2

    def _grade(
        self, acquisition: S2Acquisition, block: Box
    ) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
        if acquisition.clouds == "none":
            clouds = np.zeros(block.shape, np.float32)
            probability = np.full(block.shape, S2_STORED_NODATA, np.uint16)
        else:
            load = Load((CLOUDS,), "uint8", 0)
            loaded = load_block(acquisition.item, load, self.grid, block, self._patience)
            clouds, probability = grade_clouds(loaded[CLOUDS], acquisition.clouds)
        if self._description.s2.clearest == "image":
            cover = min(acquisition.cover, 101.0)
            clouds = np.where(np.isfinite(clouds), np.float32(cover), np.float32(np.inf))
        return clouds, probability

    def _read_reflectance(self, acquisition: S2Acquisition, block: Box) -> NDArray[np.uint16]:
        scale = self._description.s2.scale
        load = Load(acquisition.bands, "uint16" if scale == 1 else "float32", 0)
        loaded = load_block(acquisition.item, load, self.grid, block, self._patience)
        reflectance = np.full((CLP, *block.shape), S2_STORED_NODATA, np.uint16)
        for band, values in loaded.items():
            reflectance[S2_BANDS.index(band)] = to_reflectance(values, scale, acquisition.offset)
        return reflectance


def open_stac_scene(
    description: StacDescription, path: Path, *, patience: Patience | None = None
) -> StacScene:
    """Open a scene of STAC items, and check it before work.

    Args:
        description: What its YAML says.
        path: The YAML; its `items` count from its folder.
        patience: For addresses on a network.

    Raises:
        SceneError: Its items are not what they must be; the message says what to write.
        UnreadableRasterError: A raster of the sample that is looked at cannot be read.
    """
    where = str(path)
    patience = patience or PATIENCE
    grid = description.lay_grid(where)
    files = [path.parent / name for name in description.items]
    items = [(item, file) for file in files for item in read_items(file)]
    found = list_acquisitions(items, description, grid, where)
    s1, s2 = select_acquisitions(found, description.year, grid, where)
    check_s1(s1, description, grid, where, patience)
    check_s2(s2, description, grid, where, patience)
    return StacScene(path, grid, description, s1, s2, patience)


def _list_bands(s1: Sequence[S1Acquisition], s2: Sequence[S2Acquisition]) -> tuple[str, ...]:
    present = {f"{band} {_DIRECTIONS[a.is_ascending]}" for a in s1 for band in a.bands}
    present |= {band for a in s2 for band in a.bands}
    present |= {"CLP" for a in s2 if a.clouds != "none"}
    return tuple(band for band in BANDS if band in present)


def _identify(description: StacDescription, acquisitions: Iterable[Acquisition]) -> str:
    of_items = [acquisition.facts for acquisition in acquisitions]
    return digest_facts([_VERSION, BLOCK, description.model_dump(mode="json"), of_items])
