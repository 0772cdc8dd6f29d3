"""The -1000 of Sentinel-2's baselines from 04.00 on: what an item says, and what its pixels say.

From baseline 04.00 (25 January 2022) on, 1000 is added to DN, to be taken off by who reads them
(Sentinel-2 Products Specification Document: BOA_ADD_OFFSET). The competition's data are older and
have none of it. Planetary Computer serves DN with the 1000 (issue 134 of microsoft/
PlanetaryComputer); Earth Search took it off in most of `sentinel-2-l2a`, and says so in a flag
that is wrong in places (issue 71 of Element84/earth-search), while its `raster:bands` state an
offset of -0.1 in any case (issue 9 there).
"""

from typing import Any, Final, Literal, TypeAlias

import numpy as np
import pystac
from numpy.typing import NDArray

RAW_OFFSET: Final = -1000

_FLAGS: Final = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
_BASELINES: Final = (
    "s2:processing_baseline",
    "processing:version",
    "sentinel:processing_baseline",
)
_FIRST_RAW_BASELINE: Final = 4.0

LEAST_PIXELS: Final = 200
"""Of vegetation, from which pixels are asked."""

State: TypeAlias = Literal["raw", "applied", "twice"]
"""DN with the 1000 in them, without, or with 1000 taken off that never were there."""


def read_baseline(item: pystac.Item) -> float | None:
    """Return an item's processing baseline, such as 5.1; None = it does not say."""
    for name in _BASELINES:
        text = str(item.properties.get(name, "")).lstrip("Nn")
        try:
            baseline = float(text)
        except ValueError:
            continue
        return baseline / 100 if baseline >= 100 else baseline
    return None


def read_flag(item: pystac.Item) -> bool | None:
    """Return whether an item says that the offset is applied; None = it does not say."""
    flags = [item.properties[name] for name in _FLAGS if name in item.properties]
    return bool(flags[0]) if flags else None


def read_declared(asset: pystac.Asset) -> int | None:
    """Return the offset that an asset's raster metadata state, in DN; None = they do not."""
    fields: dict[str, Any] = asset.extra_fields
    bands = fields.get("raster:bands") or fields.get("bands") or [{}]
    band = bands[0] if isinstance(bands, list) and isinstance(bands[0], dict) else {}
    found = [
        (source.get(f"{prefix}scale"), source[f"{prefix}offset"])
        for source, prefix in ((band, ""), (band, "raster:"), (fields, "raster:"))
        if source.get(f"{prefix}offset") is not None
    ]
    if not found:
        return None
    scale, offset = found[0]
    return round(float(offset) / float(scale or 1e-4))


def decide_offset(item: pystac.Item, asset: pystac.Asset) -> int | None:
    """Return what is to be added to DN, by an item's metadata; None = they do not say.

    A flag that it is applied goes before all else, then the baseline, then what the asset states.

    Args:
        item: Of Sentinel-2.
        asset: Of one of its bands.
    """
    if read_flag(item):
        return 0
    baseline = read_baseline(item)
    if baseline is not None and baseline < _FIRST_RAW_BASELINE:
        return 0
    if read_flag(item) is None:
        declared = read_declared(asset)
        if declared is not None:
            return declared
    return None if baseline is None else RAW_OFFSET


def looks_offset(red: NDArray[Any], nir: NDArray[Any]) -> State | None:
    """Tell from pixels whether DN have the 1000 in them; None = they do not tell.

    Vegetation is at least twice as bright in the near infrared as in red, with the 1000 or without.
    A tenth of it reflects less than a tenth of red light, anywhere on Earth: less than 1000 DN.

    Args:
        red: Of B4, DN, any shape; 0 = nodata, or what was cut off at 0.
        nir: Of B8 or B8A.
    """
    red, nir = np.asarray(red, np.float64).ravel(), np.asarray(nir, np.float64).ravel()
    is_lost = (red <= 1) | (red > 60_000)  # below 0: cut off, or wrapped around
    if (is_lost & (nir > 500) & (nir < 20_000)).sum() >= LEAST_PIXELS:
        vegetated = (nir > 500) & (nir < 20_000)
        if is_lost[vegetated].mean() > 0.25:
            return "twice"
    vegetation = red[(red > 1) & (nir > 2 * red)]
    if vegetation.size < LEAST_PIXELS:
        return None
    return "raw" if np.percentile(vegetation, 10) >= -RAW_OFFSET else "applied"
