"""Whether a scene's values are what models know: dB, and DN without an offset.

From pixels and from what metadata claim; of both the pixels are believed. Each finding has a name,
by which a scene's YAML accepts it. Nothing here knows where the values come from.

What the pixels tell, and what right ones look like (the real chips, five smaller ones of
GEO-Bench-2, and the simulator, all months):

- Backscatter in dB is negative but for few pixels, about -11 (VV) and -17 (VH). Power and amplitude
  are positive; which of both is seen by which gives dB nearer to these.
- The darkest hundredth of clear pixels has at most 760 DN in the darkest band of any month (404 but
  for one): water and shade in summer, short-wave infrared over snow. With the 1,000 of baselines
  from 04.00 on, which came with products of 25 January 2022, it has 1,000 and more.
- At most 17 % of the pixels have 0 in a band; with 1,000 taken twice nearly all of summer's forest
  has so in the visible bands (B2 and B4 are 150 to 260 there).
- Sigma0 and gamma0 differ by the incidence angle, about 1 dB: no pixel tells. Only names do.

Source: thresholds by these data. Offsets: ESA's Sentinel-2 processing baseline 04.00
(BOA_ADD_OFFSET -1000); flags that lie: Element84/earth-search issue 71, microsoft/PlanetaryComputer
issue 134.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from biomassters.errors import SceneError
from biomassters.store.bands import CLP, MONTHS, N_MONTHS, S1_BANDS, S2_BANDS

FindingName: TypeAlias = Literal[
    "linear_backscatter",
    "amplitude_backscatter",
    "backscatter_numbers",
    "gamma0",
    "reflectance_fraction",
    "offset_not_applied",
    "offset_applied_twice",
    "offset_mixed",
    "same_pixels",
    "mixed_years",
]
FINDINGS: Final = get_args(FindingName)

ClaimName: TypeAlias = Literal["gamma0", "offset applied", "offset not applied"]

ENOUGH: Final = 64
"""Pixels from which on values of a month are judged."""

TYPICAL_DB: Final = (-11.0, -17.0, -11.0, -17.0)
"""Backscatter of Finland's forests; source: the real chips."""

OFFSET_FLOOR: Final = 950.0
"""DN; the darkest band of a clear month has less, or has 1,000 added."""
BRIGHT: Final = 3500.0
"""DN; brighter darkest visible pixels, as under cloud or all in snow, tell nothing."""
CLEAR_CLP: Final = 20.0
"""Percent; from there on a pixel may be cloudy."""
MOST_ZEROS: Final = 0.4
"""Share of pixels with nothing in the visible bands."""
LARGEST_FRACTION: Final = 2.5
"""Reflectance of snow that faces the sun; as DN it is night."""

_VISIBLE: Final = [S2_BANDS.index(name) for name in ("B2", "B3", "B4")]
_SWIR: Final = [S2_BANDS.index(name) for name in ("B11", "B12")]
_SNOWFREE: Final = [MONTHS.index(name) for name in ("June", "July", "August", "September")]

Array = NDArray[np.float32]


class Samples(NamedTuple):
    """Values of some pixels of a scene, converted but not rounded; NaN = nodata.

    Attributes:
        s1: Backscatter, (12, 4, n), float32, dB.
        s2: Reflectance, DN, and cloud probability, percent, (12, 11, n), float32.
    """

    s1: Array
    s2: Array


class Claim(NamedTuple):
    """What metadata say of a file.

    Attributes:
        name: What they say.
        sensor: S1 or S2.
        month: 0 = September.
        source: Where they say it, for messages.
    """

    name: ClaimName
    sensor: str
    month: int
    source: str


class Finding(NamedTuple):
    """What is not as models know it.

    Attributes:
        name: For `accept`.
        expected: What it should be.
        got: What it looks like.
        place: Months, bands, files.
        remedy: What to write in the YAML.
    """

    name: FindingName
    expected: str
    got: str
    place: str
    remedy: str


def check_radiometry(
    samples: Samples, where: str, accept: Collection[str] = (), claims: Sequence[Claim] = ()
) -> None:
    """Refuse a scene whose values are not what models know.

    Args:
        samples: Values of pixels from all over it, some thousands.
        where: The scene's file, for errors.
        accept: Names of findings that are right.
        claims: What metadata say.

    Raises:
        SceneError: There are findings that are not accepted.
    """
    refuse_findings([*find_in_pixels(samples, claims), *find_in_claims(claims)], where, accept)


