"""The arrays of a chip store: their names, types, dimensions and units, and the shape of a chip.

What changes here changes the bytes of every store; those of another `FORMAT_VERSION` are refused,
and packed anew.
"""

from typing import Final

from biomassters.store.bands import (
    MONTHS,
    N_MONTHS,
    N_S1,
    N_S2,
    PIXEL_SIZE_M,
    S1_BANDS,
    S1_STORED_NODATA,
    S1_STORED_SCALE_DB,
    S2_BANDS,
    S2_STORED_NODATA,
    SWIR_BANDS,
)
from biomassters.store.zarr_files import ArrayLayout

FORMAT_VERSION: Final = 3

# Backscatter is kept in steps of 0.01 dB: half the bytes of float32, and far less once compressed,
# for the last bits of a float are noise. Rounding moves a value by 0.005 dB at most, far less
# than speckle does. int16 reaches to 327 dB either way; its least number is left for nodata. What
# is not exactly 0 dB is not stored as 0, which is a known defect of the official files.
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
    {
        "long_name": "Sentinel-2 reflectance (10,000 = 1), cloud probability; 0 in absent months",
        "_FillValue": S2_STORED_NODATA,
    },
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
AUDIT_FACTS: Final = tuple(
    ArrayLayout(name, dtype, ("chip", *dimensions), {"long_name": text, **units})
    for name, dtype, dimensions, text, units in (
        ("s1_nodata", "int32", ("month", "s1_band"), "nodata pixels", {}),
        ("s1_zero", "int32", ("month", "s1_band"), "pixels of exactly 0 dB", {}),
        ("s1_outside", "int32", ("month", "s1_band"), "pixels outside the physical range", {}),
        ("s2_nodata", "int32", ("month",), "pixels without cloud probability", {}),
        ("s2_cloudy", "int32", ("month",), "pixels of a cloud probability over 50 %", {}),
        ("s2_zero", "int32", ("month",), "pixels without a reflectance over 0", {}),
        (
            *("s2_block", "int32", ("month", "swir_band")),
            *("pixels of the largest region of one value; 0 if none is over 3 % of the chip", {}),
        ),
        ("agbm_min", "float64", (), "least above-ground biomass", {"units": "t ha-1"}),
        ("agbm_max", "float64", (), "greatest above-ground biomass", {"units": "t ha-1"}),
        ("agbm_nodata", "int32", (), "pixels without above-ground biomass", {}),
        ("agbm_negative", "int32", (), "pixels of above-ground biomass below 0", {}),
        ("agbm_extreme", "int32", (), "pixels of above-ground biomass of 400 t ha-1 or more", {}),
    )
)
"""What `audit.facts` counts; 0 in absent months of S2."""

FACTS: Final = (
    *(CHIP_ID, FINGERPRINT, CONTENT, S2_PRESENT, AGBM_MEAN, CRS, TRANSFORM),
    *AUDIT_FACTS,
)
"""What is known of each chip without reading its pixels."""

LABELS: Final = (
    (ArrayLayout("month", "string", ("month",)), MONTHS),
    (ArrayLayout("s1_band", "string", ("s1_band",)), S1_BANDS),
    (ArrayLayout("s2_band", "string", ("s2_band",)), S2_BANDS),
    (ArrayLayout("swir_band", "string", ("swir_band",)), SWIR_BANDS),
    (ArrayLayout("coefficient", "string", ("coefficient",)), tuple("abcdef")),
)

ROOT_ATTRIBUTES: Final = {
    "title": "BioMassters chips",
    "format_version": FORMAT_VERSION,
    "pixel_size_m": PIXEL_SIZE_M,
    # CF: these describe the chips and are no images themselves.
    "coordinates": " ".join(layout.name for layout in FACTS if layout is not S2_PRESENT),
}


def image_shapes(chip_size: int) -> dict[ArrayLayout, tuple[int, ...]]:
    """Return the arrays that hold pixels, each with the shape of one chip: S1, S2 and AGBM.

    Args:
        chip_size: Side of a chip, pixels.
    """
    side = (chip_size, chip_size)
    return {S1: (N_MONTHS, N_S1, *side), S2: (N_MONTHS, N_S2, *side), AGBM: side}


def fact_shape(layout: ArrayLayout) -> tuple[int, ...]:
    """Return the shape of one chip's entry of an array of `FACTS`."""
    lengths = {labels.name: len(names) for labels, names in LABELS}
    return tuple(lengths[dimension] for dimension in layout.dimensions[1:])
