"""A block of windows, predicted: what the windows say of each pixel, weighted and added up.

A block is a pure function of the scene and of the models, whoever asks for it: so is a map, however
it is cut.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biomassters.batches.reading import Batch, make_tensor, write_cleaned
from biomassters.mapping.windows import Windows
from biomassters.params.sections import CleaningName
from biomassters.prediction.engines import Predictor
from biomassters.prediction.inference import predict_views
from biomassters.scenes.grid import Box
from biomassters.scenes.scene import Pixels
from biomassters.store.bands import N_MONTHS
from biomassters.store.chips import Chip
from biomassters.store.cleaning import clean_chip
from biomassters.store.layout import S1, S2, image_shapes

Floats = NDArray[np.float32]

CPU_BATCH_PIXELS: Final = 128 * 128
"""Of the windows that are normalised together on a CPU, where each passes the model alone."""


@dataclass(frozen=True)
class BlockSums:
    """The weighted sum of what a block's windows predict.

    Attributes:
        box: The block's pixels.
        totals: Sum of weight times prediction, (C, H, W), t/ha; C is 1, or 3 of models of
            quantiles (lower bound, median, upper bound).
        weights: Sum of the weights, (H, W).
        valid: The pixels with any valid input, (H, W).
    """

    box: Box
    totals: Floats
    weights: Floats
    valid: NDArray[np.bool_]

    @property
    def n_bytes(self) -> int:
        """Of memory."""
        return self.totals.nbytes + self.weights.nbytes + self.valid.nbytes


@dataclass(frozen=True)
class PreparedBlock:
    """What the models see of a block.

    Attributes:
        box: The block's pixels.
        valid: Those with any valid input, (H, W).
        places: Of the windows that are predicted, rows and columns within the block.
        batches: These windows, in this order; to be used once.
    """

    box: Box
    valid: NDArray[np.bool_]
    places: Sequence[tuple[slice, slice]]
    batches: Iterable[Batch]


@dataclass(frozen=True, kw_only=True)
class BlockPredictor:
    """Models, and how they predict.

    Attributes:
        predictors: Of one head, on one device.
        n_outputs: Numbers that they predict of a pixel: 1, or 3 of models of quantiles.
        windows: The lattice of windows.
        views: The symmetries whose predictions are averaged.
        precision: Arithmetic of the forward pass.
        cleaning: What is done to a window's values before.
        batch_size: Windows a forward pass on a GPU.
    """

    predictors: Sequence[Predictor]
    n_outputs: int
    windows: Windows
    views: Sequence[int]
    precision: str
    cleaning: CleaningName
    batch_size: int

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return self.predictors[0].device

    @property
    def waiting_pixels(self) -> int:
        """Pixels that a prepared block holds: on a GPU, those of windows that overlap."""
        windows = self.windows
        if self.device.type == "cpu":
            return windows.block_size**2
        return (windows.per_block * windows.size) ** 2

    def prepare(self, block: tuple[int, int], pixels: Pixels, wanted: Box) -> PreparedBlock:
        """Make what the models see of a block's windows.

        On a CPU, where each window passes the models alone, those without a pixel that is both
        valid and wanted are left out, and a batch is made when it is needed. A GPU's arithmetic
        depends on the batch: there the batches of a block are always the same; and all are made
        here, by whoever reads, since a GPU would wait for it longer than it computes.

        Args:
            block: Its row and column among the blocks.
            pixels: Of all of it.
            wanted: Pixels beyond are of no interest, and may lack windows.
        """
        box = self.windows.block_box(block)
        valid = pixels.find_valid()
        windows = [(window.within(box), window) for window in self.windows.list_windows(block)]
        on_cpu = self.device.type == "cpu"
        if not valid.any():
            windows = []
        if on_cpu:
            windows = [
                (place, window)
                for place, window in windows
                if valid[place].any() and window.intersect(wanted) is not None
            ]
        places = [place for place, _ in windows]
        step = self.count_together()
        batches = (
            self.make_batch([pixels.cut(*place) for place in places[start : start + step]])
            for start in range(0, len(places), step)
        )
        return PreparedBlock(box, valid, places, batches if on_cpu else list(batches))

    def predict(self, block: PreparedBlock) -> BlockSums:
        """Predict a block's windows.

        A window's weight is scaled by the share of its pixels that are valid: at the edge of the
        data whoever sees more counts more.
        """
        totals = np.zeros((self.n_outputs, *block.box.shape), np.float32)
        weights = np.zeros(block.box.shape, np.float32)
        # A GPU has all of a block to compute before the host waits for it.
        predicted = [self.predict_batch(batch) for batch in block.batches]
        of_windows = torch.cat(predicted).cpu().numpy() if predicted else ()
        for place, prediction in zip(block.places, of_windows, strict=True):
            weight = self.windows.weights * np.float32(block.valid[place].mean())
            totals[:, *place] += weight * prediction
            weights[place] += weight
        return BlockSums(block.box, totals, weights, block.valid)

    def predict_batch(self, batch: Batch) -> Tensor:
        """Return what the models predict of windows, (B, C, H, W), t/ha, on their device."""
        predicted = predict_views(
            self.predictors, batch.to(self.device), self.views, self.precision
        )
        return predicted[:, None] if self.n_outputs == 1 else predicted

    def make_batch(self, windows: Sequence[Pixels]) -> Batch:
        """Return what the models see of windows."""
        n_windows, shapes = len(windows), image_shapes(self.windows.size)
        s1, s2 = (
            make_tensor(
                (n_windows, *shapes[layout]), layout.dtype, is_pinned=self.device.type == "cuda"
            )
            for layout in (S1, S2)
        )
        s2_present = torch.empty(n_windows, N_MONTHS, dtype=torch.bool)
        for row, window in enumerate(windows):
            of_s1, of_s2, present = s1[row].numpy(), s2[row].numpy(), s2_present[row].numpy()
            of_s1[...], of_s2[...], present[...] = *window, window.find_present_months()
            of_s2[~present] = 0  # as a store has it
            chip = Chip("", of_s1, of_s2, present, None)
            write_cleaned(clean_chip(chip, self.cleaning), of_s1, of_s2)
        return Batch(torch.arange(n_windows), s1, s2, s2_present, target=torch.empty(0))

    def count_together(self) -> int:
        """Return the windows of a batch; on a CPU it changes no byte."""
        if self.device.type != "cpu":
            return self.batch_size
        return max(torch.get_num_threads(), CPU_BATCH_PIXELS // self.windows.size**2)
