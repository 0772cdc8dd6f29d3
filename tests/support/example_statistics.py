"""Statistics of train chips, with changes that need not be sound."""

from typing import Any

from biomassters.statistics.figures import Normalisation, Statistics, TargetFigures
from biomassters.store.bands import BANDS


def describe_bands(**changes: Any) -> Normalisation:
    """Return the winner's minima and maxima; all else is made up."""
    sound = Normalisation(
        source="computed",
        bands=BANDS,
        minimum=(-25.0, -62.0, -25.0, -60.0) + (0.0,) * 11,
        maximum=(
            *(29.0, 28.0, 30.0, 22.0),
            *(19616.0, 18400.0, 17536.0, 17097.0, 16928.0, 16768.0, 16593.0, 16492.0),
            *(15401.0, 15226.0, 255.0),
        ),
        mean=(-11.0, -17.0, -11.0, -17.0) + (1500.0,) * 10 + (12.0,),
        standard_deviation=(4.0,) * 4 + (500.0,) * 10 + (24.0,),
        p1=(-20.0, -30.0, -20.0, -30.0) + (100.0,) * 10 + (0.0,),
        p99=(-4.0, -10.0, -4.0, -10.0) + (8100.0,) * 10 + (100.0,),
    )
    return sound.model_copy(update=changes)


def describe_target(**changes: Any) -> TargetFigures:
    """Return what is known of AGBM, t/ha."""
    sound = TargetFigures(
        pixels=1000,
        nodata_share=0.0,
        minimum=0.0,
        maximum=390.0,
        mean=63.0,
        standard_deviation=71.0,
        percentiles={"2": 0.0, "50": 36.0, "98": 256.0},
    )
    return sound.model_copy(update=changes)


def describe_chips(**changes: Any) -> Statistics:
    """Return all of statistics.json, with changes of the bands."""
    return Statistics(normalisation=describe_bands(**changes), target=describe_target(), bands={})
