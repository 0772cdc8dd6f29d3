"""What a study of experiments found: one row a change of the params, over seeds.

Knows what `dvc exp show --json` prints; knows nothing of the pipeline.

Why not `dvc.api.exp_show`: its flat rows mix metrics, params and hashes of inputs, name the file of
a key only where two files have it, so that one file's metric is taken for another's, and turn
params into numbers or text: a seed of 0 is 0.0, a list is "[0, 1]".
"""

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from biomassters.commands.dvc_calls import ask_dvc, flatten
from biomassters.errors import ParamsError
from biomassters.params.reading import look_up

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

    def subtract(self, other: "Group") -> list[float]:
        """Return the differences to another group, over the seeds that both have."""
        shared = sorted(self.values.keys() & other.values.keys())
        return [self.values[seed] - other.values[seed] for seed in shared]


def compare(metric: str) -> str:
    """Return a Markdown table of the experiments that DVC shows here; see `group_experiments`.

    Args:
        metric: A metrics file and a dotted key in it, joined by a colon.

    Raises:
        BiomasstersError: DVC refuses, or no experiment has the metric.
    """
    return tabulate(group_experiments(ask_dvc("exp", "show"), metric))


def group_experiments(revisions: list[dict[str, Any]], metric: str) -> list[Group]:
    """Group finished experiments by what they change in the params, the workspace's own first.

    Args:
        revisions: What `dvc exp show --json` printed.
        metric: A metrics file and a dotted key in it, joined by a colon.

    Raises:
        ParamsError: No experiment has the metric, or DVC cannot read the workspace's params.
    """
    workspace, *commits = revisions
    if workspace["data"] is None:
        reason = " ".join((workspace.get("error") or {}).get("msg", "none").split())
        raise ParamsError(f"expected params that DVC can read, got {reason}; mend params.yaml")
    default = _read_params(workspace["data"])
    groups: dict[Change, Group] = {(): Group(())}
    for data in [*_list_experiments(commits), workspace["data"]]:
        value = _read_metric(data, metric)
        if value is None:
            continue
        params = _read_params(data)
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
    params = data["params"]["params.yaml"]["data"]
    flat = {key: value for name in params for key, value in flatten(name, params[name]).items()}
    # A list cannot be a key of the groups.
    return {key: tuple(v) if isinstance(v, list) else v for key, v in flat.items()}


def _read_metric(data: Mapping[str, Any], metric: str) -> float | None:
    file, _, key = metric.partition(":")
    try:
        return float(look_up(data["metrics"][file]["data"], key))
    except (KeyError, TypeError):  # a queued or failed experiment has none
        return None


def _describe(values: list[float], sign: str = "") -> str:
    around = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{sign}.2f}{around}"