def refuse_findings(findings: Iterable[Finding], where: str, accept: Collection[str]) -> None:
    """Refuse a scene that has findings which are not accepted.

    Raises:
        SceneError: There is one; all are named.
    """
    refused = [finding for finding in findings if finding.name not in accept]
    if refused:
        raise SceneError("; also ".join(_tell(finding, where) for finding in refused))


def find_in_claims(claims: Iterable[Claim]) -> Iterator[Finding]:
    """Find what only metadata can tell."""
    gamma = [claim for claim in claims if claim.name == "gamma0"]
    if gamma:
        yield Finding(
            "gamma0",
            "sigma0",
            f"gamma0 by the name {gamma[0].source} (pixels cannot tell)",
            _name_months({claim.month for claim in gamma}),
            "convert it (it is sigma0 over the cosine of the incidence angle)",
        )


def find_in_pixels(samples: Samples, claims: Sequence[Claim] = ()) -> Iterator[Finding]:
    """Find what pixels tell; what metadata claim instead is named beside it."""
    yield from _find_units(samples.s1)
    yield from _find_fractions(samples.s2)
    yield from _find_offsets(samples.s2, claims)
    yield from _find_twins("S1", samples.s1)
    yield from _find_twins("S2", samples.s2)


def read_claims(text: str, tags: Mapping[str, str]) -> set[ClaimName]:
    """Return what a file's or an item's name and tags claim of its values.

    Args:
        text: Its name, and those of its bands.
        tags: By lower-case name.
    """
    found: set[ClaimName] = set()
    words = " ".join([text, *tags, *tags.values()]).casefold()
    if re.search(r"gamma[-_ ]?(0|nought|naught)", words):
        found.add("gamma0")
    for name, value in tags.items():
        if name.endswith("boa_offset_applied"):
            is_true = value.strip().casefold() in ("true", "1", "yes")
            found.add("offset applied" if is_true else "offset not applied")
    return found


def _find_units(s1: Array) -> Iterator[Finding]:
    kinds: dict[FindingName, list[tuple[int, int, float]]] = {}
    for month, band in np.ndindex(N_MONTHS, len(S1_BANDS)):
        values = s1[month, band][np.isfinite(s1[month, band])]
        if values.size >= ENOUGH:
            low, median = (float(value) for value in np.percentile(values, (1, 50)))
            kind = _judge_backscatter(low, median, band)
            if kind is not None:
                kinds.setdefault(kind, []).append((month, band, median))
    for name, places in kinds.items():
        got, remedy = _BACKSCATTER[name]
        yield Finding(
            name,
            "backscatter in dB, negative nearly everywhere",
            f"a median of {places[0][2]:.4g}: it looks like {got}",
            f"{_name_months({month for month, _, _ in places})},"
            f" {', '.join(S1_BANDS[band] for band in sorted({band for _, band, _ in places}))}",
            remedy,
        )


_BACKSCATTER: Final[dict[FindingName, tuple[str, str]]] = {
    "linear_backscatter": ("linear power", "write `S1: {unit: linear}` under radiometry"),
    "amplitude_backscatter": ("amplitude", "write `S1: {unit: amplitude}` under radiometry"),
    "backscatter_numbers": (
        "scaled or uncalibrated numbers",
        "calibrate them, or write `S1: {scale: 0.01}` under radiometry if they are hundredths of"
        " dB",
    ),
}


def _judge_backscatter(low: float, median: float, band: int) -> FindingName | None:
    """Return what values look like by their first percentile and median; None = dB."""
    if low >= 0 and 0 < median < 3:
        as_power, as_amplitude = (
            abs(factor * np.log10(median) - TYPICAL_DB[band]) for factor in (10, 20)
        )
        return "linear_backscatter" if as_power <= as_amplitude else "amplitude_backscatter"
    if median >= 3 or median < -60:
        return "backscatter_numbers"
    return None


def _find_fractions(s2: Array) -> Iterator[Finding]:
    months = []
    for month in range(N_MONTHS):
        known = np.isfinite(s2[month, :CLP])
        values = s2[month, :CLP][known]
        is_judged = known.any(axis=0).sum() >= ENOUGH and values.any()
        if is_judged and np.percentile(values, 99) <= LARGEST_FRACTION:
            months.append(month)
    if months:
        yield Finding(
            "reflectance_fraction",
            "reflectance in DN (10,000 = 1)",
            "numbers of 2.5 and less: it looks like reflectance 0 to 1",
            _name_months(months),
            "write `S2: {scale: 10000}` under radiometry",
        )


