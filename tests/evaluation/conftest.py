"""A calibration by drawn chips, which several files judge by."""

import pytest
from held_out_examples import draw_chips

from biomassters.calibration.calibration import Calibration
from biomassters.calibration.fitting import calibrate


@pytest.fixture(scope="session")
def calibration() -> Calibration:
    """Intervals of 80 %, by 40 chips of 48 pixels."""
    return calibrate(draw_chips(40, seed=1, side=48), 0.8, {})
