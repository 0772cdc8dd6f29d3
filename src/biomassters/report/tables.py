"""What the page says in numbers: figures with their intervals, params, data, runs and revisions."""

import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from biomassters.errors import SourceCodeError
from biomassters.fingerprint.stage_inputs import PIPELINE_FILE, read_inputs
from biomassters.params.reading import read_document
from biomassters.processes.run_records import find_record

FIGURES: Final = {
    "chip_rmse": "chip RMSE, t/ha",
    "pooled_rmse": "pooled RMSE, t/ha",
    "mae": "MAE, t/ha",
    "bias": "bias, t/ha",
    "r2": "R²",
}
MODELS: Final = {
    "model": "the model",
    "trees": "gradient-boosted trees by pixel",
    "baseline": "the training mean everywhere",
}
"""By their keys in evaluation.json; what is not named here is another folder of `baselines/`."""
AREAS: Final = {
    "pixel": "pixel, 10 m",
    "block_1ha": "1 ha (10 x 10 pixels)",
    "block_16ha": "16 ha (40 x 40 pixels)",
    "chip": "whole chip",
}
INTERVALS: Final = "intervals"
CONDITIONS: Final = {
    "no_s1": "without Sentinel-1",
    "no_s2": "without Sentinel-2",
    "no_ascending": "without the ascending orbit",
    "no_descending": "without the descending orbit",
    "no_clp": "without cloud probability",
    "no_swir": "without short-wave infrared (B11, B12)",
    "rgb_only": "red, green and blue alone",
}


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        header: Of its columns.
        rows: Cells.
        caption: What it shows.
    """

    header: list[str]
    rows: list[list[str]]
    caption: str = ""


def tabulate_figures(scores: Mapping[str, Any], name: str) -> Table:
    """Return a set's figures with their 95 % intervals, a row for each model."""
    kinds = [*(kind for kind in MODELS if kind in scores)]
    kinds += [kind for kind in scores if kind not in (*MODELS, INTERVALS)]
    rows = [
        [MODELS.get(kind, kind), *(format_figure(scores[kind], figure) for figure in FIGURES)]
        for kind in kinds
    ]
    return Table(["", *FIGURES.values()], rows, f"{name}: figures, and their 95 % intervals")


def format_figure(figures: Mapping[str, Any], name: str, digits: int | None = None) -> str:
    """Return a figure and its interval, such as `28.4 (24.0…33.1)`."""
    value = figures.get(name)
    if value is None:
        return "-"
    digits = (2 if name == "r2" else 1) if digits is None else digits
    ends = (figures.get("ci95") or {}).get(name)
    text = f"{value:.{digits}f}"
    return text if not ends else f"{text} ({ends[0]:.{digits}f}…{ends[1]:.{digits}f})"


def describe_scene(name: str, figures: Mapping[str, Any]) -> str:
    """Return what the map of a scene holds, with its interval where it has one."""
    mean = figures.get("agbm_mean_t_ha")
    if mean is None:
        return f"{name}: the map has no totals."
    total = figures["agbm_total_t"] / 1e6
    text = f"{name}: {figures['mapped_ha'] / 100:.0f} km² with {mean:.0f} t/ha"
    if "interval_level" not in figures:
        return f"{text}, {total:.3g} million t of above-ground biomass."
    ends = [f"{figures[f'agbm_mean_{end}_t_ha']:.0f}" for end in ("lower", "upper")]
    totals = [f"{figures[f'agbm_total_{end}_t'] / 1e6:.3g}" for end in ("lower", "upper")]
    return (
        f"{text} ({'…'.join(ends)}), {total:.3g} million t ({'…'.join(totals)}) of above-ground"
        f" biomass; in brackets the {figures['interval_level']:.0%} interval of the whole, from the"
        " correlation of errors."
    )


def tabulate_intervals(intervals: Mapping[str, Any], name: str) -> Table:
    """Return how many targets lie in their intervals, how wide these are, and a naive sum's."""
    rows = []
    for key, title in AREAS.items():
        area, ends = intervals.get(key), (intervals.get("ci95") or {}).get(key) or {}
        if area is None or area.get("coverage") is None:
            continue
        pair = ends.get("coverage")
        reach = f" ({pair[0]:.0%}…{pair[1]:.0%})" if pair else ""
        naive = (area.get("naive") or {}).get("coverage")
        rows.append(
            [
                title,
                f"{area['coverage']:.0%}{reach}",
                f"{area['width']:.1f}",
                "-" if naive is None else f"{naive:.0%}",
            ]
        )
    header = [
        "mean over",
        "targets inside",
        "mean width, t/ha",
        "inside, if errors were independent",
    ]
    return Table(header, rows, f"{name}: {100 * intervals['level']:g} % intervals")


