"""The page's last words: how to reproduce the run, and the model card."""

from biomassters.params.whole import Params
from biomassters.report.section import Section


def describe_reproduction(params: Params) -> Section:
    """Return how to make the same run again.

    Args:
        params: All of params.yaml.
    """
    lines = ["git checkout REVISION      # the one above", "make repro"]
    if params.data.source == "synthetic":
        text = (
            "The chips are simulated from their names, so that nothing else is needed. Another kind"
            " of CPU rounds otherwise, which a short training amplifies by a t/ha or two."
        )
    else:
        lines.insert(1, "python -m biomassters use-catalogue path/to/catalogue")
        text = (
            f"The chips came from data.source: {params.data.source}; the catalogue in data/ names"
            " each file with its size, so that the same files give the same store."
        )
    return Section(
        anchor="reproduce", title="How to reproduce it", texts=[text], code="\n".join(lines)
    )


def describe_limits(params: Params, *, calibrated: bool) -> Section:
    """Return the model card: what the model is for, what it is not, whose data it knows.

    Args:
        params: All of params.yaml.
        calibrated: Whether the maps have intervals.
    """
    intervals = (
        "Intervals hold for chips like those that calibrated them; elsewhere they promise nothing."
        if calibrated
        else "The maps have no intervals: params.yaml, calibration.method."
    )
    return Section(
        anchor="card",
        title="Model card",
        points=[
            "Intended use: maps of above-ground biomass at 10 m for research and for totals over"
            " areas in Finland, from twelve months (September to August) of Sentinel-1 backscatter"
            " and Sentinel-2 reflectance prepared as the BioMassters competition did.",
            f"Model: the winner's U-Net over months, encoder {params.model.backbone}; trained from"
            f" {'published weights' if params.model.pretrained else 'scratch'}.",
            "Reference: biomass maps derived from airborne LiDAR, with errors of their own; not"
            " field plots, and not an inventory.",
            "Saturation: signals hardly grow beyond some 200 t/ha. Dense forest is underestimated,"
            " as the errors by bin show.",
            "Not for use outside of Finland, in other years' processing baselines or with other"
            " sensors without a calibration of its own, nor for single trees or property limits.",
            intervals,
            "Data: BioMassters, CC BY 4.0. Code: MIT.",
        ],
    )
