"""What a chip goes through between the store and the network of a training.

Normalised, changed at random, and without the months that are not encoded: on a GPU in a few
operations on the whole batch (`Preparation.prepare`), on a CPU chip by chip in the threads that
read, beside the step before (`PreparedChips`). Both give the same numbers.
"""

import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from biomassters.batches.order import EpochOrder
from biomassters.batches.reading import Batch, Batches, count_threads, open_batches, prefetch
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.kept_months import KeptMonths, find_kept_months, merge_ignored
from biomassters.model.normalisation import find_nearest_months
from biomassters.params.sections import AugmentationParams
from biomassters.store.bands import N_MONTHS
from biomassters.store.chips import ChipStore
from biomassters.training.augmentation import (
    Changes,
    PixelSources,
    augment,
    change_target,
    draw_changes,
)
from biomassters.training.optimisation import Schedule


class Prepared(NamedTuple):
    """A batch as the network takes it.

    Attributes:
        chip_index: Positions in the store, (B,), on the CPU.
        images: Normalised bands of the kept months, (M, C, H, W); on a CPU channels last.
        kept: Which months of which chips they are.
        target: AGBM, (B, H, W), float32, t/ha; NaN = no target.
        changes: What happens to each chip; None: nothing.
    """

    chip_index: Tensor
    images: Tensor
    kept: KeptMonths
    target: Tensor
    changes: list[Changes] | None


class Preparation:
    """How the chips of a training are prepared.

    Attributes:
        epoch: Which one; set before its batches are asked for.
    """

    def __init__(
        self,
        model: BiomassModel,
        store: ChipStore,
        schedule: Schedule,
        augmentation: AugmentationParams,
        *,
        seed: int,
    ) -> None:
        """Remember them.

        Args:
            model: Normalises, and says which months it ignores; on the device where it trains.
            store: The chips.
            schedule: Says which epochs have no augmentation.
            augmentation: Random changes of the chips.
            seed: Of these changes.
        """
        self.model = model
        self.store = store
        self.schedule = schedule
        self.augmentation = augmentation
        self.seed = seed
        self.epoch = 0

    def open_batches(self, order: EpochOrder) -> Iterator[Prepared]:
        """Yield an epoch's batches in order, on the model's device."""
        if self.model.device.type == "cpu":
            yield from Batches(PreparedChips(self), order, count_threads())
            return
        for batch in prefetch(open_batches(self.store, order), self.model.device):
            yield self.prepare(batch)

    def prepare(self, batch: Batch) -> Prepared:
        """Prepare chips as stored, where they lie."""
        indices = batch.chip_index.tolist()
        images = self.model.normalise(batch.s1, batch.s2, batch.s2_present)  # (B, T, C, H, W)
        target = batch.target
        changes = self.draw(indices)
        if changes is not None:
            images, target = augment(images, target, changes)
        kept = self.choose_months(batch.s2_present, changes, images.device)
        return Prepared(batch.chip_index, kept.pick(images), kept, target, changes)

    def draw(self, indices: list[int]) -> list[Changes] | None:
        """Return what happens to chips in this epoch; None: nothing."""
        if self.schedule.is_plain(self.epoch):
            return None
        samples = [(self.seed, self.epoch, index) for index in indices]
        return [draw_changes(self.augmentation, sample, N_MONTHS) for sample in samples]

    def choose_months(
        self, s2_present: Tensor, changes: list[Changes] | None, device: torch.device
    ) -> KeptMonths:
        """Return which months are encoded, of chips with these absent ones, (B, T) bool."""
        ignored = self.model.ignore_months(s2_present)
        if changes is not None:
            lost = torch.from_numpy(np.stack([change.lost for change in changes]))
            ignored = merge_ignored(ignored, lost)
        return find_kept_months(ignored, s2_present.shape, device)


class PreparedChips:
    """Chips prepared one by one on the CPU; a `Filling`.

    A tenth of what a training takes at 256 pixels was this, while all cores waited for one of
    them: passes over whole batches, each of which waits for memory. Here a month goes through a
    core's own cache from what is stored to what is encoded, and a month that is not encoded is
    not touched.
    """

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation
        self._store = preparation.store
        self._n_bands = preparation.model.bands.n_bands
        self._own = threading.local()  # each thread's arrays, for one chip after another

    def make_room(self, indices: list[int]) -> Prepared:
        """Return a batch whose images and targets are to be filled in."""
        size = self._store.chip_size
        changes = self._preparation.draw(indices)
        s2_present = torch.from_numpy(self._store.s2_present[indices])
        kept = self._preparation.choose_months(s2_present, changes, torch.device("cpu"))
        n_images = kept.n_chips * kept.n_months
        if kept.positions is not None:
            n_images = len(kept.positions)
        # Channels last, as convolutions like it best; and numpy's memory lies in large pages.
        images = np.empty((n_images, size, size, self._n_bands), np.float32)
        target = np.empty((len(indices), size, size), np.float32)
        return Prepared(
            torch.tensor(indices),
            torch.from_numpy(images).permute(0, 3, 1, 2),
            kept,
            torch.from_numpy(target),
            changes,
        )

    def read_chip(self, index: int, batch: Prepared, row: int) -> None:
        """Read, normalise and change a chip."""
        arrays, plane = self._find_own_arrays()
        chip = self._store.read_chip(index, arrays)
        change = None if batch.changes is None else batch.changes[row]
        sources = None if change is None else PixelSources.find(change, self._store.chip_size)
        shown = self._list_shown_months(chip.s2_present)
        first, months = _find_images(batch.kept, row)
        normalisation = self._preparation.model.normalisation
        for position, month in enumerate(months, first):
            out = batch.images[position].permute(1, 2, 0).numpy()  # (H, W, C)
            normalised = out if sources is None else plane
            optical = None if shown[month] is None else chip.s2[shown[month]]
            normalisation.normalise_month(chip.s1[month], optical, normalised.transpose(2, 0, 1))
            if sources is not None:
                sources.take(plane, out)
        if chip.agbm is None:
            batch.target[row].fill_(torch.nan)
            return
        target = torch.from_numpy(chip.agbm)[None]
        batch.target[row] = (target if change is None else change_target(target, [change]))[0]

    def _list_shown_months(self, s2_present: npt.NDArray[np.bool_]) -> list[int | None]:
        """Return whose Sentinel-2 images each month shows; None: none's."""
        if self._preparation.model.fills_absent_months and s2_present.any():
            return find_nearest_months(torch.from_numpy(s2_present)[None])[0].tolist()
        return [month if present else None for month, present in enumerate(s2_present)]

    def _find_own_arrays(self) -> tuple[Any, npt.NDArray[np.float32]]:
        """Return this thread's arrays of a chip as stored, and a month's normalised bands."""
        if not hasattr(self._own, "arrays"):
            size = self._store.chip_size
            self._own.arrays = (
                self._store.make_arrays(),
                np.empty((size, size, self._n_bands), np.float32),
            )
        arrays: tuple[Any, npt.NDArray[np.float32]] = self._own.arrays
        return arrays


def _find_images(kept: KeptMonths, row: int) -> tuple[int, list[int]]:
    """Return where a chip's kept months begin among all of a batch, and which these are."""
    begin = row * kept.n_months
    if kept.positions is None:
        return begin, list(range(kept.n_months))
    bounds = torch.tensor([begin, begin + kept.n_months])
    first, end = torch.searchsorted(kept.positions, bounds).tolist()
    return first, (kept.positions[first:end] - begin).tolist()
