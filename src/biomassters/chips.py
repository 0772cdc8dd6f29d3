"""The chips of a split, as training and prediction read them: one Zarr v3 store, one chunk a chip.

Knows what the store's arrays mean; knows nothing of files, sources and of how it is packed.
`xarray.open_zarr` opens it too, with backscatter in dB.
"""

from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biomassters.bands import (
    MONTHS,
    N_MONTHS,
    N_S1,
    N_S2,
    PIXEL_SIZE_M,
    S1_BANDS,
    S1_STORED_NODATA,
    S1_STORED_SCALE_DB,
    S2_BANDS,
)
from biomassters.errors import StoreError
from biomassters.georeference import NOWHERE, Georeference
from biomassters.zarr_files import ArrayLayout, chunk_file, read_array, read_chunk, read_group

FORMAT_VERSION: Final = 1

S1: Final = ArrayLayout(
    "s1",
    "int16",
    ("chip", "month", "s1_band", "y", "x"),
    {
        "long_name": "Sentinel-1 backscatter",
        "units": "dB",
        "scale_factor": S1_STORED_SCALE_DB,
        "_FillValue": S1_STORED_NODATA,
    },
)
S2: Final = ArrayLayout(
    "s2",
    "uint16",
    ("chip", "month", "s2_band", "y", "x"),
    {"long_name": "Sentinel-2 reflectance (10,000 = 1), cloud probability; 0 in absent months"},
)
AGBM: Final = ArrayLayout(
    "agbm",
    "float32",
    ("chip", "y", "x"),
    {"long_name": "above-ground biomass", "units": "t ha-1"},
)

CHIP_ID: Final = ArrayLayout("chip_id", "string", ("chip",))
FINGERPRINT: Final = ArrayLayout(
    "fingerprint", "string", ("chip",), {"long_name": "hash of what the chip was made from"}
)
CONTENT: Final = ArrayLayout(
    "content", "string", ("chip",), {"long_name": "SHA-256 of the chip's arrays and place"}
)
S2_PRESENT: Final = ArrayLayout(
    "s2_present", "bool", ("chip", "month"), {"long_name": "the month has a Sentinel-2 file"}
)
S1_NODATA: Final = ArrayLayout(
    "s1_nodata", "int32", ("chip", "month", "s1_band"), {"long_name": "nodata pixels"}
)
S2_NODATA: Final = ArrayLayout(
    "s2_nodata", "int32", ("chip", "month"), {"long_name": "pixels without cloud probability"}
)
AGBM_MEAN: Final = ArrayLayout(
    "agbm_mean",
    "float64",
    ("chip",),
    {"long_name": "mean above-ground biomass", "units": "t ha-1"},
)
CRS: Final = ArrayLayout(
    "crs",
    "string",
    ("chip",),
    {"long_name": "coordinate reference system, EPSG number or WKT; empty = unknown"},
)
TRANSFORM: Final = ArrayLayout(
    "transform",
    "float64",
    ("chip", "coefficient"),
    {
        "long_name": "affine map from pixels to the crs; NaN = unknown",
        "formula": "x = a * column + b * row + c, y = d * column + e * row + f",
    },
)
FACTS: Final = (
    *(CHIP_ID, FINGERPRINT, CONTENT, S2_PRESENT, S1_NODATA, S2_NODATA, AGBM_MEAN),
    *(CRS, TRANSFORM),
)
"""What is known of each chip without reading its pixels."""

LABELS: Final = (
    (ArrayLayout("month", "string", ("month",)), MONTHS),
    (ArrayLayout("s1_band", "string", ("s1_band",)), S1_BANDS),
    (ArrayLayout("s2_band", "string", ("s2_band",)), S2_BANDS),
    (ArrayLayout("coefficient", "string", ("coefficient",)), tuple("abcdef")),
)

ROOT_ATTRIBUTES: Final = {
    "title": "BioMassters chips",
    "format_version": FORMAT_VERSION,
    "pixel_size_m": PIXEL_SIZE_M,
    # CF: these describe the chips and are no images themselves.
    "coordinates": " ".join(layout.name for layout in FACTS if layout is not S2_PRESENT),
}


class Chip(NamedTuple):
    """One chip as stored.

    Attributes:
        chip_id: Its name.
        s1: Backscatter, (12, 4, H, W), int16, 0.01 dB; `bands.S1_STORED_NODATA` = nodata.
        s2: Reflectance and cloud probability, (12, 11, H, W), uint16; 0 in absent months.
        s2_present: (12,) bool; False = absent month.
        agbm: AGBM, (H, W), float32, t/ha, NaN = no target; None = the split has no targets.
        georeference: Where it lies.
    """

    chip_id: str
    s1: NDArray[np.int16]
    s2: NDArray[np.uint16]
    s2_present: NDArray[np.bool_]
    agbm: NDArray[np.float32] | None
    georeference: Georeference = NOWHERE


