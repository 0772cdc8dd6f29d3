"""Changes of this project's sources, and which stages run for each."""

from typing import NamedTuple

from reruns import AFTER_STATISTICS, ALL, MAPS, NOTHING, PREDICTION, TRAINING

LOSSES = "biomassters/training/losses.py"
PLOTS = "biomassters/evaluation/plots.py"


class Edit(NamedTuple):
    """A change of a source below src/: a text in place of another, at its first place.

    Attributes:
        file: Which.
        old: "" = in front of all.
        new: "" = nothing.
        stages: Those that run beside `fingerprint`.
    """

    file: str
    old: str
    new: str
    stages: str = NOTHING


COSMETIC = {
    "a comment": Edit("biomassters/training/engine.py", "", "# How it learns.\n"),
    "a comment behind code": Edit(
        "train.py", "class Params(sections.Section):", "class Params(sections.Section):  # read"
    ),
    "a module's docstring": Edit(LOSSES, "What training minimises", "What training lowers"),
    "a function's docstring": Edit(LOSSES, "Return the loss of each", "Compute the loss of each"),
    "what is said of a constant": Edit(
        LOSSES, '"""Added to the mean square', '"""Put under the root'
    ),
    "a package's sign": Edit("biomassters/model/__init__.py", "The winner", "A winner"),
    "empty lines": Edit("biomassters/store/bands.py", "\n\n", "\n\n\n\n"),
    "brackets": Edit(LOSSES, "EPSILON: Final = 1e-8", "EPSILON: Final = (\n    1e-8\n)"),
    "a number's notation": Edit(LOSSES, "1e-8", "0.000_000_01"),
    "quotes": Edit(LOSSES, "LOSSES[name](", "(LOSSES)[name]("),
    "a remark for mypy": Edit(
        LOSSES, "SSIM_WINDOW: Final = 11", "SSIM_WINDOW: Final = 11  # type: ignore"
    ),
    "an import for type checkers": Edit(
        LOSSES,
        "from torch import Tensor\n",
        "from torch import Tensor\n\nif TYPE_CHECKING:\n    import biomassters.commands.compare\n",
    ),
    "an error's class": Edit("biomassters/errors.py", "", "LIMIT = 3\n"),
    "the schema of the params": Edit(
        "biomassters/params/sections.py", "epochs: int = Field(gt=0)", "epochs: int = Field(gt=1)"
    ),
    "how a process ends": Edit("biomassters/processes/ending.py", "", "PATIENCE_S = 1\n"),
    "what a fingerprint is kept for": Edit(
        "biomassters/fingerprint/records.py", "Final = 100", "Final = 50"
    ),
    "a command beside the pipeline": Edit(
        "biomassters/commands/summary.py", "COLUMN_WIDTH = 14", "COLUMN_WIDTH = 15"
    ),
}
"""Nothing but `fingerprint` runs."""

MEANING = {
    "a constant": Edit(LOSSES, "1e-8", "1e-7", TRAINING),
    "a constant of the simulator": Edit("biomassters/simulator/s2.py", "18000.0", "18500.0", ALL),
    "a text that is a value": Edit(
        "biomassters/prediction/maps.py", '"t/ha"', '"Mg/ha"', f"{TRAINING} baselines"
    ),
    "a default": Edit(
        "biomassters/training/engine.py",
        "validation_every: int = 1",
        "validation_every: int = 2",
        TRAINING,
    ),
    "an operator": Edit(PLOTS, "(10, 9, 11, 8)", "(10, 9, 11, 8)[::-1]", "evaluate report"),
    "an import": Edit(
        PLOTS,
        "import numpy as np",
        "import math\n\nimport numpy as np",
        "evaluate report",
    ),
    "the order of imports": Edit(
        PLOTS,
        "import numpy as np\nimport numpy.typing as npt\n",
        "import numpy.typing as npt\nimport numpy as np\n",
        "evaluate report",
    ),
    "a decorator": Edit(
        "biomassters/statistics/counting.py",
        "def count_pixels(",
        "@staticmethod\ndef count_pixels(",
        AFTER_STATISTICS,
    ),
    "a local variable's name": Edit(
        "biomassters/training/folds.py", "shuffled", "mixed", f"{TRAINING} baselines"
    ),
    "a type hint": Edit(
        "biomassters/training/folds.py", "fold: int)", "fold: float)", f"{TRAINING} baselines"
    ),
    "a module that is imported lazily": Edit(
        "biomassters/sources/hub/hub_source.py",
        "_N_CONNECTIONS: Final = 4",
        "_N_CONNECTIONS: Final = 5",
        ALL,
    ),
    "a module of all stages": Edit("biomassters/store/bands.py", "", "X = 1\n", ALL),
    "a package's sign that is code": Edit(
        "biomassters/prediction/__init__.py", "", "X = 1\n", f"{TRAINING} baselines"
    ),
    "a constant of the calibration": Edit(
        "biomassters/calibration/pixel_table.py",
        "N_BINS: Final = 10",
        "N_BINS: Final = 11",
        f"calibrate {MAPS}",
    ),
    "a script": Edit(
        "predict.py",
        "np.maximum(prediction, 0)",
        "np.maximum(prediction, 1)",
        PREDICTION,
    ),
    "the params that a script reads": Edit(
        "predict.py",
        "    cleaning: CleaningName\n",
        "    cleaning: str\n",
        PREDICTION,
    ),
    "how windows are blended": Edit(
        "biomassters/mapping/windows.py",
        "np.pi / 2 * phase) ** 2",
        "np.pi / 2 * phase) ** 4",
        "map@lakeland report",
    ),
    "a lazily imported source of scenes": Edit(
        "biomassters/scenes/stac/loading.py",
        "BLOCK: Final = 256",
        "BLOCK: Final = 512",
        "map@lakeland report",
    ),
    "a module of trees": Edit(
        "biomassters/baselines/composites.py",
        "CLEAR_CLP_MAX: Final = 50",
        "CLEAR_CLP_MAX: Final = 40",
        "baselines evaluate report",
    ),
    "a condition": Edit(
        "biomassters/robustness/conditions.py",
        '("B4", "B3", "B2")',
        '("B4", "B3")',
        "robustness report",
    ),
    "a new import of this project": Edit(
        "evaluate.py",
        "import json\n",
        "import json\n\nimport biomassters.model.decoder\n",
        "evaluate report",
    ),
    "a lazy import of this project": Edit(
        "evaluate.py",
        "def main() -> None:\n",
        "def main() -> None:\n    import biomassters.model.decoder\n",
        "evaluate report",
    ),
}
"""Exactly the stages that import it run, and what depends on them."""
