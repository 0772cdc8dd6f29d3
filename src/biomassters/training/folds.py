"""The division of the train chips into folds, by their ids and, if asked, their mean biomass."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from biomassters.errors import ParamsError
from biomassters.params.sections import SplitParams
from biomassters.store.chips import ChipStore


def split_chips(store: ChipStore, split: SplitParams, fold: int) -> tuple[list[int], list[int]]:
    """Divide a store for one fold.

    Returns:
        The indices of the training chips, and of the validation chips that the fold holds out.

    Raises:
        ParamsError: There are fewer chips than folds.
    """
    folds = assign_folds(store.chip_ids, store.agbm_mean, split)
    return np.flatnonzero(folds != fold).tolist(), np.flatnonzero(folds == fold).tolist()


def assign_folds(
    chip_ids: Sequence[str], agbm_mean: NDArray[np.float64], split: SplitParams
) -> NDArray[np.int64]:
    """Assign each chip to the fold that holds it out.

    Laws: each chip is in one fold; the folds' sizes differ by one at most; a chip's fold does not
    depend on the order in which the chips are given.

    Args:
        chip_ids: Names of the chips.
        agbm_mean: Mean AGBM of each chip, (n,), t/ha; read by `stratified` only.
        split: The method, the number of folds and the seed.

    Returns:
        Fold numbers, (n,), 0...n_folds - 1.

    Raises:
        ParamsError: There are fewer chips than folds.
    """
    if len(chip_ids) < split.n_folds:
        raise ParamsError(
            f"expected split.n_folds of at most {len(chip_ids)}, the number of train chips,"
            f" got {split.n_folds}, at params.yaml; lower it"
        )
    order = np.argsort(np.asarray(chip_ids, dtype=str))
    if split.method == "random":
        ranked = _assign_random(len(order), split)
    else:
        ranked = _assign_stratified(agbm_mean[order], split)
    folds = np.empty(len(order), np.int64)
    folds[order] = ranked
    return folds


def _assign_random(n_chips: int, split: SplitParams) -> NDArray[np.int64]:
    """Shuffle, then cut into consecutive blocks, the longer ones first.

    Source: the winner's code, which calls scikit-learn's KFold(shuffle=True).
    """
    shuffled = np.arange(n_chips)
    # The legacy generator: a newer one would make other folds than the winner's.
    np.random.RandomState(split.seed).shuffle(shuffled)
    folds = np.empty(n_chips, np.int64)
    for fold, block in enumerate(np.array_split(shuffled, split.n_folds)):
        folds[block] = fold
    return folds


def _assign_stratified(agbm_mean: NDArray[np.float64], split: SplitParams) -> NDArray[np.int64]:
    """Deal chips of similar biomass out to different folds: n_folds at a time, in random order."""
    by_biomass = np.argsort(agbm_mean, kind="stable")
    random = np.random.Generator(np.random.PCG64(split.seed))
    n_rounds = -(-len(agbm_mean) // split.n_folds)
    dealt = np.concatenate([random.permutation(split.n_folds) for _ in range(n_rounds)])
    folds = np.empty(len(agbm_mean), np.int64)
    folds[by_biomass] = dealt[: len(agbm_mean)]
    return folds
