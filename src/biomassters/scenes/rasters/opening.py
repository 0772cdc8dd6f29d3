"""Opening a scene of rasters: all that can be wrong with it is found before any work."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from rasterio.io import DatasetReader
from tqdm import tqdm

from biomassters.errors import SceneError, name_few
from biomassters.fingerprint.digest import digest_facts
from biomassters.scenes.grid import Box, Grid
from biomassters.scenes.patience import Patience
from biomassters.scenes.radiometry import Samples, check_radiometry, refuse_findings
from biomassters.scenes.rasters.addresses import Address
from biomassters.scenes.rasters.claims import find_mixed_years, gather_claims
from biomassters.scenes.rasters.description import RasterDescription, RasterEntry, fill_template
from biomassters.scenes.rasters.files import RasterFiles
from biomassters.scenes.rasters.headers import RasterHeader, check_place, find_offset, read_header
from biomassters.scenes.rasters.sampling import Lattice
from biomassters.scenes.rasters.scene import RasterScene, Source
from biomassters.scenes.rasters.values import make_rule
from biomassters.store.bands import BANDS, MONTHS

HEADER_THREADS: Final = 8
SAMPLE_SIDE: Final = 48
"""Of the boxes whose pixels are looked at."""
SAMPLE_PLACES: Final = 3
"""By row and by column, over the scene."""


class _Listed(NamedTuple):
    """A file that the YAML names."""

    month: int
    entry: RasterEntry
    address: Address


def open_raster_scene(
    description: RasterDescription,
    path: Path,
    *,
    patience: Patience | None = None,
    check: bool = True,
) -> RasterScene:
    """Open a scene of rasters, and check it: files, headers, extents, years and radiometry.

    Args:
        description: What its YAML says.
        path: The YAML, whose folder relative paths begin at.
        patience: With rasters that cannot be read; None = the usual one.
        check: Whether its pixels are looked at, which reads nine boxes of 48 x 48 of each file.

    Raises:
        UnreadableRasterError: A raster cannot be read.
        SceneError: It is not described as it is, or is not what models know.
    """
    grid = description.lay_grid(str(path))
    listed = _list_files(description, path)
    _refuse_missing(listed, path)
    files = RasterFiles(patience)
    headers = _read_headers(files, listed)
    sources = _make_sources(description, grid, listed, headers, path)
    _refuse_apart(grid, sources, path)
    accept = description.radiometry.accept
    refuse_findings(find_mixed_years(sources, description), f"{path}: radiometry", accept)
    scene = RasterScene(
        path.stem,
        grid,
        _identify(description, sources),
        description.period,
        _list_bands(sources),
        sources,
        files,
    )
    if check:
        claims = gather_claims(sources)
        check_radiometry(sample_scene(scene), f"{path}: radiometry", accept, claims)
    return scene


def sample_scene(scene: RasterScene) -> Samples:
    """Return the values of pixels from nine places of a scene, evenly spread."""
    boxes = list_sample_boxes(scene.grid.extent)
    parts = [scene.measure(box) for box in boxes]
    s1, s2 = (
        np.concatenate([array.reshape(*array.shape[:2], -1) for array in arrays], axis=2)
        for arrays in zip(*parts, strict=True)
    )
    return Samples(s1, s2)


def list_sample_boxes(extent: Box) -> list[Box]:
    """Return the places of a scene whose pixels are looked at."""
    boxes = []
    for row in _spread(extent.row, extent.height):
        for column in _spread(extent.column, extent.width):
            part = Box(row, column, SAMPLE_SIDE, SAMPLE_SIDE).intersect(extent)
            if part is not None:
                boxes.append(part)
    return boxes


def _spread(start: int, length: int) -> Sequence[int]:
    last = max(length - SAMPLE_SIDE, 0)
    starts = [round(last * (n + 0.5) / SAMPLE_PLACES) for n in range(SAMPLE_PLACES)]
    apart = [at for n, at in enumerate(starts) if n == 0 or at >= starts[n - 1] + SAMPLE_SIDE]
    return [start + at for at in apart]


def _list_files(description: RasterDescription, path: Path) -> list[_Listed]:
    listed = []
    for entry in description.rasters:
        for month in entry.month_numbers:
            for file in entry.files:
                name = fill_template(file, month, description.year)
                listed.append(_Listed(month, entry, Address.parse(name, path.parent)))
    return listed


def _refuse_missing(listed: Iterable[_Listed], path: Path) -> None:
    missing = [
        f"{one.address.written} ({MONTHS[one.month]})"
        for one in listed
        if not one.address.is_remote and not Path(one.address.gdal).is_file()
    ]
    if missing:
        raise SceneError(
            f"expected the files of all months that are not declared as absent, got none of"
            f" {name_few(missing)}, at {path}: rasters; mend `files`, or write"
            " `absent: [MONTH, ...]` beside them"
        )


def _read_headers(files: RasterFiles, listed: Sequence[_Listed]) -> list[RasterHeader]:
    def read(one: _Listed) -> RasterHeader:
        size = (0, 0)
        if not one.address.is_remote:
            facts = Path(one.address.gdal).stat()
            size = facts.st_size, facts.st_mtime_ns
        header = files.use(one.address, lambda dataset: _read(dataset, one))
        return header._replace(size=size)

    with ThreadPoolExecutor(HEADER_THREADS) as pool:
        return list(
            tqdm(
                pool.map(read, listed),
                total=len(listed),
                desc="headers",
                unit="file",
                disable=None if len(listed) > 50 else True,
            )
        )


def _read(dataset: DatasetReader, one: _Listed) -> RasterHeader:
    header = read_header(dataset)
    check_place(header, one.address)
    return header


def _make_sources(
    description: RasterDescription,
    grid: Grid,
    listed: Sequence[_Listed],
    headers: Sequence[RasterHeader],
    path: Path,
) -> list[Source]:
    lattice = Lattice(grid)
    sources = []
    for (month, entry, address), header in zip(listed, headers, strict=True):
        conversion = description.convert(entry)
        rule = make_rule(header, entry.sensor, entry.bands, conversion, address.shown)
        offset = find_offset(header, grid)
        try:
            points = 1 if offset else lattice.count_points(header)
        except SceneError as error:
            raise SceneError(f"{error}, at {address.shown} ({path})") from None
        cover = Box(*offset, *header.shape) if offset else lattice.cover(header)
        sources.append(Source(month, address, header, rule, cover, points, offset is not None))
    return sources


def _refuse_apart(grid: Grid, sources: Sequence[Source], path: Path) -> None:
    """Refuse a scene whose rasters all lie elsewhere."""
    if any(source.cover.intersect(grid.extent) for source in sources):
        return
    extents = [
        f"{source.address.shown}: {', '.join(f'{value:.6g}' for value in source.header.bounds)}"
        for source in sources
    ]
    bounds = ", ".join(f"{value:.6g}" for value in grid.bounds(grid.extent))
    raise SceneError(
        f"expected rasters within the bounds {bounds} of {grid.crs}, got none; theirs are (west,"
        f" south, east, north in their CRS) {name_few(extents, 3)}, at {path}: bounds; mend bounds"
        " or files"
    )


def _list_bands(sources: Iterable[Source]) -> tuple[str, ...]:
    first = {"S1": 0, "S2": 4}
    known = {first[source.rule.sensor] + n for source in sources for n in source.rule.indices}
    return tuple(BANDS[n] for n in sorted(known))


def _identify(description: RasterDescription, sources: Iterable[Source]) -> str:
    """Return 16 hex digits over all that decides the pixels; not over a signature or `accept`."""
    facts = [
        [
            source.month,
            source.address.stable,
            source.rule,
            str(source.header._replace(tags={}, units=(), names=())),
        ]
        for source in sources
    ]
    grid = [description.crs, description.bounds, description.resolution, description.start]
    return digest_facts([grid, facts])
