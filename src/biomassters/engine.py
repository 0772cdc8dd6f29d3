"""The epoch loop: train, validate, record, checkpoint; killed at any moment, it goes on."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from biomassters.augmentation import augment
from biomassters.batches import Batch, EpochOrder, open_batches
from biomassters.checkpoint import Checkpoints
from biomassters.chips import ChipStore
from biomassters.errors import TrainingError
from biomassters.losses import chip_rmse_loss
from biomassters.model import BiomassModel
from biomassters.params.recipe import AugmentationParams, OptimisationParams
from biomassters.precision import autocast
from biomassters.recorder import Recorder
from biomassters.selection import Keeper

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train.

    Attributes:
        lr: Peak learning rate.
        lr_min: Where a cosine leads it; a peak below stays as it is.
        epochs: Passes over the training chips.
        seed: Of the order of the chips and of their augmentation.
        optimisation: Batch size, optimizer and loss.
        augmentation: Random changes of the chips.
        validation_every: Epochs between two validations; the last epoch always has one.
    """

    lr: float
    lr_min: float
    epochs: int
    seed: int
    optimisation: OptimisationParams
    augmentation: AugmentationParams
    validation_every: int = 1


class Trainer:
    """Trains a model in place.

    On a CPU, the result of a training that was killed and repeated is byte-identical to that of
    one that was not: all that is random is drawn from (seed, epoch, chip).
    """

    def __init__(
        self,
        *,
        model: BiomassModel,
        store: ChipStore,
        indices: list[int],
        recipe: Recipe,
        keeper: Keeper,
        validate: Callable[[BiomassModel], Mapping[str, float]] | None = None,
    ) -> None:
        """Prepare a training.

        Args:
            model: On the device where it will train.
            store: The chips.
            indices: Positions of the training chips in the store.
            recipe: How to train.
            keeper: Sees the model after each epoch; holds what the training hands over.
            validate: Scores a model by metric; None = no validation.
        """
        self.model = model
        self.recipe = recipe
        self.keeper = keeper
        self.validate = validate
        self.chip_ids = store.chip_ids
        self.device = next(model.parameters()).device
        self.order = EpochOrder(indices, recipe.optimisation.batch_size, recipe.seed)
        self.batches: DataLoader[Batch] = open_batches(store, self.order)
        self.optimizer = build_optimizer(model, recipe.lr, recipe.optimisation.weight_decay)
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=recipe.optimisation.precision == "fp16"
        )

    def fit(self, checkpoints: Checkpoints, curves: Path) -> None:
        """Train, from the newest checkpoint if there is one.

        Args:
            checkpoints: Where to go on from, and where to save after each epoch.
            curves: The folder of the recorded curves.

        Raises:
            TrainingError: A loss or a weight is not finite; the checkpoint of the epoch before
                stays.
        """
        state = checkpoints.load()
        first_epoch = 0 if state is None else self._restore(state)
        recorder = Recorder(curves, None if state is None else state["curves"])
        steps, epochs = len(self.order), self.recipe.epochs
        with tqdm(
            total=steps * epochs, initial=steps * first_epoch, unit="step", disable=None
        ) as bar:
            for epoch in range(first_epoch, epochs):
                values = self._train_epoch(epoch, bar) | self._validate_epoch(epoch)
                self.keeper.update(epoch, self.model, values)
                recorder.record_epoch(values)
                checkpoints.save(self._state(epoch) | {"curves": recorder.copy_files()})

    def _train_epoch(self, epoch: int, bar: "tqdm[Any]") -> dict[str, float]:
        self.order.epoch = epoch
        torch.manual_seed(self.recipe.seed * 1_000_003 + epoch)  # for backbones with dropout
        self.model.train()
        started = time.perf_counter()
        losses: list[Tensor] = []
        indices: list[Tensor] = []
        for step, batch in enumerate(self.batches):
            lr = cosine_lr(self.recipe, epoch + step / len(self.order))
            losses.append(self._take_step(batch.to(self.device), epoch, lr))
            indices.append(batch.chip_index)
            if step > 0:  # one step late, so that a GPU need not wait for the host
                self._refuse_non_finite(losses[step - 1], indices[step - 1], epoch, step - 1)
            bar.update()
        self._refuse_non_finite(losses[-1], indices[-1], epoch, len(losses) - 1)
        self._refuse_non_finite_weights(epoch)
        seconds = time.perf_counter() - started
        return {
            "train/loss": float(torch.stack(losses).mean()),
            "train/lr": lr,
            "train/chips_per_second": len(losses) * self.order.batch_size / seconds,
        }

    def _take_step(self, batch: Batch, epoch: int, lr: float) -> Tensor:
        recipe = self.recipe.optimisation
        images, target, ignored = augment(
            self.model.normalise(batch.s1, batch.s2, batch.s2_present),
            batch.target,
            self.recipe.augmentation,
            [(self.recipe.seed, epoch, index) for index in batch.chip_index.tolist()],
        )
        with autocast(self.device, recipe.precision):
            prediction = self.model(images, ignored)
        loss = chip_rmse_loss(prediction, target, recipe.max_target)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def _refuse_non_finite(self, loss: Tensor, index: Tensor, epoch: int, step: int) -> None:
        if not math.isfinite(loss.item()):
            chips = ", ".join(self.chip_ids[i] for i in index.tolist())
            raise TrainingError(
                f"expected a finite loss, got {loss.item()} at epoch {epoch}, step {step},"
                f" chips {chips}; look at these chips or lower lr:"
                " the checkpoint of the epoch before is kept"
            )

    def _refuse_non_finite_weights(self, epoch: int) -> None:
        # The last step of an epoch can spoil them, which no loss of this epoch would show.
        for name, tensor in self.model.state_dict().items():
            if not tensor.isfinite().all():
                raise TrainingError(
                    f"expected finite weights, got others at {name} after epoch {epoch};"
                    " lower lr: the checkpoint of the epoch before is kept"
                )

    def _validate_epoch(self, epoch: int) -> dict[str, float]:
        last = epoch + 1 == self.recipe.epochs
        if self.validate is None or not (last or (epoch + 1) % self.recipe.validation_every == 0):
            return {}
        self.model.eval()
        return dict(self.validate(self.model))

    def _state(self, epoch: int) -> dict[str, Any]:
        return {
            "epoch": epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "keeper": self.keeper.state(),
        }

    def _restore(self, state: dict[str, Any]) -> int:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.keeper.restore(state["keeper"])
        log.warning("going on after epoch %d of %d", state["epoch"], self.recipe.epochs)
        return int(state["epoch"]) + 1


def build_optimizer(model: torch.nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW without weight decay on biases and norms (tensors of one dimension)."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def cosine_lr(recipe: Recipe, epoch: float) -> float:
    """Return the learning rate at a moment of the training, in epochs since its start."""
    lr_min = min(recipe.lr_min, recipe.lr)
    return lr_min + (recipe.lr - lr_min) * (1 + math.cos(math.pi * epoch / recipe.epochs)) / 2
