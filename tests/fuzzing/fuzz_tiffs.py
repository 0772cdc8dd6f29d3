"""A fuzzer of the TIFF gate.

    PYTHONPATH=src:tests/support python tests/fuzzing/fuzz_tiffs.py 100000

It runs in a process of its own, so that a crash within GDAL is seen; a test starts it. What it
prints at the end is a count of what came of the files, as JSON.
"""

import collections
import json
import re
import resource
import sys
import warnings

import numpy as np
from hostile_tiffs import KINDS, LETTERS, SIDE, Tag, build_tiff, draw_pixels, write_tiff
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rasterio.errors import NotGeoreferencedWarning

from biomassters.dataset.chip_tiffs import decode_chip_tiff, encode_chip_tiff, read_plain_tiff
from biomassters.dataset.declaration import follow_agbm, follow_s1, follow_s2
from biomassters.dataset.files import FileError

ONE_LINE = re.compile(r"expected .+, got .+")
LONGEST_MESSAGE = 500
OPTIONS = [
    {},
    {"compress": "deflate", "predictor": 2},
    {"compress": "lzw", "interleave": "band"},
    {"compress": "zstd", "tiled": True, "blockxsize": 16, "blockysize": 16},
    {"compress": "lzma"},
    {"compress": "packbits", "blockysize": 2},
    {"BIGTIFF": "YES", "compress": "deflate"},
    {"endianness": "big"},
    {"masked": True},
    {"masked": True, "compress": "deflate", "tiled": True, "blockxsize": 16, "blockysize": 16},
]
TAGS = [
    *(254, 255, 256, 257, 258, 259, 262, 266, 269, 270, 273, 274, 277, 278, 279, 280, 281, 282),
    *(284, 290, 301, 305, 317, 320, 322, 323, 324, 325, 330, 332, 333, 338, 339, 340, 347, 351),
    *(512, 513, 514, 529, 530, 531, 532, 700, 33432, 33550, 33723, 33922, 34264, 34377, 34665),
    *(34675, 34735, 34736, 34737, 34853, 37724, 42112, 42113, 50674, 50844, 50838, 50839, 65535),
]
NUMBERS = [0, 1, 2, 3, 4, 5, 7, 8, 10, 16, 17, 32, 64, 255, 256, 4096, 65535, 32767, 2**31 - 1]
FOLLOW = {"S1": follow_s1, "S2": follow_s2, "agbm": follow_agbm}
COMPRESSIONS = [1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34676, 34712, 34887, 34925, 50000, 50001]

found: collections.Counter[str] = collections.Counter()


