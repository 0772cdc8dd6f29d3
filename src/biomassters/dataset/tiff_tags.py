"""What the first directory of a TIFF declares, looked at before GDAL opens the file.

Knows the layout of TIFF and BigTIFF directories, and of the tags no more than which may be long.
It is read here because GDAL acts on tags while it opens a file: before it can be asked what they
say, it has spent the time, or rasterio has printed what nobody can catch.

Of the further directories (overviews, masks) only a mask concerns a chip's pixels.
"""

import struct
from typing import Final, NamedTuple

LARGEST_TAG_BYTES: Final = 2**16
"""Of any tag but those that say where the pixels lie.

GDAL takes time that grows with the square of the number of metadata items: 5 s for 1.4 MB of them.
"""
BLOCK_TAGS: Final = frozenset({273, 279, 324, 325})
"""StripOffsets, StripByteCounts, TileOffsets and TileByteCounts.

Source: TIFF 6.0, sections 3 and 15.
"""
TEXT_TAGS: Final = frozenset({34737, 42112, 42113})
"""GeoAsciiParams, GDAL_METADATA and GDAL_NODATA, which GDAL repeats in its messages.

Of a message that is not UTF-8 rasterio prints a traceback, which nothing can catch.
Source: OGC GeoTIFF 1.1, 7.1.2; gdal.org/drivers/raster/gtiff.html.
"""
LARGEST_DIRECTORY: Final = 4096
"""Tags of a directory, as libtiff has it."""
MOST_DIRECTORIES: Final = 32
"""Of a file among whose directories a mask is looked for: GDAL then looks at them all."""
SUBFILE_TYPE: Final = 254
"""What a directory is; with the bit `MASK`, a mask of the image.

Source: TIFF 6.0, section 8 (NewSubfileType).
"""
MASK: Final = 4
TILE_TAGS: Final = (322, 323)
"""TileWidth and TileLength."""
TYPE_BYTES: Final = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Size of a value by the number of its type; that of all others is 1.

Source: TIFF 6.0, section 2; BigTIFF (libtiff.gitlab.io/libtiff/specification/bigtiff.html).
"""


_INTEGERS: Final = {3: "H", 4: "I", 16: "Q"}


class _Layout(NamedTuple):
    """How a kind of file writes its directory.

    Attributes:
        offset: Where the directory begins, 4 or 8 bytes.
        offset_at: Where the file says so.
        length: The number of tags.
        tag: Its number, its type, the number of its values; then the values or their place.
    """

    offset: struct.Struct
    offset_at: int
    length: struct.Struct
    tag: struct.Struct


def _lay_out(order: str, offset: str, offset_at: int, length: str, tag: str) -> _Layout:
    offset_layout, length_layout, tag_layout = (
        struct.Struct(order + text) for text in (offset, length, tag)
    )
    return _Layout(offset_layout, offset_at, length_layout, tag_layout)


# As the fields of `_Layout`: places and counts have 4 bytes in TIFF, 8 in BigTIFF.
_CLASSIC: Final = ("I", 4, "H", "HHI4s")
_BIG: Final = ("Q", 8, "Q", "HHQ8s")
# The byte order by its letters, then 42 or, of BigTIFF, 43 as a number of that order.
_LAYOUTS: Final = {
    b"II*\0": _lay_out("<", *_CLASSIC),
    b"MM\0*": _lay_out(">", *_CLASSIC),
    b"II+\0": _lay_out("<", *_BIG),
    b"MM\0+": _lay_out(">", *_BIG),
}


def find_fault(data: bytes) -> str | None:
    """Return what is wrong with a file's first directory, or None.

    A file of another format, or one that ends too early, is such a fault; so are a tag of more
    bytes than any sound chip file has, and text that is none. The file's other directories are
    not looked at.
    """
    layout = _LAYOUTS.get(data[:4])
    if layout is None:
        return f"a file that begins with {data[:8]!r}"
    try:
        (start,) = layout.offset.unpack_from(data, layout.offset_at)
        if start > len(data):
            return "one that ends before its directory"
        (n_tags,) = layout.length.unpack_from(data, start)
        if n_tags > LARGEST_DIRECTORY:
            return f"one of {n_tags} tags"
        start += layout.length.size
        end = start + n_tags * layout.tag.size
        if end > len(data):
            return "one that ends within its directory"
        for tag, kind, count, field in layout.tag.iter_unpack(data[start:end]):
            # Only the lists of blocks grow with the image, and they cannot be longer than the file.
            size = count * TYPE_BYTES.get(kind, 1)
            if size > (len(data) if tag in BLOCK_TAGS else LARGEST_TAG_BYTES):
                return f"one whose tag {tag} has {size} bytes"
            if tag in TEXT_TAGS:
                # What fits into the field stands in it; else it holds the place.
                (place,) = layout.offset.unpack(field)
                text = field[:size] if size <= len(field) else data[place : place + size]
                text.decode()
    except struct.error:
        return "one that ends before its directory"
    except UnicodeDecodeError:
        return "one with text that is not UTF-8"
    return None


def measure_mask_block(data: bytes) -> int:
    """Return the pixels of the largest block of a file's masks; 0 if it has none.

    Args:
        data: A file in whose first directory `find_fault` found nothing. Of one with more than
            `MOST_DIRECTORIES` directories no mask is known.
    """
    layout = _LAYOUTS[data[:4]]
    (start,) = layout.offset.unpack_from(data, layout.offset_at)
    seen, largest = set(), 0
    while start and start not in seen:
        seen.add(start)
        if len(seen) > MOST_DIRECTORIES:
            return 0
        try:
            (n_tags,) = layout.length.unpack_from(data, start)
            first = start + layout.length.size
            end = first + min(n_tags, LARGEST_DIRECTORY) * layout.tag.size
            tags = {
                tag: _read_integer(layout, kind, field)
                for tag, kind, _, field in layout.tag.iter_unpack(data[first:end])
            }
            (start,) = layout.offset.unpack_from(data, end)
        except struct.error:  # GDAL reads no further either
            return largest
        if tags.get(SUBFILE_TYPE, 0) & MASK:
            width, height = (tags.get(tag, 1) for tag in TILE_TAGS)  # a strip is within the image
            largest = max(largest, 1, width * height)
    return largest


def _read_integer(layout: _Layout, kind: int, field: bytes) -> int:
    """Return the first integer that stands in a tag's field; 0 of another type."""
    letter = _INTEGERS.get(kind)
    if letter is None or struct.calcsize(letter) > len(field):
        return 0
    order = layout.tag.format[0]
    return int(struct.unpack_from(order + letter, field)[0])
