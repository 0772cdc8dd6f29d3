"""The chips of a split, as training and prediction read them: one Zarr v3 store, one chunk a chip.

`xarray.open_zarr` opens it too, with backscatter in dB.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from biomassters.errors import StoreError
from biomassters.store.georeference import NOWHERE, Georeference
from biomassters.store.layout import AGBM, FACTS, FORMAT_VERSION, S1, S2, image_shapes
from biomassters.store.zarr_files import ArrayLayout, chunk_file, read_array, read_chunk, read_group


class Chip(NamedTuple):
    """One chip as stored.

    Attributes:
        chip_id: Its name.
        s1: Backscatter, (12, 4, H, W), int16, 0.01 dB; `bands.S1_STORED_NODATA` = nodata.
        s2: Reflectance and cloud probability, (12, 11, H, W), uint16; `bands.S2_STORED_NODATA` =
            nodata, 0 in absent months.
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


ChipArrays: TypeAlias = tuple[NDArray[np.int16], NDArray[np.uint16], NDArray[np.float32]]
"""`s1`, `s2` and `agbm` of a chip."""

Clean: TypeAlias = Callable[[Chip], Chip]


class ChipStore:
    """A store, opened: small facts in memory, pixels read on demand.

    It holds no open file, so it may be pickled (if `clean` may), and used after a fork and from any
    thread.

    Attributes:
        path: Where it lies.
        clean: What is done to each chip that is read; None = nothing.
        chip_size: Side of a chip, pixels.
        has_targets: Whether any chip has one.
        content_id: SHA-256 over all that is stored; equal stores have equal ones.
        chip_ids: Names, in the order of the index.
        s2_present: (n, 12) bool.
        agbm_mean: Mean AGBM of each chip, (n,), float64, t/ha; NaN = no target.
    """

    def __init__(
        self,
        path: Path,
        attributes: dict[str, Any],
        facts: dict[str, NDArray[Any]],
        *,
        clean: Clean | None = None,
    ) -> None:
        self.path = path
        self.clean = clean
        self.chip_size = int(attributes["chip_size"])
        self.has_targets = bool(attributes["has_targets"])
        self.content_id = str(attributes["content_id"])
        self.chip_ids: list[str] = list(facts["chip_id"])
        self.s2_present: NDArray[np.bool_] = facts["s2_present"]
        self.agbm_mean: NDArray[np.float64] = facts["agbm_mean"]
        self._crs: NDArray[Any] = facts["crs"]
        self._transform: NDArray[np.float64] = facts["transform"]

    @classmethod
    def open(cls, path: Path, *, clean: Clean | None = None) -> "ChipStore":
        """Open a store.

        Args:
            path: Where it lies.
            clean: What is done to each chip that is read, such as `cleaning.clean_chip` with a
                name; it leaves chip_id and agbm alone, and `s2_present` of the chip too, unless it
                takes months from it (`robustness.conditions`); that of the store stays.

        Raises:
            StoreError: It is absent, incomplete or of another format.
        """
        return cls(path, read_attributes(path), read_facts(path), clean=clean)

    def __len__(self) -> int:
        return len(self.chip_ids)

    def read_chip(self, index: int, into: ChipArrays | None = None) -> Chip:
        """Read the chip at `index`, and clean it.

        Args:
            index: Its position.
            into: Contiguous arrays that the stored pixels are read into; None = new ones. The
                chip's arrays are these but where cleaning made others.

        Raises:
            StoreError: Its data are missing or damaged.
        """
        s1, s2, agbm = into or self.make_arrays()
        self._read(S1, index, s1)
        self._read(S2, index, s2)
        if self.has_targets:
            self._read(AGBM, index, agbm)
        chip = Chip(
            self.chip_ids[index],
            s1,
            s2,
            self.s2_present[index],
            agbm if self.has_targets else None,
            self.georeference(index),
        )
        return chip if self.clean is None else self.clean(chip)

    def make_arrays(self) -> ChipArrays:
        """Return arrays that hold a chip's pixels, of whatever value."""
        s1, s2, agbm = (
            np.empty(shape, layout.dtype) for layout, shape in image_shapes(self.chip_size).items()
        )
        return s1, s2, agbm

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
                " add a catalogue of its targets (README: real data)"
            )
        agbm = np.empty(image_shapes(self.chip_size)[AGBM], np.float32)
        self._read(AGBM, index, agbm)
        return agbm

    def _read(self, layout: ArrayLayout, index: int, array: NDArray[Any]) -> None:
        path = chunk_file(self.path, layout, range(len(self))[index])
        try:
            read_chunk(path, array)
        except (OSError, ValueError) as error:
            raise StoreError(
                f"expected {layout.name} of chip {self.chip_ids[index]}, got {error}, at {path};"
                f" {_remedy(self.path)}"
            ) from None


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
