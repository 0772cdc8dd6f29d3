"""One model on several processes: each computes its chips, and all take the same step.

Law: whatever the number of processes, the gradient and the running statistics after a step are, but
for rounding, those of one process that computes the step's micro-batches one after another.
"""

import gc
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from biomassters.batches.distributed import Processes
from biomassters.batches.order import EpochOrder
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.kept_months import KeptMonths
from biomassters.training.batch_norm import RunningStatistics


class Replica:
    """This process's copy of the model that is trained; alone, the model and nothing else."""

    def __init__(self, model: BiomassModel, processes: Processes, order: EpochOrder) -> None:
        """Prepare a model.

        Args:
            model: On this process's device; changed where processes share micro-batches.
            processes: That train together.
            order: Says how they share a step.
        """
        self.model = model
        self.processes = processes
        self.order = order
        self._statistics: RunningStatistics | None = None
        self._parallel: DistributedDataParallel | None = None
        if processes.size == 1:
            return
        if order.sharers > 1:
            from biomassters.training.shared_norms import synchronise  # timm: see `model.encoder`

            synchronise(model, processes.divide(processes.size // order.sharers))
        self._statistics = RunningStatistics(model)

    def connect(self) -> None:
        """Prepare to add gradients up; again whenever other parameters are to be trained.

        DDP looks once, when it is made, which parameters have gradients.
        """
        if self.processes.size == 1:
            return
        self._parallel = None
        gc.collect()  # the hooks of the connection before end with it, and it is part of a cycle
        self._parallel = add_gradients_up(_ScaledPrediction(self.model))

    def predict_kept(self, images: Tensor, kept: KeptMonths) -> Tensor:
        """Return `BiomassModel.predict_kept`, whose gradients will be those of all processes."""
        if self._parallel is None:
            return self.model.predict_kept(images, kept)
        scaled: Tensor = self._parallel(images, kept)
        return scaled

    def accumulate(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Return the context of a micro-batch; only after the step's last one do processes talk.

        Then the gradient is the mean over the processes.
        """
        if is_last or self._parallel is None:
            return nullcontext()
        return self._parallel.no_sync()

    def begin_step(self) -> None:
        """Remember the running statistics."""
        if self._statistics is not None:
            self._statistics.remember()

    def end_step(self) -> None:
        """Let the running statistics be those of all micro-batches."""
        if self._statistics is not None:
            self._statistics.combine(self.processes, self.order.micro_batches_per_step)


def add_gradients_up(module: nn.Module) -> DistributedDataParallel:
    """Return a module whose gradients become the mean over the processes, buffers left alone.

    Those are the running statistics, which `Replica.end_step` combines better than by taking the
    first process's. All that is trained has a gradient (the decoder's uncalled attention is
    frozen), so that DDP need not search each graph for what has none.
    """
    # The second is the first one's name before torch 2.15, which warns of it.
    is_new = "forward_sync_buffers" in DistributedDataParallel.__init__.__annotations__
    name = "forward_sync_buffers" if is_new else "broadcast_buffers"
    options: dict[str, Any] = {name: False, "gradient_as_bucket_view": True}
    return DistributedDataParallel(module, **options)


class _ScaledPrediction(nn.Module):
    """The forward pass that DDP wraps: it knows `forward` alone, and we need `predict_kept`."""

    def __init__(self, model: BiomassModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, kept: KeptMonths) -> Tensor:
        return self.model.predict_kept(images, kept)
