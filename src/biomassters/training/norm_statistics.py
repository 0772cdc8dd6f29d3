"""The running statistics of batch normalisation, computed anew from train chips.

Evaluation rests on them, and what training leaves are moving averages over its last ten or so
micro-batches, of other weights each. While these change fast, a kind of chip that is rare (open
water among forests) meets statistics in which it has no part: in training it is a part of those of
its own micro-batch, in evaluation its features grow from layer to layer, and it may be predicted
thousands of t/ha where the loss is smooth (docs/experiments.md has the measurement).

So the statistics can be computed anew for the weights as they are, from many chips in passes of
`PASS_CHIPS`. In passes as small as micro-batches, a rare chip would still be too large a part of
its own statistics.

Source: Wu and Johnson 2021, Rethinking "Batch" in BatchNorm, arXiv:2105.07576, section 3.

Not torch's `swa_utils.update_bn`, which resets a frozen encoder too, lets dropout work, and knows
one process.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from biomassters.batches.distributed import ALONE, Processes
from biomassters.batches.order import StoreOrder
from biomassters.batches.reading import open_batches, prefetch
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.execution import autocast
from biomassters.store.chips import ChipStore
from biomassters.training.batch_norm import (
    flatten_statistics,
    list_training_norms,
    write_statistics,
)

PASS_CHIPS: Final = 32
"""Most chips of a forward pass. With 8, the rarest chips were still wrong by half; with 16 to 64
the scores were the same within 2 t/ha."""


class TrainChips:
    """The chips of a training, from which the statistics are computed."""

    def __init__(
        self,
        store: ChipStore,
        indices: Sequence[int],
        *,
        n_chips: int,
        seed: int,
        precision: str,
        processes: Processes = ALONE,
    ) -> None:
        """Remember them; nothing is read.

        Args:
            store: The chips.
            indices: Positions of the training chips in the store.
            n_chips: As many of them are drawn at a time, at most; 0: statistics stay as they are.
            seed: Of these draws.
            precision: Arithmetic of the forward pass.
            processes: That train together, and share the passes.
        """
        self.store = store
        self.indices = np.asarray(indices)
        self.n_chips = min(n_chips, len(indices))
        self.seed = seed
        self.precision = precision
        self.processes = processes

    def draw(self, epoch: int) -> StoreOrder:
        """Draw chips from (seed, epoch), in passes of one size; of several processes, its passes.

        As many chips are left out as fill no pass.
        """
        n_passes = -(-self.n_chips // PASS_CHIPS)
        size = self.n_chips // n_passes
        random = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        chips = random.permutation(self.indices)[: size * n_passes].tolist()
        return StoreOrder(chips, size, rank=self.processes.rank, size=self.processes.size)

    @torch.no_grad()
    def recompute(self, model: BiomassModel, epoch: int) -> None:
        """Compute a model's statistics anew, in all processes alike; it is then in evaluation mode.

        They are the mean of those of the passes, over chips without augmentation. Those of a frozen
        encoder stay, and so does all else of the model.

        Args:
            model: On the device where it trains.
            epoch: Decides, with the seed, which chips are drawn.
        """
        if not self.n_chips:
            return
        model.train()  # which a frozen encoder heeds not
        norms = list_training_norms(model)
        model.eval()  # no dropout
        if not norms:
            return
        with _as_they_train(norms):
            statistics = self._average_passes(model, norms, self.draw(epoch))
        write_statistics(norms, statistics)

    def _average_passes(
        self, model: BiomassModel, norms: Sequence[_BatchNorm], order: StoreOrder
    ) -> Tensor:
        """Return the mean over the passes of all processes of the norms' statistics, flat."""
        device = model.device
        total = torch.zeros_like(flatten_statistics(norms), dtype=torch.float64)
        n_passes = torch.zeros((), dtype=torch.float64, device=device)
        for batch in prefetch(open_batches(self.store, order), device):
            images = model.normalise(batch.s1, batch.s2, batch.s2_present)
            with autocast(device, self.precision):
                model.predict_scaled(images, model.ignore_months(batch.s2_present))
            total += flatten_statistics(norms)
            n_passes += 1
        return (self.processes.add(total) / self.processes.add(n_passes)).float()


@contextmanager
def _as_they_train(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Let norms, and nothing else, work as in training; each pass leaves its own statistics."""
    from biomassters.training.shared_norms import normalise_alone  # timm: see `model.encoder`

    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    with normalise_alone(norms):
        for norm in norms:
            norm.train()
            norm.momentum = 1.0  # nothing of the pass before is left
            norm.num_batches_tracked = None  # it counts steps of training
        yield
    for norm, (momentum, count) in zip(norms, before, strict=True):
        norm.eval()
        norm.momentum, norm.num_batches_tracked = momentum, count