def tabulate_conditions(robustness: Mapping[str, Any]) -> Table | None:
    """Return the error under each condition beside that on all data; None where none was tried."""
    plain = robustness.get("plain")
    if not plain:
        return None
    rows = [["all data", f"{plain['chip_rmse']:.1f}", "", f"{plain['bias']:+.1f}"]]
    for name, figures in (robustness.get("conditions") or {}).items():
        if figures is None:
            continue
        more = figures["chip_rmse"] - plain["chip_rmse"]
        rows.append(
            [
                CONDITIONS.get(name, name),
                f"{figures['chip_rmse']:.1f}",
                f"{more:+.1f}",
                f"{figures['bias']:+.1f}",
            ]
        )
    header = ["data", "chip RMSE, t/ha", "more than with all", "bias, t/ha"]
    return Table(header, rows, "what the same model's error becomes where data are missing")


def tabulate_params(params: Mapping[str, Any], winner: Mapping[str, Any]) -> Table:
    """Return all params, those that differ from the winner's first."""
    here, his = dict(list_leaves(params)), dict(list_leaves(winner))
    keys = sorted(here, key=lambda key: here[key] == his.get(key))
    rows = [
        [key, here[key], "the same" if here[key] == his.get(key) else his.get(key, "-")]
        for key in keys
    ]
    return Table(["param", "here", "in the winner's recipe"], rows, "params.yaml")


def list_leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted keys and their values as text."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from list_leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "null" if value is None else str(value)


def tabulate_data(audits: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return what there is of each split: chips, images, biomass."""
    columns = [_list_facts(audit) if audit.get("chips") else {} for audit in audits.values()]
    names = next((list(column) for column in columns if column), [])
    rows = [[name, *(column.get(name, "-") for column in columns)] for name in names]
    return Table(["", *audits], rows, "the data, from the audit of each split")


def _list_facts(audit: Mapping[str, Any]) -> dict[str, str]:
    mean = (audit.get("agbm") or {}).get("mean")
    return {
        "chips": str(audit["chips"]),
        "with a target": str(audit["targets"]),
        "side": f"{audit['chip_size']} pixels",
        "S2 months present": f"{audit['s2_present']['all']:.0%}",
        "both S1 orbits": f"{audit['orbits']['both']:.0%}",
        "cloudy S2 pixels": f"{audit['s2_cloudy']['all']:.0%}",
        "mean AGBM": "-" if mean is None else f"{mean:.1f} t/ha",
    }


def tabulate_runs(folds: Iterable[int]) -> Table:
    """Return how long each stage's run took, of those that ran on this machine."""
    rows = []
    for stage, item in list_stages(folds):
        name = "@".join([stage, *map(str, item.values())])
        try:
            record = find_record(name, read_inputs(Path("src", f"{stage}.py"), **item).digest)
        except (OSError, SourceCodeError):
            record = None
        if record is None:
            rows.append([name, "-", "", "from DVC's cache, or of another machine"])
        else:
            rows.append([name, f"{record.seconds:.1f}", record.finished, record.hardware])
    return Table(["stage", "seconds", "finished (UTC)", "on"], rows, "the last run of each stage")


def list_stages(folds: Iterable[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the stages of dvc.yaml with their matrix items, but `fingerprint` and `report`."""
    for stage, definition in read_document(PIPELINE_FILE)["stages"].items():
        if stage in ("fingerprint", "report"):
            continue
        matrix = definition.get("matrix")
        if matrix is None:
            yield stage, {}
            continue
        [(key, values)] = matrix.items()
        for value in values if isinstance(values, list) else folds:
            yield stage, {key: value}


def tabulate_revisions(packages: Mapping[str, str]) -> Table:
    """Return git's revision, DVC's version, and those of the packages that made the figures."""
    rows = [["git", describe_revision()], ["dvc", version("dvc")]]
    rows += [[name, number or "-"] for name, number in packages.items()]
    return Table(["", "version"], rows, "revisions")


def describe_revision() -> str:
    """Return git's name of what is checked out, and whether it was changed."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=, with changes"],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return "no git"
    return found.stdout.strip() or "no git repository"
