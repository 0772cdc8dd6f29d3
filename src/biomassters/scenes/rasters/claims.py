"""What the names and tags of rasters claim: years, calibration, offsets."""

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Final

from biomassters.errors import name_few
from biomassters.scenes.radiometry import Claim, ClaimName, Finding, read_claims
from biomassters.scenes.rasters.description import RasterDescription
from biomassters.scenes.rasters.scene import Source

_DATE: Final = re.compile(
    r"(?<![0-9])((?:19|20)[0-9]{2})([-_]?)(0[1-9]|1[0-2])(?:\2(?:0[1-9]|[12][0-9]|3[01]))?(?![0-9])"
)
"""2020-09-13, 20200913, 2020_09, 202009 ..."""
_DATE_TAGS: Final = (
    *("datetime", "date", "start_datetime", "end_datetime", "acquisition_date"),
    *("acquisition_time", "sensing_time", "sensing_date", "product_start_time"),
)
"""Not TIFFTAG_DATETIME, the time at which a file was made."""


def gather_claims(sources: Iterable[Source]) -> list[Claim]:
    """Return what rasters claim of their values, by name and tags."""
    claims = []
    for source in sources:
        name = PurePosixPath(source.address.shown).name
        text = " ".join([name, *source.header.names, *source.header.units])
        found: set[ClaimName] = read_claims(text, source.header.tags)
        if source.rule.sensor == "S2" and any(source.header.offsets):
            found.add("offset not applied")
        claims += [
            Claim(claim, source.rule.sensor, source.month, source.address.shown) for claim in found
        ]
    return claims


def find_mixed_years(
    sources: Iterable[Source], description: RasterDescription
) -> Iterator[Finding]:
    """Find rasters whose names or tags have a date outside the scene's twelve months."""
    first, last = (day[:7] for day in description.period)
    outside = []
    for source in sources:
        name = PurePosixPath(source.address.shown).name
        tags = [source.header.tags[tag] for tag in _DATE_TAGS if tag in source.header.tags]
        dates = [
            f"{found[1]}-{found[3]}" for text in (name, *tags) for found in _DATE.finditer(text)
        ]
        if dates and not any(first <= date <= last for date in dates):
            outside.append(f"{source.address.shown} ({dates[0]})")
    if outside:
        yield Finding(
            "mixed_years",
            f"images from {first} to {last}",
            f"other dates of {name_few(outside, 3)}",
            "start",
            "mend `start` or `files`",
        )
