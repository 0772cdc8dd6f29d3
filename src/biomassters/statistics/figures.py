"""The statistics of the train chips, as training reads them from statistics.json.

Training needs this module only, so that how the figures are computed may change without it.
"""

from operator import lt
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError, model_validator

from biomassters.errors import StoreError
from biomassters.params.sections import Section
from biomassters.processes.writing import write_whole
from biomassters.store.bands import BANDS, N_BANDS, N_S2

PUBLISHED_MINIMUM: Final = (-25.0, -62.0, -25.0, -60.0, *[0.0] * N_S2)
PUBLISHED_MAXIMUM: Final = (
    *(29.0, 28.0, 30.0, 22.0),
    *(19616.0, 18400.0, 17536.0, 17097.0, 16928.0, 16768.0),
    *(16593.0, 16492.0, 15401.0, 15226.0, 255.0),
)
"""Source: the winner's normalisation constants, in the order of `BANDS`."""

_NO_CHIPS: Final = '{"train_chips": 0}\n'
"""All of statistics.json where there are no train chips."""

PerBand = tuple[float, ...]


class Normalisation(Section):
    """What inputs are scaled by, in the order of `bands`.

    Attributes:
        source: `computed` from the train chips, or `published` by the winner.
        bands: Names of the bands.
        minimum: dB, DN or percent, as is all that follows.
        maximum: Greater than the minimum.
        mean: None where published, as is all that follows.
        standard_deviation: Greater than 0.
        p1: 1st percentile.
        p99: 99th percentile.
    """

    source: Literal["computed", "published"]
    bands: tuple[str, ...]
    minimum: PerBand
    maximum: PerBand
    mean: PerBand | None
    standard_deviation: PerBand | None
    p1: PerBand | None
    p99: PerBand | None

    @model_validator(mode="after")
    def _check_bands(self) -> "Normalisation":
        if self.bands != BANDS:
            raise ValueError(f"expected the bands {', '.join(BANDS)}, got {', '.join(self.bands)}")
        for name in ("minimum", "maximum", "mean", "standard_deviation", "p1", "p99"):
            values = getattr(self, name)
            if values is not None and len(values) != N_BANDS:
                raise ValueError(f"expected {N_BANDS} numbers in {name}, got {len(values)}")
        if not all(map(lt, self.minimum, self.maximum)):
            raise ValueError("expected each minimum below its maximum")
        return self


class Figures(Section):
    """A summary of pixels.

    Attributes:
        pixels: Pixels with data; all figures are about them.
        nodata_share: Share of all other pixels, 0...1; absent months count.
        minimum: The least value; None, as all that follows, where no pixel has data.
        maximum: The greatest value.
        mean: Their mean.
        standard_deviation: About the mean, divided by the number of pixels.
        percentiles: By percentage, interpolated linearly as numpy does.
    """

    pixels: int
    nodata_share: float
    minimum: float | None
    maximum: float | None
    mean: float | None
    standard_deviation: float | None
    percentiles: dict[str, float]


class TargetFigures(Figures):
    """A summary of the target's pixels, t/ha; there is at least one."""

    minimum: float
    maximum: float
    mean: float
    standard_deviation: float


class Statistics(Section):
    """All of statistics.json."""

    normalisation: Normalisation
    target: TargetFigures
    bands: dict[str, Figures]


def publish_normalisation() -> Normalisation:
    """Return the constants that the winner published, of minimum and maximum alone."""
    return Normalisation(
        source="published",
        bands=BANDS,
        minimum=PUBLISHED_MINIMUM,
        maximum=PUBLISHED_MAXIMUM,
        mean=None,
        standard_deviation=None,
        p1=None,
        p99=None,
    )


def read_statistics(path: Path) -> Statistics:
    """Read what `write_statistics` wrote.

    Raises:
        StoreError: The file is absent or malformed, or there are no train chips.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if text == _NO_CHIPS:
            raise StoreError(
                f"expected the statistics of train chips, got none of any, at {path};"
                " add train chips to the catalogue"
            )
        return Statistics.model_validate_json(text)
    except FileNotFoundError:
        raise StoreError(
            f"expected the statistics {path}, got no such file; run `dvc repro` or `dvc pull`"
        ) from None
    except (ValidationError, UnicodeDecodeError) as error:
        raise StoreError(
            f"expected the statistics of the train chips, got {_describe(error)}, at {path};"
            f" delete {path} and run `dvc repro`"
        ) from None


def write_statistics(path: Path, statistics: Statistics) -> None:
    """Write statistics.json, whole or not at all."""
    write_whole(path, statistics.model_dump_json(indent=2).encode() + b"\n")


def write_no_statistics(path: Path) -> None:
    """Write a statistics.json that says that there are no train chips."""
    write_whole(path, _NO_CHIPS.encode())


def _describe(error: ValidationError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return str(error)
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    return f"{key}: {first['msg']}" if key else first["msg"]
