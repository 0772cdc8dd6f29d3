"""A trial of a model on empty chips, before any work: whether it runs at all at a size.

A backbone with five feature levels need not take every size of a chip (attention in windows of
seven pixels, convolutions without padding), and batch normalisation cannot train on one value a
channel. What a training or a prediction would find in its first step, or in its thousandth, is
found here, in the time of about one step of two chips.

Not on torch's `meta` device, where shapes alone are computed: swapping the weights took longer than
to compute at 64 pixels, it has no arithmetic of 16 bits to fail, and no values for a backbone that
looks at some.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor

from biomassters.errors import ModelError
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.encoder import REDUCTIONS
from biomassters.model.execution import autocast
from biomassters.store.bands import N_MONTHS

LONGEST_CAUSE: Final = 200
"""Characters of torch's own complaint that an error shows."""


def try_prediction(
    model: BiomassModel, chip_size: int, *, precision: str, where: str = "model.backbone"
) -> None:
    """Predict an empty chip of one month; no part of the model changes.

    Args:
        model: On the device where it will run.
        chip_size: Pixels.
        precision: Arithmetic of the forward pass.
        where: Where the model comes from, for the error.

    Raises:
        ModelError: Its backbone does not run at this size, or a level has another size than it
            says.
    """
    images, ignored = _make_chips(model, 1, chip_size, 1)
    with _left_as_it_is(model), torch.no_grad(), autocast(images.device, precision):
        model.eval()
        try:
            levels = model.network.encoder(images[0, :1])
            sides = [tuple(level.shape[2:]) for level in levels]
            if sides == [(chip_size // reduction,) * 2 for reduction in REDUCTIONS]:
                model(images, ignored)
                return
            cause = "feature levels of " + ", ".join(f"{h} x {w}" for h, w in sides) + " pixels"
        except Exception as error:  # of any class: it is what a backbone raises
            cause = _describe(error)
    raise _refuse(model, chip_size, cause, where)


def try_training(
    model: BiomassModel, chip_size: int, *, n_chips: int, n_months: int, precision: str
) -> None:
    """Compute a gradient of the smallest micro-batch, on empty chips; no part of the model changes.

    Args:
        model: On the device where it will train.
        chip_size: Pixels.
        n_chips: Chips of the smallest micro-batch; of more than two, two are tried.
        n_months: Months that a chip keeps at least.
        precision: Arithmetic of the forward pass.

    Raises:
        ModelError: Its backbone does not train at this size, or not on so few chips.
    """
    error = _train_once(model, chip_size, min(n_chips, 2), n_months, precision)
    if error is None:
        return
    if n_chips == 1 and _train_once(model, chip_size, 2, n_months, precision) is None:
        months = "1 month" if n_months == 1 else f"{n_months} months"
        raise ModelError(
            "expected micro-batches in which batch normalisation sees several values a channel, got"
            f" one of 1 chip of {chip_size} pixels, of which {months} may be left"
            f" ({_describe(error)}), at optimisation.micro_batch_size; raise it, so that no"
            " micro-batch has a single chip, or data.chip_size"
        )
    raise _refuse(model, chip_size, _describe(error), "model.backbone")


def _train_once(
    model: BiomassModel, chip_size: int, n_chips: int, n_months: int, precision: str
) -> Exception | None:
    """Return what a step raises, if it does."""
    images, ignored = _make_chips(model, n_chips, chip_size, n_months)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with _left_as_it_is(model):
        model.train()
        try:
            with autocast(images.device, precision):
                prediction = model.predict_scaled(images, ignored)
            # Not `backward`, which would leave gradients behind.
            torch.autograd.grad(prediction.sum(), parameters, allow_unused=True)
        except Exception as error:
            return error
    return None


def _make_chips(
    model: BiomassModel, n_chips: int, chip_size: int, n_months: int
) -> tuple[Tensor, Tensor]:
    """Return images of 0, (B, T, C, H, W), and the months to ignore, all but the first ones."""
    shape = (n_chips, N_MONTHS, model.bands.n_bands, chip_size, chip_size)
    images = torch.zeros(shape, device=model.device)
    ignored = torch.arange(N_MONTHS).expand(n_chips, -1) >= n_months
    return images, ignored


@contextmanager
def _left_as_it_is(model: BiomassModel) -> Iterator[None]:
    """Undo what a forward pass changes: running statistics, random generators, the mode."""
    device = model.device
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    was_training = model.training
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        for buffer, before in buffers:
            buffer.copy_(before)
        model.train(was_training)


def _refuse(model: BiomassModel, chip_size: int, cause: str, where: str) -> ModelError:
    return ModelError(
        f"expected a backbone that runs on chips of {chip_size} pixels (data.chip_size), got"
        f" {model.architecture.backbone} with {cause}, at {where}; choose another backbone, such as"
        " tf_efficientnetv2_b0, or a size that it takes"
    )


def _describe(error: Exception) -> str:
    cause = " ".join(str(error).split())[:LONGEST_CAUSE]
    return f"{type(error).__name__}: {cause}" if cause else type(error).__name__
