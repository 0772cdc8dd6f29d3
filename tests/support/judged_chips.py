"""Simulated predictions whose errors are alike from pixel to pixel, and a calibration of them."""

import numpy as np
from scipy.ndimage import gaussian_filter

from biomassters.calibration.calibration import Calibration
from biomassters.calibration.fitting import calibrate
from biomassters.calibration.held_out import HeldOutChip
from biomassters.evaluation.intervals import JudgedChip, JudgedSet
from biomassters.prediction.maps import Map

LEVEL = 0.8


def simulate_maps(n_chips: int, seed: int, side: int = 48) -> list[tuple[Map, Map]]:
    """Return predictions and targets, t/ha: errors grow with biomass and stretch over 60 m."""
    random = np.random.default_rng(seed)
    maps = []
    for _ in range(n_chips):
        forest = np.maximum(60 * gaussian_filter(random.normal(1, 9, (side, side)), 5), 0)
        error = gaussian_filter(random.normal(size=(side, side)), 3)
        error *= (4 + forest / 6) / error.std()
        error += random.normal(0, 3)  # of the chip
        maps.append((forest.astype(np.float32), np.maximum(forest + error, 0).astype(np.float32)))
    return maps


def calibrate_simulated(n_chips: int = 40) -> Calibration:
    """Return a calibration by other chips than `judge_simulated` has."""
    chips = [
        HeldOutChip.compare(str(number), *maps)
        for number, maps in enumerate(simulate_maps(n_chips, seed=1))
    ]
    return calibrate(chips, LEVEL, {})


def judge_simulated(calibration: Calibration, n_chips: int = 40) -> list[JudgedChip]:
    """Return chips with their intervals."""
    return [
        JudgedChip(prediction, target, calibration.intervals(prediction), calibration)
        for prediction, target in simulate_maps(n_chips, seed=2)
    ]


def judged_set(chips: list[JudgedChip]) -> JudgedSet:
    """Return chips as a set to judge."""
    return JudgedSet(len(chips), LEVEL, lambda: iter(chips))
