"""torch on a CPU, with the same bytes for the same chip whatever is predicted beside it.

torch's kernels add up in another order for another number of images, and for another number of
threads. So each chip passes through the model alone and on one thread; the threads take chips.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from biomassters.model.execution import autocast


def predict_chips_alone(
    model: Callable[[Tensor, Tensor | None], Tensor],
    images: Tensor,
    ignored: Tensor | None,
    precision: str,
) -> Tensor:
    """Predict each chip of a batch by itself, as many at once as torch has threads.

    On a GPU, where it would cost most of the speed, the batch is predicted as it is.

    Law: on a CPU the result for a chip depends neither on the batch nor on the number of threads,
    nor of processes.

    Args:
        model: In evaluation mode.
        images: Normalised bands, (B, T, C, H, W), on the model's device.
        ignored: Months that the model ignores, (B, T) bool; None: no month.
        precision: Arithmetic of the forward pass.

    Returns:
        What the model returns of all chips, (B, ...).
    """

    @torch.inference_mode()
    def predict(chip: int | None) -> Tensor:
        # Here, since threads do not share the mode nor the arithmetic.
        rows = slice(None) if chip is None else slice(chip, chip + 1)
        with autocast(images.device, precision):
            return model(images[rows], None if ignored is None else ignored[rows])

    if images.device.type != "cpu":
        return predict(None)
    n_threads = torch.get_num_threads()
    if n_threads == 1:
        return torch.cat([predict(chip) for chip in range(len(images))])
    try:
        # In each thread and not here: how many threads one may start is its own setting.
        with ThreadPoolExecutor(
            min(n_threads, len(images)), "predict-chips", torch.set_num_threads, (1,)
        ) as threads:
            return torch.cat(list(threads.map(predict, range(len(images)))))
    finally:
        torch.set_num_threads(n_threads)  # part of that setting is the process's
