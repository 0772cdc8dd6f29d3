"""What a study of experiments found: one row a change of the params, over seeds.

Knows what `dvc exp show --json` prints; knows nothing of the pipeline.
"""

import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from biomassters.commands.dvc_calls import ask_dvc
from biomassters.errors import ParamsError
from biomassters.params.reading import look_up

METRIC: Final = "metrics/evaluation.json:test.model.chip_rmse"
SEED: Final = "seed"

Change = tuple[tuple[str, Any], ...]
"""Params that differ from the workspace's, sorted by key; empty = none but the seed."""


@dataclass
class Group:
    """Experiments that differ in nothing but the seed.

    Attributes:
        change: What they have in common.
        values: The metric by seed.
    """

    change: Change
    values: dict[int, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return statistics.fmean(self.values.values())

    @property
    def spread(self) -> float:
        """The standard deviation over seeds (n - 1); NaN of one seed."""
        return _spread(list(self.values.values()))

    def subtract(self, other: "Group") -> list[float]:
        """Return the differences to another group, over the seeds that both have."""
        shared = sorted(self.values.keys() & other.values.keys())
        return [self.values[seed] - other.values[seed] for seed in shared]


def run_exp_show() -> list[dict[str, Any]]:
    """Return what `dvc exp show --json` prints here.

    Raises:
        BiomasstersError: DVC refuses.
    """
    revisions: list[dict[str, Any]] = ask_dvc("exp", "show")
    return revisions


def group_experiments(revisions: list[dict[str, Any]], metric: str = METRIC) -> list[Group]:
    """Group finished experiments by what they change in the params, the workspace's own first.

    Args:
        revisions: What `dvc exp show --json` printed.
        metric: A metrics file and a dotted key in it, joined by a colon.

    Raises:
        ParamsError: No experiment has the metric.
    """
    workspace, *commits = revisions
    default = _flatten(_read_params(workspace["data"]))
    groups: dict[Change, Group] = {(): Group(())}
    for data in [*_list_experiments(commits), workspace["data"]]:
        value = _read_metric(data, metric)
        if value is None:
            continue
        params = _flatten(_read_params(data))
        seed = params.pop(SEED)
        change = tuple(sorted((k, v) for k, v in params.items() if v != default.get(k)))
        groups.setdefault(change, Group(change)).values[seed] = value
    found = [group for group in groups.values() if group.values]
    if not found:
        raise ParamsError(
            f"expected experiments with the metric {metric}, got none;"
            " run some: `dvc exp run --queue -S seed=0,1,2`, then `dvc queue start`"
        )
    return found


def tabulate(groups: list[Group]) -> str:
    """Return a Markdown table, the best first; differences are paired by seed."""
    default = next((group for group in groups if not group.change), Group(()))
    lines = [
        "| change | seeds | mean ± SD | difference to the default ± SD |",
        "|---|---|---|---|",
    ]
    for group in sorted(groups, key=lambda group: group.mean):
        differences = group.subtract(default) if group.change else []
        gap = _describe(differences, sign="+") if differences else "-"
        name = ", ".join(f"{key}={value}" for key, value in group.change) or "default"
        values = list(group.values.values())
        lines.append(f"| {name} | {len(values)} | {_describe(values)} | {gap} |")
    return "\n".join(lines)


def _list_experiments(commits: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for commit in commits:
        for experiment in commit.get("experiments") or []:
            # One that runs has metrics already, but not its last; one by hand has no executor.
            if (experiment.get("executor") or {}).get("state") not in (None, "success"):
                continue
            for revision in experiment["revs"]:
                if revision.get("data"):
                    yield revision["data"]


def _read_params(data: Mapping[str, Any]) -> dict[str, Any]:
    params: dict[str, Any] = data["params"]["params.yaml"]["data"]
    return params


def _read_metric(data: Mapping[str, Any], metric: str) -> float | None:
    file, _, key = metric.partition(":")
    try:
        return float(look_up(data["metrics"][file]["data"], key))
    except (KeyError, TypeError):  # a queued or failed experiment has none
        return None


def _flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = tuple(value) if isinstance(value, list) else value
    return flat


def _spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan


def _describe(values: list[float], sign: str = "") -> str:
    spread = _spread(values)
    around = "" if math.isnan(spread) else f" ± {spread:.2f}"
    return f"{statistics.fmean(values):{sign}.2f}{around}"
