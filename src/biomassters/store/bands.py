"""The sensors, bands, units, nodata values and months of a BioMassters chip.

Source: the competition's data description (DrivenData, The BioMassters), and the two real chips.
"""

from typing import Final

MONTHS: Final = (
    "September",
    "October",
    "November",
    "December",
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
)
N_MONTHS: Final = len(MONTHS)

S1_BANDS: Final = ("VV ascending", "VH ascending", "VV descending", "VH descending")
"""Backscatter of Sentinel-1, dB."""

S2_BANDS: Final = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12", "CLP")
"""Reflectance of Sentinel-2 (DN, 10,000 = 1) and, last, the cloud probability (0-100)."""

BANDS: Final = S1_BANDS + S2_BANDS
"""The model's input bands, in the winner's order."""

N_S1: Final = len(S1_BANDS)
N_S2: Final = len(S2_BANDS)
N_BANDS: Final = len(BANDS)
CLP: Final = S2_BANDS.index("CLP")
"""Index of the cloud probability among the bands of S2."""

SWIR_BANDS: Final = ("B11", "B12")
"""Short-wave infrared; a known defect of the data is blocks of one value in them."""

PIXEL_SIZE_M: Final = 10

S1_NODATA_DB: Final = -9999.0
"""Nodata of the S1 files. A whole orbit of a month is often absent."""

S1_RANGE_DB: Final = (-50.0, 30.0)
"""Backscatter that a C-band radar can measure, dB.

Below its lower end lies only what the removal of thermal noise leaves of no echo. Its upper end
is what buildings reach.
Source: the Earth Engine catalogue of COPERNICUS/S1_GRD gives -50 dB as the least of VV and VH;
the greatest of the official train chips is 30 dB (the winner's normalisation constants).
"""

CLP_NODATA: Final = 255
"""Nodata of the cloud probability in the S2 files."""

S1_STORED_NODATA: Final = -32768
"""Nodata of S1 in a chip store."""

S1_STORED_SCALE_DB: Final = 0.01
"""One unit of S1 in a chip store, dB."""

S2_STORED_NODATA: Final = 65535
"""Nodata of S2 in a chip store, of each band by itself.

Not 255, which is nodata in the files: there it is the cloud probability that the winner's model
sees. Of Sentinel-2's own reflectance 65535 means saturated, which is no measurement either.
Source: Sentinel-2 Products Specification Document, Level-1C metadata (Special_Values).
"""
