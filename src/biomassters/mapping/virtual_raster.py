"""A map as one raster: a GDAL VRT over the tiles that are there, which copies no pixel.

Source: GDAL's documentation of the VRT driver.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import rasterio

from biomassters.mapping.layout import FINGERPRINT_TAG
from biomassters.prediction.maps import BANDS, UNITS
from biomassters.processes.writing import write_whole
from biomassters.scenes.grid import Box, Grid

VRT: Final = "map.vrt"
"""The file's name in the folder of a map."""

OF_TILES: Final = (FINGERPRINT_TAG, "AREA_OR_POINT")
"""Tags that are not the map's."""


def write_vrt(folder: Path, grid: Grid, tiles: Sequence[tuple[Path, Box]]) -> Path:
    """Write a map's VRT, whole or not at all.

    Where no tile lies, it is nodata. What the bands are, and the map's tags, are those of the
    first tile. Reading it coarsely reads the tiles' overviews.

    Law: equal arguments give equal bytes, in whatever order the tiles are.

    Args:
        folder: The map's.
        grid: The map's pixels.
        tiles: Those that are there, within the folder.

    Returns:
        The file.
    """
    tiles = sorted(tiles, key=lambda tile: (tile[1].row, tile[1].column))
    n_bands, tags, block = _read_facts(tiles)
    height, width = grid.extent.shape
    root = Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    _add(root, "SRS", grid.crs)
    _add(root, "GeoTransform", ", ".join(map(repr, grid.transform(grid.extent).to_gdal())))
    metadata = SubElement(root, "Metadata")
    for key, value in sorted(tags.items()):
        _add(metadata, "MDI", value, key=key)
    for number, description in enumerate(BANDS[:n_bands], start=1):
        band = SubElement(
            root,
            "VRTRasterBand",
            {"dataType": "Float32", "band": str(number), **_name_sides("block{}Size", block)},
        )
        _add(band, "Description", description)
        _add(band, "UnitType", UNITS)
        _add(band, "NoDataValue", "nan")
        _add(band, "ColorInterp", "Gray" if number == 1 else "Undefined")
        for path, box in tiles:
            name = path.relative_to(folder).as_posix()
            _add_source(band, number, name, box, grid.extent, block)
    indent(root)
    path = folder / VRT
    write_whole(path, tostring(root) + b"\n")
    return path


def count_bands(tiles: Sequence[tuple[Path, Box]]) -> int:
    """Return the bands that each of a map's tiles has; 1 where there is none."""
    return _read_facts(tiles)[0]


def _read_facts(
    tiles: Sequence[tuple[Path, Box]],
) -> tuple[int, Mapping[str, str], tuple[int, int]]:
    """Return the number of bands, the map's tags, and the height and width of blocks."""
    if not tiles:
        return 1, {}, (256, 256)
    with rasterio.open(tiles[0][0]) as raster:
        tags = {key: value for key, value in raster.tags().items() if key not in OF_TILES}
        return raster.count, tags, raster.block_shapes[0]


def _add_source(
    band: Element, number: int, name: str, box: Box, extent: Box, block: tuple[int, int]
) -> None:
    """Add a tile to a band; its facts spare GDAL the opening of all tiles."""
    source = SubElement(band, "ComplexSource", resampling="average")
    _add(source, "SourceFilename", name, relativeToVRT="1")
    _add(source, "SourceBand", str(number))
    SubElement(
        source,
        "SourceProperties",
        {
            **_name_sides("Raster{}Size", box.shape),
            "DataType": "Float32",
            **_name_sides("Block{}Size", block),
        },
    )
    size = _name_sides("{}Size", box.shape, "xy")
    SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
    row, column = box.row - extent.row, box.column - extent.column
    SubElement(source, "DstRect", {"xOff": str(column), "yOff": str(row), **size})
    _add(source, "NODATA", "nan")


def _add(parent: Element, tag: str, text: str, **attributes: str) -> None:
    SubElement(parent, tag, attributes).text = text


def _name_sides(pattern: str, shape: tuple[int, int], axes: str = "XY") -> dict[str, str]:
    """Return attributes for the width and the height of a shape."""
    height, width = shape
    return {pattern.format(axes[0]): str(width), pattern.format(axes[1]): str(height)}
