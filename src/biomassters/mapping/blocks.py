"""A block of windows, predicted: what the windows say of each pixel, weighted and added up.

A block is a pure function of the scene and of the models, whoever asks for it: so is a map, however
it is cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from biomassters.batches.reading import Batch
from biomassters.mapping.windows import Windows
from biomassters.params.sections import CleaningName
from biomassters.prediction.engines import Predictor
from biomassters.prediction.inference import predict_views
from biomassters.scenes.grid import Box
from biomassters.scenes.scene import Pixels
from biomassters.store.chips import Chip
from biomassters.store.cleaning import clean_chip

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

    def predict(self, block: tuple[int, int], pixels: Pixels, wanted: Box) -> BlockSums:
        """Predict a block's windows.

        A window's weight is scaled by the share of its pixels that are valid: at the edge of the
        data whoever sees more counts more.

        On a CPU, where each window passes the models alone, those without a pixel that is both
        valid and wanted are left out. A GPU's arithmetic depends on the batch: there the batches of
        a block are always the same.

        Args:
            block: Its row and column among the blocks.
            pixels: Of all of it.
            wanted: Pixels beyond are of no interest, and may lack windows.
        """
        box = self.windows.block_box(block)
        valid = pixels.find_valid()
        windows = [(window.within(box), window) for window in self.windows.list_windows(block)]
        if not valid.any():
            windows = []
        if self.device.type == "cpu":
            windows = [
                (place, window)
                for place, window in windows
                if valid[place].any() and window.intersect(wanted) is not None
            ]
        totals = np.zeros((self.n_outputs, *box.shape), np.float32)
        weights = np.zeros(box.shape, np.float32)
        places = [place for place, _ in windows]
        step = self.count_together()
        for start in range(0, len(places), step):
            some = places[start : start + step]
            predicted = self.predict_windows([pixels.cut(*place) for place in some])
            for place, prediction in zip(some, predicted, strict=True):
                weight = self.windows.weights * np.float32(valid[place].mean())
                totals[:, *place] += weight * prediction
                weights[place] += weight
        return BlockSums(box, totals, weights, valid)

    def predict_windows(self, windows: Sequence[Pixels]) -> Floats:
        """Return what the models predict of windows, (B, C, H, W), t/ha."""
        chips = [self._clean(window) for window in windows]
        batch = Batch(
            chip_index=torch.arange(len(chips)),
            s1=torch.from_numpy(np.stack([chip.s1 for chip in chips])),
            s2=torch.from_numpy(np.stack([chip.s2 for chip in chips])),
            s2_present=torch.from_numpy(np.stack([chip.s2_present for chip in chips])),
            target=torch.empty(0),
        )
        predicted = predict_views(
            self.predictors, batch.to(self.device), self.views, self.precision
        ).cpu()
        return np.asarray(predicted.numpy()).reshape(
            len(chips), self.n_outputs, self.windows.size, self.windows.size
        )

    def count_together(self) -> int:
        """Return the windows of a batch; on a CPU it changes no byte."""
        if self.device.type != "cpu":
            return self.batch_size
        return max(torch.get_num_threads(), CPU_BATCH_PIXELS // self.windows.size**2)

    def _clean(self, window: Pixels) -> Chip:
        present = window.find_present_months()
        s2 = np.where(present[:, None, None, None], window.s2, np.uint16(0))  # as a store has it
        chip = Chip("", window.s1, s2, present, None)
        return clean_chip(chip, self.cleaning)
