"""What a map's zones hold, as files: zones.geojson for maps and zones.csv for tables."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from biomassters.calibration.calibration import Calibration
from biomassters.mapping.zones.polygons import Zones
from biomassters.mapping.zones.sums import ZoneSum
from biomassters.processes.writing import write_whole

GEOJSON: Final = "zones.geojson"
TABLE: Final = "zones.csv"

DECIMALS: Final = 6


def write_zones(
    folder: Path, zones: Zones, sums: Sequence[ZoneSum], calibration: Calibration | None
) -> tuple[Path, Path]:
    """Write a zones.geojson and a zones.csv, each whole or not at all.

    The GeoJSON is the user's own, with the sums among the properties of its features; the CRS
    stays. The table has a row a zone.

    Args:
        folder: The map's.
        zones: Of `polygons.read_zones`.
        sums: Of `sums.sum_zones`, of the same zones.
        calibration: That of the sums.

    Returns:
        Both files.
    """
    level = calibration.level if calibration else None
    columns = [describe_sum(one, level) for one in sums]
    features = [
        {**feature, "properties": {**(feature.get("properties") or {}), **values}}
        for feature, values in zip(zones.document["features"], columns, strict=True)
    ]
    document = {**zones.document, "features": features}
    geojson, table = folder / GEOJSON, folder / TABLE
    write_whole(geojson, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())
    text = io.StringIO()
    writer = csv.DictWriter(text, ["zone", *describe_sum(sums[0], level)], lineterminator="\n")
    writer.writeheader()
    for one, values in zip(sums, columns, strict=True):
        writer.writerow({"zone": one.name, **values})
    write_whole(table, text.getvalue().encode())
    return geojson, table


def describe_sum(one: ZoneSum, level: float | None) -> dict[str, float | None]:
    """Return what a zone holds, by name with its unit; None = unknown.

    Args:
        one: The zone's sum.
        level: Of its intervals; None = there are none, and no names of theirs.
    """
    values: dict[str, float | None] = {
        "area_ha": one.area_ha,
        "mapped_ha": one.mapped_ha,
        "mapped_share": one.mapped_share,
        "agbm_mean_t_ha": one.mean,
        "agbm_total_t": one.total_t,
    }
    if level is not None:
        parts = one.interval._asdict() if one.interval else {}
        for name in ("standard_error", "lower", "upper", "naive_standard_error"):
            value = parts.get(name)
            values[f"agbm_mean_{name}_t_ha"] = value
            values[f"agbm_total_{name}_t"] = None if value is None else value * one.mapped_ha
        values["interval_level"] = level
    return {
        name: None if value is None else round(value, DECIMALS) for name, value in values.items()
    }
