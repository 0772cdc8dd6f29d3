"""The training loop; killed at any moment, it goes on.

An *epoch* shows every chip once, but for a few that fill no step. A *step* moves the weights once,
by the gradient of `batch_size` chips. They pass through the model in *micro-batches*, whose
gradients add up: a micro-batch is what one forward pass sees and batch norm averages over.

`Trainer.fit` is the loop, and what follows it goes one level down at a time. How processes share a
step is in `replicas`, and which chips each of them gets in `batches.order`.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from biomassters.batches.distributed import ALONE, Processes
from biomassters.batches.order import EpochOrder
from biomassters.errors import TrainingError
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.execution import autocast
from biomassters.params.sections import AugmentationParams, OptimisationParams
from biomassters.store.chips import ChipStore
from biomassters.training.checkpoint import Checkpoints
from biomassters.training.kept_weights import Keeper, MovingAverage
from biomassters.training.loss_watch import LossWatch, StepLosses
from biomassters.training.losses import chip_losses
from biomassters.training.norm_statistics import TrainChips
from biomassters.training.optimisation import Schedule, build_optimizer, scale_gradients, set_lr
from biomassters.training.preparation import Preparation, Prepared
from biomassters.training.recorder import Recorder
from biomassters.training.replicas import Replica
from biomassters.training.trial import try_steps

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train.

    Attributes:
        schedule: Epochs and learning rate.
        seed: Of the order of the chips and of their augmentation.
        optimisation: Batch size, optimizer and loss.
        augmentation: Random changes of the chips.
        validation_every: Epochs between two validations; the last epoch always has one.
    """

    schedule: Schedule
    seed: int
    optimisation: OptimisationParams
    augmentation: AugmentationParams
    validation_every: int = 1


