"""Zarr v3 arrays as plain files, the same bytes on every machine.

Knows metadata, chunks and codecs; knows nothing of chips. The files are written here and not by
the zarr library for three reasons: metadata do not change with that library's version, so the same
chips give the same hash everywhere; reading a chunk is one read and one decompression without an
event loop, so it is quick and safe after a fork; and a chunk of fill values still gets its file,
so that a lost file is noticed, not read as zeros. Any Zarr v3 library reads the result.

Source: Zarr core specification 3.0; its registered codecs `blosc` and `vlen-utf8`.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numcodecs import VLenUTF8, blosc
from numpy.typing import NDArray

METADATA_FILE: Final = "zarr.json"
COMPRESSION: Final = {"cname": "lz4", "clevel": 5, "shuffle": "bitshuffle", "blocksize": 0}

_BLOSC_SIZES: Final = struct.Struct("<4xIII")  # after 4 flag bytes: plain, block, compressed size

# Several threads would write a chunk's blocks in the order in which they happen to finish.
blosc.use_threads = False


@dataclass(frozen=True, eq=False)
class ArrayLayout:
    """What all arrays of a name have in common.

    Attributes:
        name: Its folder in the store.
        dtype: A numpy type, or `string`.
        dimensions: Their names.
        attributes: CF attributes: units, scale and so on.
    """

    name: str
    dtype: str
    dimensions: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


def write_group(store: Path, attributes: Mapping[str, Any]) -> None:
    """Write the root metadata, with a copy of all arrays' (so that one read opens the store).

    A store without them does not open, so write them last.
    """
    arrays = sorted(path.parent for path in store.glob(f"*/{METADATA_FILE}"))
    metadata = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": dict(attributes),
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": False,
            "metadata": {array.name: _read_json(array / METADATA_FILE) for array in arrays},
        },
    }
    _write_json(store / METADATA_FILE, metadata)


def read_group(store: Path) -> dict[str, Any]:
    """Return the root attributes.

    Raises:
        OSError, ValueError, KeyError: There are none.
    """
    attributes: dict[str, Any] = _read_json(store / METADATA_FILE)["attributes"]
    return attributes


def start_array(
    store: Path, layout: ArrayLayout, shape: Sequence[int], chunk_shape: Sequence[int]
) -> None:
    """Make an array's folder and metadata; its chunks follow."""
    folder = store / layout.name
    folder.mkdir()
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": layout.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk_shape)}},
        # One flat folder of files: with the separator "/" each chunk would sit in folders of its
        # own, one a dimension.
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": _fill_value(layout),
        "codecs": _codecs(layout),
        "attributes": dict(layout.attributes),
        "dimension_names": list(layout.dimensions),
    }
    _write_json(folder / METADATA_FILE, metadata)


def chunk_file(store: Path, layout: ArrayLayout, index: int) -> Path:
    """Return the file of the chunk at `index` along the first dimension, the only divided one."""
    key = ".".join(["c", str(index), *["0"] * (len(layout.dimensions) - 1)])
    return store / layout.name / key


def write_chunk(path: Path, array: NDArray[Any]) -> None:
    """Compress an array into a new file."""
    # blosc takes the size of a value, by which it sorts bits, from the array. The metadata say it
    # once for all chunks (`_codecs`), so the array must be of its layout's type.
    packed = blosc.compress(
        np.ascontiguousarray(array),
        str(COMPRESSION["cname"]).encode(),
        COMPRESSION["clevel"],
        blosc.BITSHUFFLE,
        COMPRESSION["blocksize"],
    )
    path.write_bytes(packed)


def read_chunk(path: Path, out: NDArray[Any]) -> None:
    """Decompress a file into a contiguous array.

    Raises:
        OSError: It cannot be read.
        ValueError: It is cut short, damaged or of another size.
    """
    packed = path.read_bytes()
    if not _is_whole(packed, len(packed), out.nbytes):
        raise ValueError(f"{len(packed)} bytes that are no chunk of {out.nbytes} bytes")
    try:
        blosc.decompress(packed, out)
    except RuntimeError as error:
        raise ValueError(str(error)) from None


def chunk_is_whole(path: Path, n_bytes: int) -> bool:
    """Tell from a file's head whether it is a chunk of `n_bytes` bytes, written to its end."""
    try:
        with path.open("rb") as file:
            return _is_whole(file.read(_BLOSC_SIZES.size), path.stat().st_size, n_bytes)
    except OSError:
        return False


def write_array(store: Path, layout: ArrayLayout, array: NDArray[Any]) -> None:
    """Write an array whole, as one chunk; of no values, as none."""
    # A chunk has a length of 1 at least, also where the array has 0.
    start_array(store, layout, array.shape, [max(1, length) for length in array.shape])
    if not array.size:
        return
    path = chunk_file(store, layout, 0)
    if layout.dtype == "string":
        path.write_bytes(VLenUTF8().encode(array.astype(object)))
    else:
        write_chunk(path, array.astype(layout.dtype))


def read_array(store: Path, layout: ArrayLayout) -> NDArray[Any]:
    """Read an array that `write_array` wrote; strings as objects.

    Raises:
        OSError, ValueError, KeyError: It is absent or damaged.
    """
    path = chunk_file(store, layout, 0)
    is_text = layout.dtype == "string"
    shape = _read_json(store / layout.name / METADATA_FILE)["shape"]
    array = np.empty(shape, object if is_text else layout.dtype)
    if not array.size:
        return array
    if is_text:
        return np.asarray(VLenUTF8().decode(path.read_bytes()))
    read_chunk(path, array)
    return array


def _is_whole(head: bytes, file_size: int, n_bytes: int) -> bool:
    if len(head) < _BLOSC_SIZES.size:
        return False
    # What a killed process leaves of a chunk is shorter than the chunk itself says.
    plain, _, packed = _BLOSC_SIZES.unpack_from(head)
    return bool(plain == n_bytes and packed == file_size)


def _fill_value(layout: ArrayLayout) -> Any:
    if layout.dtype == "string":
        return ""
    if layout.dtype.startswith("float"):
        return "NaN"  # a string: JSON has no such number, and Zarr writes it so
    if layout.dtype == "bool":
        return False
    return layout.attributes.get("_FillValue", 0)


def _codecs(layout: ArrayLayout) -> list[dict[str, Any]]:
    if layout.dtype == "string":
        return [{"name": "vlen-utf8", "configuration": {}}]
    configuration = {"typesize": np.dtype(layout.dtype).itemsize, **COMPRESSION}
    return [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "blosc", "configuration": configuration},
    ]


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value
