from typing import Any

import pytest

from biomassters.commands.compare import group_experiments, tabulate
from biomassters.errors import ParamsError

METRIC = "metrics/evaluation.json:test.chip_rmse"


def show(seed: int, loss: str, chip_rmse: float | None) -> dict[str, Any]:
    """Return what DVC shows of one experiment."""
    params = {"seed": seed, "optimisation": {"loss": loss, "batch_size": 8}, "folds": [0]}
    metrics = {} if chip_rmse is None else {"test": {"chip_rmse": chip_rmse}}
    return {
        "params": {"params.yaml": {"data": params}},
        "metrics": {"metrics/evaluation.json": {"data": metrics}},
    }


def show_all(*experiments: dict[str, Any]) -> list[dict[str, Any]]:
    revisions: list[dict[str, Any]] = [{"revs": [{"data": data}]} for data in experiments]
    queued = {"revs": [{"data": None}], "executor": {"state": "queued"}}
    running = {"revs": [{"data": show(2, "huber", 99.0)}], "executor": {"state": "running"}}
    revisions[0]["executor"] = {"state": "success"}
    return [
        {"rev": "workspace", "data": show(0, "rmse", 27.0)},
        {"rev": "abc", "data": show(0, "rmse", 27.0), "experiments": [*revisions, queued, running]},
        {"rev": "def", "data": show(0, "rmse", 27.0), "experiments": None},
    ]


def test_experiments_are_compared_over_seeds_and_paired_by_seed() -> None:
    groups = group_experiments(
        show_all(
            show(1, "rmse", 29.0),
            show(0, "huber", 26.5),
            show(1, "huber", 28.0),
            show(0, "mse", 30.0),
            show(1, "mse", None),
        ),
        METRIC,
    )
    table = tabulate(groups).splitlines()
    assert table[2:] == [
        "| optimisation.loss=huber | 2 | 27.25 ± 1.06 | -0.75 ± 0.35 |",
        "| default | 2 | 28.00 ± 1.41 | - |",
        "| optimisation.loss=mse | 1 | 30.00 | +3.00 |",
    ]


def test_study_without_the_metric_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"expected experiments with the metric none:x, got none"):
        group_experiments(show_all(show(1, "rmse", 29.0)), "none:x")


def test_params_that_dvc_cannot_read_are_refused_in_one_line() -> None:
    workspace = {
        "rev": "workspace",
        "data": None,
        "error": {"msg": "unable to read:\n'params.yaml'"},
    }
    with pytest.raises(ParamsError) as caught:
        group_experiments([workspace, *show_all(show(1, "rmse", 29.0))[1:]], METRIC)
    assert str(caught.value) == (
        "expected params that DVC can read, got unable to read: 'params.yaml'; mend params.yaml"
    )
