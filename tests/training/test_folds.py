import csv
import json
import lzma
from pathlib import Path

import numpy as np
import pytest

from biomassters.errors import ParamsError
from biomassters.params.sections import SplitParams
from biomassters.training.folds import assign_folds

IDS = [f"{number:08x}" for number in range(103)]
AGBM_MEAN = np.random.default_rng(1).gamma(1.0, 60.0, len(IDS))
METHODS = pytest.mark.parametrize("method", ["random", "stratified"])


def params(method: str, n_folds: int = 10, seed: int = 314159) -> SplitParams:
    return SplitParams.model_validate({"method": method, "n_folds": n_folds, "seed": seed})


def test_random_fold_0_is_the_winners(shared_folder: Path) -> None:
    golden = json.loads((shared_folder / "golden" / "winner_fold_0.json").read_text())
    with lzma.open(shared_folder / "catalogue" / "train_agbm_metadata.csv.xz", "rt") as file:
        ids = sorted(row["chip_id"] for row in csv.DictReader(file))
    folds = assign_folds(ids, np.zeros(len(ids)), params("random", golden["n_folds"]))
    assert golden["seed"] == 314159
    assert [chip_id for chip_id, fold in zip(ids, folds, strict=True) if fold == 0] == sorted(
        golden["fold_0"]
    )


@METHODS
def test_fold_sizes_differ_by_one_at_most(method: str) -> None:
    sizes = np.bincount(assign_folds(IDS, AGBM_MEAN, params(method)), minlength=10)
    assert sorted(sizes) == [10] * 7 + [11] * 3


@METHODS
def test_fold_of_a_chip_does_not_depend_on_the_order(method: str) -> None:
    order = np.random.default_rng(2).permutation(len(IDS))
    shuffled = assign_folds([IDS[i] for i in order], AGBM_MEAN[order], params(method))
    np.testing.assert_array_equal(shuffled, assign_folds(IDS, AGBM_MEAN, params(method))[order])


@METHODS
def test_another_seed_gives_other_folds(method: str) -> None:
    one, other = (assign_folds(IDS, AGBM_MEAN, params(method, seed=seed)) for seed in (0, 1))
    assert (one != other).mean() > 0.5


def test_stratified_folds_have_like_biomass() -> None:
    ids = [f"{number:08x}" for number in range(1000)]
    agbm_mean = np.random.default_rng(1).gamma(1.0, 60.0, 1000)

    def spread(method: str) -> float:
        folds = assign_folds(ids, agbm_mean, params(method))
        return float(np.std([agbm_mean[folds == fold].mean() for fold in range(10)]))

    assert spread("stratified") < 0.4 * spread("random")


def test_stratified_folds_share_out_each_tenth_of_the_biomass() -> None:
    folds = assign_folds(IDS, AGBM_MEAN, params("stratified"))
    by_biomass = folds[np.argsort(AGBM_MEAN)]
    for first in range(0, 100, 10):
        assert sorted(by_biomass[first : first + 10]) == list(range(10))


def test_more_folds_than_chips_are_refused() -> None:
    with pytest.raises(ParamsError, match=r"split\.n_folds of at most 3, .* got 5"):
        assign_folds(IDS[:3], AGBM_MEAN[:3], params("random", n_folds=5))
