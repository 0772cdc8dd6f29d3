"""Gradient-boosted trees from a pixel's composites to its biomass: sampled, fitted, mapped.

Laws: the bytes of a map depend on the chips and the section `baselines` alone, not on the number
of threads; memory does not grow with the number of chips.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from biomassters.baselines.composites import N_COMPOSITES, Floats, compose_months
from biomassters.errors import StoreError
from biomassters.params.sections import BaselinesParams
from biomassters.prediction.maps import write_prediction
from biomassters.store.chips import ChipStore

NAME: Final = "trees"
"""Of this baseline, for folders and tags."""


class Samples(NamedTuple):
    """Pixels that trees are fitted to.

    Attributes:
        composites: (n, N_COMPOSITES), dB and DN; NaN = no data.
        targets: AGBM, (n,), t/ha.
        chip_index: Position in the store of the chip that each pixel is from, (n,).
    """

    composites: Floats
    targets: Floats
    chip_index: NDArray[np.intp]


class Trees(Protocol):
    """What `fit_trees` returns."""

    def predict(self, composites: Floats) -> NDArray[np.float64]:
        """Return AGBM, (n,), t/ha, of composites, (n, N_COMPOSITES)."""
        ...


def sample_pixels(store: ChipStore, params: BaselinesParams) -> Samples:
    """Draw pixels with a target, as many of each chip that has any; each chip is read once.

    What is drawn of a chip depends on its name, not on the other chips but for their number.

    Args:
        store: The chips.
        params: How many pixels of all chips together, and the seed.
    """
    chips = np.flatnonzero(np.isfinite(store.agbm_mean))
    per_chip = min(max(1, params.pixels // max(1, len(chips))), store.chip_size**2)
    # Made whole at once: a list of parts would need its memory twice when they are joined.
    composites = np.empty((len(chips) * per_chip, N_COMPOSITES), np.float32)
    targets = np.empty(len(composites), np.float32)
    chip_index = np.empty(len(composites), np.intp)
    n = 0
    for index in tqdm(chips.tolist(), desc="pixels", unit="chip", disable=None):
        chip = store.read_chip(index)
        random = np.random.Generator(np.random.PCG64([params.seed, *chip.chip_id.encode()]))
        agbm = np.asarray(chip.agbm).ravel()
        with_target = np.flatnonzero(np.isfinite(agbm))
        drawn = random.permutation(with_target)[:per_chip]
        rows = slice(n, n + len(drawn))
        composites[rows] = compose_months(chip, drawn)
        targets[rows], chip_index[rows] = agbm[drawn], index
        n = rows.stop
    return Samples(composites[:n], targets[:n], chip_index[:n])


def fit_trees(samples: Samples, chips: Collection[int], params: BaselinesParams) -> Trees:
    """Fit trees to the pixels of some chips, by their squared error.

    Args:
        samples: Of all chips.
        chips: Positions in the store of those to fit to.
        params: How many trees, and the seed.

    Raises:
        StoreError: These chips have no pixel with a target.
    """
    rows = np.isin(samples.chip_index, list(chips))
    if not rows.any():
        raise StoreError(
            "expected targets of the train chips that trees are fitted to, got none;"
            " add their targets, or take these chips out of the catalogue"
        )
    trees = HistGradientBoostingRegressor(
        max_iter=params.max_iter,
        # The pixels that it would hold out to stop early lie beside those that it is fitted to.
        early_stopping=False,
        random_state=params.seed,
    )
    composites = samples.composites[rows]
    # scikit-learn fails on a band without any value, such as an orbit that no chip has; where all
    # are equal, no tree asks for it.
    composites[:, np.isnan(composites).all(axis=0)] = 0
    # In one thread: several would add up gradients in an order of their own, and where others need
    # the cores, too, they wait for each other far longer than they compute.
    with threadpool_limits(limits=1):
        fitted: Trees = trees.fit(composites, samples.targets[rows])
    return fitted


def write_maps(
    trees: Trees, store: ChipStore, chips: Sequence[int], folder: Path, tags: Mapping[str, str]
) -> None:
    """Write the predictions of chips; less than 0 t/ha is 0.

    Args:
        trees: Whose predictions they are.
        store: The chips.
        chips: Positions in the store.
        folder: Where the maps go; made if absent.
        tags: How they were made, for each file's tags.
    """
    shape = store.chip_size, store.chip_size
    with threadpool_limits(limits=1):
        for index in tqdm(chips, desc=folder.name, unit="chip", disable=None):
            chip = store.read_chip(index)
            agbm = np.maximum(trees.predict(compose_months(chip)), 0).astype(np.float32)
            made = {"MODELS": NAME, **tags}
            write_prediction(folder, chip.chip_id, agbm.reshape(shape), made, chip.georeference)