def _find_offsets(s2: Array, claims: Sequence[Claim]) -> Iterator[Finding]:
    twice = [month for month in range(N_MONTHS) if _is_clipped(s2[month])]
    floors = {month: _find_floor(s2[month], month) for month in range(N_MONTHS)}
    known = {month: floor for month, floor in floors.items() if floor is not None}
    left = [month for month, floor in known.items() if floor >= OFFSET_FLOOR]
    if twice:
        yield Finding(
            "offset_applied_twice",
            "reflectance above 0",
            "0 or less in most visible pixels: it looks as if 1,000 were taken away that were not"
            f" there{_name_liars(claims, 'offset not applied', twice)}",
            _name_months(twice),
            "write `S2: {offset: 0}` under radiometry",
        )
    if left and len(left) == len(known):
        yield Finding(
            "offset_not_applied",
            f"dark pixels below {OFFSET_FLOOR:g} DN",
            f"at least {min(known.values()):.0f}: it looks like the 1,000 that Sentinel-2's"
            " baselines from 04.00 on add to each value"
            f"{_name_liars(claims, 'offset applied', left)}",
            _name_months(left),
            "write `S2: {offset: -1000}` under radiometry",
        )
    elif left:
        others = [month for month in known if month not in left]
        yield Finding(
            "offset_mixed",
            "one offset in all months",
            f"dark pixels of at least {min(known[month] for month in left):.0f} DN in some and"
            f" {min(known[month] for month in others):.0f} in others: it looks as if baselines from"
            f" 04.00 on and older ones are mixed{_name_liars(claims, 'offset applied', left)}",
            _name_months(left),
            "write these months' files as an entry of their own, with `offset: -1000` beside"
            " `files`",
        )


def _is_clipped(s2: Array) -> bool:
    """Tell whether most pixels of a month, (11, n), have nothing in all visible bands."""
    visible = s2[_VISIBLE]
    known = np.isfinite(visible)
    seen = known.any(axis=0)
    if seen.sum() < ENOUGH:
        return False
    dark = ((visible <= 0) | ~known).all(axis=0) & seen
    return bool(dark.sum() > MOST_ZEROS * seen.sum())


def _find_floor(s2: Array, month: int) -> float | None:
    """Return the darkest hundredth of a month's clear pixels, (11, n), in its darkest band.

    None = it cannot be judged: too few, or none dark.
    """
    has_swir = bool(np.isfinite(s2[_SWIR]).any())
    if not has_swir and month not in _SNOWFREE:
        return None
    clouds = s2[CLP]
    clear = (clouds <= CLEAR_CLP) if np.isfinite(clouds).any() else np.ones(len(clouds), np.bool_)
    floors = {}
    for band in [*_VISIBLE, *_SWIR]:
        values = s2[band][clear & np.isfinite(s2[band])]
        if values.size >= ENOUGH:
            floors[band] = float(np.percentile(values, 1))
    visible = [floors[band] for band in _VISIBLE if band in floors]
    if not visible or min(visible) > BRIGHT:
        return None
    return min(floors.values())


def _find_twins(sensor: str, values: Array) -> Iterator[Finding]:
    """Find months with the very same values, (12, B, n)."""
    first: dict[bytes, int] = {}
    for month in range(N_MONTHS):
        known = values[month][np.isfinite(values[month])]
        if known.size >= ENOUGH and known.min() < known.max():  # not of one value, as by a defect
            other = first.setdefault(values[month].tobytes(), month)
            if other != month:
                yield Finding(
                    "same_pixels",
                    "another image in each month",
                    "the same pixels twice",
                    f"{sensor} of {_name_months([other, month])}",
                    "mend `files`",
                )


def _name_months(months: Iterable[int]) -> str:
    return ", ".join(MONTHS[month] for month in sorted(months))


def _name_liars(claims: Sequence[Claim], name: ClaimName, months: Collection[int]) -> str:
    liars = [c.source for c in claims if c.name == name and c.month in months and c.sensor == "S2"]
    return f", though {liars[0]} says `{name}`" if liars else ""


def _tell(finding: Finding, where: str) -> str:
    return (
        f"expected {finding.expected}, got {finding.got}, at {where}: {finding.place};"
        f" {finding.remedy}, or `accept: [{finding.name}]` there if it is right"
    )