class Trainer:
    """Trains a model in place, alone or together with other processes.

    On a CPU, the result of a training that was killed and repeated is byte-identical to that of
    one that was not: all that is random is drawn from (seed, epoch, chip), and what a backbone
    drops from (seed, epoch, step, micro-batch).

    Args:
        model: On the device where it will train; the same in all processes.
        store: The chips.
        indices: Positions of the training chips in the store.
        recipe: How to train.
        keeper: Sees the model after each epoch; holds what the training hands over.
        validate: Scores a model by metric, equally in all processes; None = no validation.
        processes: That train together.

    Raises:
        ParamsError: They cannot share a batch evenly.
        ModelError: The model does not run on the store's chips, or cannot train on so few of them.
    """

    def __init__(
        self,
        model: BiomassModel,
        store: ChipStore,
        indices: list[int],
        recipe: Recipe,
        *,
        keeper: Keeper,
        validate: Callable[[BiomassModel], Mapping[str, float]] | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.model = model
        self.recipe = recipe
        self.keeper = keeper
        self.validate = validate
        self.processes = processes
        self.chip_ids = store.chip_ids
        self.device = model.device
        optimisation = recipe.optimisation
        self.order = EpochOrder(
            indices,
            batch_size=optimisation.batch_size,
            micro_batch_size=optimisation.micro_batch_size,
            seed=recipe.seed,
            rank=processes.rank,
            size=processes.size,
        )
        try_steps(
            model,
            store,
            self.order,
            phase=recipe.schedule.phase,
            augmentation=recipe.augmentation,
            precision=optimisation.precision,
        )
        self.preparation = Preparation(
            model, store, recipe.schedule, recipe.augmentation, seed=recipe.seed
        )
        self.train_chips = TrainChips(
            store,
            indices,
            n_chips=optimisation.batch_norm_chips,
            seed=recipe.seed,
            precision=optimisation.precision,
            processes=processes,
        )
        self.optimizer = build_optimizer(model, recipe.schedule.lr, optimisation.weight_decay)
        # Keeps fp16's small gradients from vanishing; otherwise it passes all through as it is.
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=optimisation.precision == "fp16"
        )
        self.replica = Replica(model, processes, self.order)
        self.average: MovingAverage | None = None
        if optimisation.ema_decay > 0:
            self.average = MovingAverage(model, optimisation.ema_decay)
        self._is_frozen: bool | None = None  # the encoder; None before the first epoch
        self.value_range = model.scale_target(torch.tensor(optimisation.max_target)).item()
        if optimisation.compile:
            model.compile_network()

    def fit(self, checkpoints: Checkpoints, curves: Path) -> None:
        """Train, from the newest checkpoint if there is one.

        Afterwards the model has the weights that were validated last: the moving average, if there
        is one.

        Args:
            checkpoints: Where to go on from, and where to save after each epoch.
            curves: The folder of the recorded curves.

        Raises:
            TrainingError: A loss or a weight is not finite; the checkpoint of the epoch before
                stays.
        """
        state = checkpoints.load()
        first_epoch = 0 if state is None else self._restore(state)
        recorder = None
        if self.processes.is_first:
            recorder = Recorder(curves, None if state is None else state["curves"])
        del state  # as large as the model
        with self._show_progress(first_epoch) as bar:
            for epoch in range(first_epoch, self.recipe.schedule.phase.epochs):
                values = self._train_epoch(epoch, bar)
                with self._averaged_weights():
                    values |= self._validate_epoch(epoch)
                    self.keeper.update(epoch, self.model, values)
                # An epoch is over with its checkpoint, which holds the curves up to here: killed
                # before, all of it is done again, and the curves do not show it twice.
                if recorder is not None:
                    recorder.record_epoch(values)
                    checkpoints.save(self._state(epoch) | {"curves": recorder.copy_files()})
        if self.average is not None:
            self.average.swap()

    def _train_epoch(self, epoch: int, bar: "tqdm[Any]") -> dict[str, float]:
        """Train on all chips; return what is recorded of it, the loss as its mean over steps."""
        self.order.epoch = self.preparation.epoch = epoch
        self._freeze_encoder(epoch)
        self.model.train()  # the validation before left it in evaluation mode
        started = time.perf_counter()
        watch = LossWatch(self.processes, self.chip_ids, epoch)
        # One iterator for all steps: the next micro-batches are read while this one is computed.
        batches = self.preparation.open_batches(self.order)
        for step in range(self.order.steps):
            lr = self.recipe.schedule.learning_rate(epoch + step / self.order.steps)
            set_lr(self.optimizer, lr)
            watch.add(self._take_step(batches, epoch, step))
            bar.update()
        loss = watch.finish()
        self._refuse_non_finite_weights(epoch)
        seconds = time.perf_counter() - started
        return {
            "train/loss": loss,
            "train/lr": lr,  # of the last step
            "train/chips_per_second": self.order.steps * self.order.batch_size / seconds,
        }

    def _take_step(self, batches: Iterator[Prepared], epoch: int, step: int) -> StepLosses:
        """Add up the gradients of the step's micro-batches, and move the weights by their mean.

        Nothing here asks a GPU for a number, for which the host would have to wait.
        """
        n_micro_batches = self.order.micro_batches_per_step
        losses: list[Tensor] = []
        indices: list[int] = []
        n_chips = torch.zeros((), device=self.device)  # those with a valid pixel
        self.optimizer.zero_grad(set_to_none=True)
        self.replica.begin_step()
        for micro_batch in range(n_micro_batches):
            batch = next(batches)
            self._seed_dropout(epoch, step, micro_batch)
            with self.replica.accumulate(is_last=micro_batch + 1 == n_micro_batches):
                of_chips, contributes = self._compute_losses(batch)
                # By a constant, for now: the number of chips with a loss, over all micro-batches
                # and processes, is not known before the last of them; see `_descend`.
                loss = of_chips.sum() / self.order.batch_size
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            losses.append(of_chips.detach())
            indices += batch.chip_index.tolist()
            n_chips += contributes.sum()
        self.replica.end_step()
        here = torch.cat(losses)
        total = self.processes.add(torch.stack([here.sum(), n_chips]))
        self._descend(total[1])
        return StepLosses(total=total, chip_losses=here, chip_indices=indices)

    def _compute_losses(self, batch: Prepared) -> tuple[Tensor, Tensor]:
        """Return each chip's loss and whether it has one, (B,) both."""
        optimisation = self.recipe.optimisation
        with autocast(self.device, optimisation.precision):
            prediction = self.replica.predict_kept(batch.images, batch.kept)
        valid = batch.target < optimisation.max_target  # False for NaN
        losses = chip_losses(
            optimisation.loss,
            prediction,
            self.model.scale_target(batch.target),
            valid,
            value_range=self.value_range,
            quantiles=self.model.quantiles,
        )
        return losses, valid.any(dim=2).any(dim=1)

    def _descend(self, n_chips: Tensor) -> None:
        """Take the optimizer's step by the mean of the losses of chips, `n_chips` in all."""
        # What has added up, averaged over the processes, is the gradient of
        # Σ losses / (processes * batch size). It shall be that of Σ losses / n_chips.
        n_counted = self.processes.size * self.order.batch_size
        self.scaler.unscale_(self.optimizer)  # what is clipped is the gradient itself
        scale_gradients(
            self.optimizer, n_counted / n_chips.clamp(min=1), self.recipe.optimisation.clip_norm
        )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update()

    def _seed_dropout(self, epoch: int, step: int, micro_batch: int) -> None:
        """Make what a backbone drops depend on the place of a micro-batch in the training alone.

        Torch's generator, left to itself, would have a state for the checkpoint, on each device,
        and go on from what this process ran before: another number of processes, other numbers.
        """
        # Of processes that share a micro-batch, each has a seed of its own.
        place = self.order.first_micro_batch + micro_batch, self.order.part
        entropy = np.random.SeedSequence([self.recipe.seed, epoch, step, *place])
        torch.manual_seed(int(entropy.generate_state(1)[0]))

    def _freeze_encoder(self, epoch: int) -> None:
        is_frozen = self.recipe.schedule.is_encoder_frozen(epoch)
        if is_frozen != self._is_frozen:
            self.model.freeze_encoder(is_frozen)
            self.replica.connect()  # other parameters have gradients to be added up
            self._is_frozen = is_frozen

    def _validate_epoch(self, epoch: int) -> dict[str, float]:
        is_due = (epoch + 1) % self.recipe.validation_every == 0
        if self.validate is None or not (is_due or self.recipe.schedule.is_last(epoch)):
            return {}
        self.train_chips.recompute(self.model, epoch)
        self.model.eval()
        return dict(self.validate(self.model))

    def _averaged_weights(self) -> AbstractContextManager[None]:
        return nullcontext() if self.average is None else self.average.in_place()

    def _refuse_non_finite_weights(self, epoch: int) -> None:
        # The last step of an epoch can spoil them, which no loss of this epoch would show.
        state = self.model.state_dict()
        # Asked at once: the host waits for a GPU once, not for each of a thousand tensors.
        are_finite = torch.stack([tensor.isfinite().all() for tensor in state.values()]).tolist()
        for name, is_finite in zip(state, are_finite, strict=True):
            if not is_finite:
                raise TrainingError(
                    f"expected finite weights, got others at {name} after epoch {epoch};"
                    " lower lr: the checkpoint of the epoch before is kept"
                )

    def _show_progress(self, first_epoch: int) -> "tqdm[Any]":
        steps = self.order.steps
        return tqdm(
            total=steps * self.recipe.schedule.phase.epochs,
            initial=steps * first_epoch,
            unit="step",
            disable=None if self.processes.is_first else True,
        )

    def _state(self, epoch: int) -> dict[str, Any]:
        """Return what the next epoch depends on and cannot compute.

        Not the learning rate, the order of the chips, or whether the encoder is frozen: these are
        functions of the moment. Nor the state of any random generator: none outlives a micro-batch.
        """
        return {
            "epoch": epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.state(),
            "keeper": self.keeper.state(),
        }

    def _restore(self, state: dict[str, Any]) -> int:
        """Take up what `_state` returned, in all processes alike; return the epoch to go on with.

        The recipe is the one that it was saved with: another has another folder of checkpoints.
        """
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.restore(state["average"])
        self.keeper.restore(state["keeper"])
        epochs = self.recipe.schedule.phase.epochs
        if self.processes.is_first:
            log.warning("going on after epoch %d of %d", state["epoch"], epochs)
        return int(state["epoch"]) + 1
