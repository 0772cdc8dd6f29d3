"""The YAML of a scene of rasters."""

import re
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from biomassters.params.sections import Section
from biomassters.scenes.description import SceneDescription
from biomassters.scenes.radiometry import FindingName
from biomassters.store.bands import MONTHS, N_MONTHS, S1_BANDS, S2_BANDS

Sensor: TypeAlias = Literal["S1", "S2"]
MonthName: TypeAlias = Literal[MONTHS]  # type: ignore[valid-type]  # pydantic looks at them
UnitName: TypeAlias = Literal["db", "linear", "amplitude"]

_MONTHLY = re.compile(r"\{(month|yyyy|mm)\}")


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Texts = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(_as_list),
    Field(min_length=1, strict=False),
]
MonthNames = Annotated[tuple[MonthName, ...], BeforeValidator(_as_list), Field(strict=False)]


class Conversion(Section):
    """How the numbers of files become dB, DN and percent; null = as the files declare.

    A number of a file times `scale` plus `offset` is, by `unit`, backscatter; of S2 it is DN
    (10,000 = reflectance 1). What is written here is used instead of what a file declares. The
    cloud probability has neither scale nor offset.

    Attributes:
        unit: Of S1 after scale and offset: dB, linear power or amplitude (its square root).
        scale: Such as 10000 for reflectance 0 to 1, 0.01 for hundredths of dB.
        offset: Such as -1000 for Sentinel-2's baselines from 04.00 on.
        nodata: A value of the files that is no data, where they do not declare it.
    """

    unit: UnitName | None = None
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    offset: Annotated[float, Field(allow_inf_nan=False)] | None = None
    nodata: float | None = None


class Radiometry(Section):
    """How all files of a sensor are converted, and which findings are right.

    Attributes:
        S1: Of its files, where they do not say otherwise themselves.
        S2: The same.
        accept: Names of findings of `scenes.radiometry` that the user has looked at.
    """

    S1: Conversion = Conversion()
    S2: Conversion = Conversion()
    accept: Annotated[tuple[FindingName, ...], BeforeValidator(_as_list), Field(strict=False)] = ()


class RasterEntry(Conversion):
    """Files of one kind, a month each; those of one month are a mosaic, where the first wins.

    Attributes:
        files: Paths, relative to the YAML's folder or absolute, or http, https and s3 addresses.
            `{month}` is 00 (September) to 11, `{yyyy}` and `{mm}` are the year and month of the
            calendar, 01 to 12.
        sensor: S1 or S2.
        bands: Of the files, in their order, by their names in `store.bands`; null = of no use.
        months: For which there are files; null = all. Files whose names have no month in them need
            exactly one.
        absent: For which there are none, among these.
    """

    files: Texts
    sensor: Sensor
    bands: Annotated[tuple[str | None, ...], Field(min_length=1, strict=False)]
    months: MonthNames | None = None
    absent: MonthNames = ()

    @property
    def month_numbers(self) -> tuple[int, ...]:
        """The months that it has, 0 = September."""
        names = MONTHS if self.months is None else self.months
        return tuple(n for n in range(N_MONTHS) if MONTHS[n] in {*names} - {*self.absent})

    @model_validator(mode="after")
    def _check(self) -> "RasterEntry":
        known = S1_BANDS if self.sensor == "S1" else S2_BANDS
        names = [name for name in self.bands if name is not None]
        first = self.files[0]
        for name in names:
            if name not in known:
                raise ValueError(
                    f"rasters: expected bands of {self.sensor} ({', '.join(known)}) or null, got"
                    f" {name!r}, at {first}; mend `bands`"
                )
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"rasters: expected one band or more, each once, got {names}, at {first}; mend"
                " `bands`"
            )
        if self.sensor == "S2" and self.unit is not None:
            raise ValueError(
                f"rasters: expected no unit of S2, got {self.unit!r}, at {first}; use `scale`"
            )
        monthly = [bool(_MONTHLY.search(file)) for file in self.files]
        if not self.month_numbers or (len(self.month_numbers) > 1 and not all(monthly)):
            raise ValueError(
                "rasters: expected {month}, or {yyyy} and {mm}, in the names of files of several"
                f" months, got {len(self.month_numbers)} months, at {first}; write it, or"
                " `months: September` for files of one month"
            )
        return self


class RasterDescription(SceneDescription):
    """A scene of monthly rasters.

    Attributes:
        start: Year and month of its September, such as 2020-09.
        rasters: The files.
        radiometry: What their numbers are.
    """

    source: Literal["rasters"]
    start: str = Field(pattern=r"^[0-9]{4}-09$")
    rasters: Annotated[tuple[RasterEntry, ...], Field(min_length=1, strict=False)]
    radiometry: Radiometry = Radiometry()

    @property
    def year(self) -> int:
        """Of its September."""
        return int(self.start[:4])

    @property
    def period(self) -> tuple[str, str]:
        """Its first and last day."""
        return f"{self.year:04}-09-01", f"{self.year + 1:04}-08-31"

    def convert(self, entry: RasterEntry) -> Conversion:
        """Return how an entry's numbers are converted: as it says itself, else as its sensor's."""
        general = self.radiometry.S1 if entry.sensor == "S1" else self.radiometry.S2
        own = {key: getattr(entry, key) for key in Conversion.model_fields}
        chosen = {key: value for key, value in own.items() if value is not None}
        return general.model_copy(update=chosen)


def fill_template(file: str, month: int, year: int) -> str:
    """Return the name of a month's file.

    Args:
        file: With `{month}`, `{yyyy}` and `{mm}`, or without.
        month: 0 = September.
        year: Of the scene's September.
    """
    calendar = (month + 8) % N_MONTHS + 1
    values = {
        "month": f"{month:02}",
        "yyyy": f"{year + (calendar < 9):04}",
        "mm": f"{calendar:02}",
    }
    return _MONTHLY.sub(lambda found: values[found[1]], file)