class ChipStore:
    """A store, opened: small facts in memory, pixels read on demand.

    It holds no open file, so it may be pickled, and used after a fork and from any thread.

    Attributes:
        path: Where it lies.
        chip_size: Side of a chip, pixels.
        has_targets: Whether any chip has one.
        content_id: SHA-256 over all that is stored; equal stores have equal ones.
        chip_ids: Names, in the order of the index.
        s2_present: (n, 12) bool.
        agbm_mean: Mean AGBM of each chip, (n,), float64, t/ha; NaN = no target.
    """

    def __init__(self, path: Path, attributes: dict[str, Any], facts: dict[str, NDArray[Any]]):
        self.path = path
        self.chip_size = int(attributes["chip_size"])
        self.has_targets = bool(attributes["has_targets"])
        self.content_id = str(attributes["content_id"])
        self.chip_ids: list[str] = list(facts["chip_id"])
        self.s2_present: NDArray[np.bool_] = facts["s2_present"]
        self.agbm_mean: NDArray[np.float64] = facts["agbm_mean"]
        self._crs: NDArray[Any] = facts["crs"]
        self._transform: NDArray[np.float64] = facts["transform"]

    @classmethod
    def open(cls, path: Path) -> "ChipStore":
        """Open a store.

        Raises:
            StoreError: It is absent, incomplete or of another format.
        """
        return cls(path, read_attributes(path), read_facts(path))

    def __len__(self) -> int:
        return len(self.chip_ids)

    def read_chip(self, index: int) -> Chip:
        """Read the chip at `index`.

        Raises:
            StoreError: Its data are missing or damaged.
        """
        side = (self.chip_size, self.chip_size)
        s1 = self._read(S1, index, (N_MONTHS, N_S1, *side))
        s2 = self._read(S2, index, (N_MONTHS, N_S2, *side))
        agbm = self.read_target(index) if self.has_targets else None
        place = self.georeference(index)
        return Chip(self.chip_ids[index], s1, s2, self.s2_present[index], agbm, place)

    def georeference(self, index: int) -> Georeference:
        """Return where the chip at `index` lies, as its files said; NOWHERE if they did not."""
        known = not np.isnan(self._transform[index]).any()
        transform = tuple(self._transform[index].tolist()) if known else NOWHERE.transform
        return Georeference(str(self._crs[index]), transform)

    def read_target(self, index: int) -> NDArray[np.float32]:
        """Read the AGBM of the chip at `index`, (H, W), t/ha, NaN = no target.

        Raises:
            StoreError: The split has no targets, or the data are missing or damaged.
        """
        if not self.has_targets:
            raise StoreError(
                f"expected targets, got a split without, at {self.path};"
                " add a catalogue of its targets (README: your own data)"
            )
        return self._read(AGBM, index, (self.chip_size, self.chip_size))

    def _read(self, layout: ArrayLayout, index: int, shape: tuple[int, ...]) -> NDArray[Any]:
        array = np.empty(shape, layout.dtype)
        path = chunk_file(self.path, layout, range(len(self))[index])
        try:
            read_chunk(path, array)
        except (OSError, ValueError) as error:
            raise StoreError(
                f"expected {layout.name} of chip {self.chip_ids[index]}, got {error}, at {path};"
                f" {_remedy(self.path)}"
            ) from None
        return array


def read_attributes(path: Path) -> dict[str, Any]:
    """Return a store's root attributes.

    Raises:
        StoreError: It is absent, incomplete or of another format.
    """
    try:
        attributes = read_group(path)
    except FileNotFoundError:
        raise StoreError(
            f"expected a chip store, got none, at {path}; run `dvc repro` or `dvc pull`"
        ) from None
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(
            f"expected a chip store, got {error!r}, at {path}; {_remedy(path)}"
        ) from None
    version = attributes.get("format_version")
    if version != FORMAT_VERSION:
        raise StoreError(
            f"expected a chip store of format {FORMAT_VERSION}, got {version!r}, at {path};"
            f" {_remedy(path)}"
        )
    return attributes


def read_facts(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of `FACTS` by name.

    Raises:
        StoreError: They are missing or damaged.
    """
    try:
        return {layout.name: read_array(path, layout) for layout in FACTS}
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(
            f"expected a chip store, got {error!r}, at {path}; {_remedy(path)}"
        ) from None


def _remedy(path: Path) -> str:
    return f"delete {path} and run `dvc repro` (or `dvc pull`)"