def main() -> None:
    """Try the two kinds of files, half of the number each."""
    n_files = int(sys.argv[1])
    warnings.simplefilter("error")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        originals = make_originals()
    for kind, data in originals:
        try_file(kind, data)  # all that GDAL loads but once is loaded before memory is measured
    before = peak_bytes()
    profile = settings(
        max_examples=n_files // 2,
        database=None,
        deadline=None,
        derandomize=n_files < 10_000,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    profile(given(edit_bytes(originals))(try_one))()
    profile(given(build_from_tags())(try_one))()
    sys.stdout.write(json.dumps({**found, "grown": peak_bytes() - before}) + "\n")


def make_originals() -> list[tuple[str, bytes]]:
    """Return sound files by the kind of chip file that they are."""
    official = [(kind, encode_chip_tiff(draw_pixels(kind))) for kind in KINDS]
    integer = [options for options in OPTIONS if options.get("predictor") != 2]
    return official + [
        (kind, write_tiff(kind, **options))
        for kind in KINDS
        for options in (OPTIONS if kind == "S2" else integer)
    ]


def peak_bytes() -> int:
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def try_one(example: tuple[str, bytes]) -> None:
    """Take an example apart, for hypothesis to show it whole."""
    try_file(*example)


def try_file(kind: str, data: bytes) -> None:
    """Decode a file: an array as asked for, or one error of one line."""
    n_bands, dtype = KINDS[kind]
    plain = read_plain_tiff(data, n_bands=n_bands, dtype=dtype, chip_size=SIDE)
    try:
        raster = decode_chip_tiff(data, n_bands=n_bands, dtype=dtype, chip_size=SIDE)
        if raster.declared is not None:
            values = FOLLOW[kind](raster.bands, raster.declared)
            assert (values.shape, values.dtype) == (raster.bands.shape, raster.bands.dtype)
            found["declared"] += 1
    except FileError as error:
        message = str(error)
        assert ONE_LINE.fullmatch(message), message
        assert message.isprintable(), message
        assert len(message) < LONGEST_MESSAGE, message
        assert plain is None
        found["refused"] += 1
        return
    assert raster.bands.shape == (n_bands, SIDE, SIDE)
    assert raster.bands.dtype == dtype
    assert plain is None or np.array_equal(plain, raster.bands, equal_nan=plain.dtype.kind == "f")
    found["read"] += 1


@st.composite
def edit_bytes(draw: st.DrawFn, originals: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """Draw a sound file and flip, set, cut, insert or copy some of its bytes."""
    kind, data = draw(st.sampled_from(originals))
    edited = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        # Most where the tags and their values are.
        end = draw(st.sampled_from([8, 64, 256, 512, len(edited)]))
        place = draw(st.integers(0, max(0, min(end, len(edited)) - 1)))
        how = draw(st.sampled_from(["flip", "set", "number", "cut", "remove", "insert", "copy"]))
        if how == "flip" and edited:
            edited[place] ^= 1 << draw(st.integers(0, 7))
        elif how == "set" and edited:
            edited[place] = draw(st.sampled_from([0, 1, 2, 3, 4, 8, 0x7F, 0x80, 0xFF]))
        elif how == "number":
            number = draw(st.sampled_from([*NUMBERS, 2**32 - 1, len(data)]))
            edited[place : place + 4] = number.to_bytes(4, draw(st.sampled_from(["little", "big"])))
        elif how == "cut":
            del edited[place:]
        elif how == "remove":
            del edited[place : place + draw(st.integers(1, 64))]
        elif how == "insert":
            edited[place:place] = draw(st.binary(min_size=1, max_size=64))
        else:
            other = draw(st.integers(0, max(0, len(edited) - 1)))
            edited[place:place] = edited[other : other + draw(st.integers(1, 64))]
    return kind, bytes(edited)


@st.composite
def build_from_tags(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw a file tag by tag."""
    changes: dict[int, Tag | None] = {}
    for _ in range(draw(st.integers(1, 5))):
        number = draw(st.sampled_from(TAGS))
        changes[number] = draw(st.none() | draw_tag())
    if draw(st.booleans()):
        changes[259] = Tag(3, [draw(st.sampled_from(COMPRESSIONS))])
    body = draw(st.none() | st.binary(max_size=64))
    order, after = draw(st.sampled_from("<>")), draw(st.sampled_from([0, 8, 9, 10**6]))
    return "S1", build_tiff(changes, body=body, order=order, next_directory=after)


@st.composite
def draw_tag(draw: st.DrawFn) -> Tag:
    """Draw numbers or text, with a count that may lie."""
    kind = draw(st.sampled_from([2, 7, *LETTERS]))
    count = draw(st.none() | st.sampled_from([*NUMBERS, 2**32 - 1]))
    letter = LETTERS.get(kind)
    if letter is None or draw(st.booleans()):
        text = st.sampled_from(
            [b"<GDALMetadata><Item>", b"nan\0", b"|\0\xff", b"1" * 400, b"\n\x1b"]
        )
        return Tag(kind, draw(text | st.binary(max_size=100)), count)
    if letter in "fd":
        floats = st.floats(width=32) | st.sampled_from([0.0, -1e308 if letter == "d" else -1e38])
        return Tag(kind, draw(st.lists(floats, min_size=1, max_size=20)), count)
    limit = 2 ** (8 * {"B": 1, "b": 1, "H": 2, "h": 2, "I": 4, "i": 4, "Q": 8}[letter]) - 1
    limit = limit // 2 if letter.islower() else limit
    number = st.sampled_from([n for n in NUMBERS if n <= limit] + [limit]) | st.integers(0, limit)
    return Tag(kind, draw(st.lists(number, min_size=1, max_size=40)), count)


if __name__ == "__main__":
    main()
