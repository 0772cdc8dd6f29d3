"""Scores of a set of chips, beside those of other models, and of one value everywhere."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from biomassters.errors import ChipDataError
from biomassters.evaluation.figures import ChipErrors
from biomassters.prediction.maps import prediction_path, read_prediction
from biomassters.prediction.metrics import ErrorSums
from biomassters.store.chips import ChipStore

Map = npt.NDArray[np.float32]
ChipMaps = tuple[str, Map, Map]
"""A chip's name, its prediction and its target, (H, W), t/ha; NaN = no target."""

MapReader = Callable[[], Iterator[ChipMaps]]
"""Opens a pass over chips."""

Baseline = Callable[[ErrorSums], float]
"""Given the sums of a set, the value that its baseline predicts, t/ha."""

MODEL: Final = "model"
BASELINE: Final = "baseline"
"""Names of the predictions that are scored, and of the one value that they are compared with."""

TABLE_COLUMNS = ("set", "chip_id", "chip_rmse", "target_mean", "prediction_mean")

DENSITY_EDGES = np.arange(0, 401, 5)
"""Bins of target and prediction in `Scores.density`, t/ha; what lies outside is left out."""


@dataclass
class Scores:
    """Errors of one set of chips.

    Attributes:
        errors: Of the predictions (`model`), of the one value that is predicted everywhere
            (`baseline`, where there is one), and of each other model by its name.
        density: Pixels by target (rows) and prediction (columns), in bins of DENSITY_EDGES.
        chip_means: Each chip's mean target and mean prediction, t/ha.
        intervals: How well the predictions' intervals hold; None = they have none.
    """

    errors: dict[str, ChipErrors] = field(default_factory=lambda: {MODEL: ChipErrors()})
    density: npt.NDArray[np.float64] = field(
        default_factory=lambda: np.zeros((len(DENSITY_EDGES) - 1,) * 2)
    )
    chip_means: list[tuple[float, float]] = field(default_factory=list)
    intervals: dict[str, Any] | None = None

    @property
    def chip_ids(self) -> list[str]:
        """The chips that were scored."""
        return self.errors[MODEL].chip_ids

    @cached_property
    def summary(self) -> dict[str, dict[str, Any]]:
        """The metrics of each by name, with their confidence intervals."""
        return {name: errors.summarise() for name, errors in self.errors.items()}

    def describe(self) -> dict[str, Any]:
        """Return the summary, with what is known of intervals."""
        return self.summary | ({} if self.intervals is None else {"intervals": self.intervals})

    def list_chips(self, name: str) -> list[dict[str, Any]]:
        """Return a row of `TABLE_COLUMNS` a chip, for a table or a plot."""
        return [
            dict(zip(TABLE_COLUMNS, (name, chip_id, rmse, target, prediction), strict=True))
            for chip_id, rmse, (target, prediction) in zip(
                self.chip_ids, self.errors[MODEL].chip_rmses.tolist(), self.chip_means, strict=True
            )
        ]


def score_maps(
    read_maps: MapReader,
    choose_baseline: Baseline | None,
    others: Mapping[str, MapReader] | None = None,
) -> Scores:
    """Score a set of chips, in a pass for each model.

    Args:
        read_maps: Opens a pass over the chips.
        choose_baseline: What to compare with; None = nothing.
        others: The same for other models' predictions of the same chips, by name.
    """
    scores = Scores()
    model = scores.errors[MODEL]
    for chip_id, prediction, target in read_maps():
        model.add(chip_id, prediction, target)
        valid = np.isfinite(target)
        if valid.any():
            pairs = np.histogram2d(target[valid], prediction[valid], [DENSITY_EDGES] * 2)
            scores.density += pairs[0]
            scores.chip_means.append((float(target[valid].mean()), float(prediction[valid].mean())))
    if not model.chips:
        return scores
    if choose_baseline is not None:
        value = choose_baseline(model.join())
        baseline = scores.errors[BASELINE] = ChipErrors()
        for chip_id, prediction, target in read_maps():
            baseline.add(chip_id, np.full_like(prediction, value), target)
    for name, read_others in (others or {}).items():
        other = scores.errors[name] = ChipErrors()
        for chip_id, prediction, target in read_others():
            other.add(chip_id, prediction, target)
    return scores


def open_maps(store: ChipStore, folder: Path, chip_ids: Collection[str]) -> MapReader:
    """Return a function that opens a pass over chips and their predictions.

    Args:
        store: The chips.
        folder: Of the predictions.
        chip_ids: The chips to read; each must have a prediction.
    """

    def read_maps() -> Iterator[ChipMaps]:
        for index, chip_id in enumerate(store.chip_ids):
            if chip_id in chip_ids:
                target = store.read_target(index)
                yield chip_id, read_prediction(folder, chip_id, target.shape).agbm, target

    return read_maps


def find_predicted(store: ChipStore, folder: Path) -> set[str]:
    """Return the chips that have a prediction in `folder`."""
    return {chip_id for chip_id in store.chip_ids if prediction_path(folder, chip_id).exists()}


def find_baselines(folder: Path, name: str) -> dict[str, Path]:
    """Return the folders of simple models' predictions of one set of chips, by the models' names.

    Args:
        folder: Has a folder for each model, if there is any.
        name: Of the set: its predictions lie in `folder`/MODEL/`name`.
    """
    return {path.parent.name: path for path in sorted(folder.glob(f"*/{name}")) if path.is_dir()}


def mean_without(total_mean: float, total_pixels: int, held_out: ErrorSums) -> float:
    """Return the mean target of all train chips but the held-out ones, t/ha.

    Args:
        total_mean: Mean target of all train chips, t/ha.
        total_pixels: Their pixels with a target.
        held_out: The sums of the chips to take away.
    """
    pixels, target, _ = held_out.target_sums
    if total_pixels == pixels:
        return total_mean
    return float((total_mean * total_pixels - target) / (total_pixels - pixels))


def list_models(
    models: Literal["final", "folds", "imported"],
    fold_names: Iterable[str],
    predictions: Path,
    chip_ids: Sequence[str],
) -> list[str]:
    """Return the models that every prediction must average.

    No param names the imported ones: those of the first chip's prediction are the ones of all.

    Args:
        models: Of params.yaml, `predict.models`.
        fold_names: The models of the folds.
        predictions: The folder of predictions.
        chip_ids: The chips that have one, if any.

    Raises:
        ChipDataError: The first chip has none.
    """
    if models == "imported" and chip_ids:
        return read_prediction(predictions, chip_ids[0]).tags.get("MODELS", "").split(",")
    return list(fold_names) if models == "folds" else ["final"]


def check_predictions(folder: Path, chip_ids: Sequence[str], models: Sequence[str]) -> None:
    """Check that every chip has a prediction, averaged over exactly `models`.

    A fold that was taken off the list leaves its model behind; nothing else would notice.

    Raises:
        ChipDataError: A prediction is missing or averages other models.
    """
    for chip_id in chip_ids:
        found = read_prediction(folder, chip_id).tags.get("MODELS", "").split(",")
        if sorted(found) != sorted(models):
            raise ChipDataError(
                f"expected predictions averaged over {', '.join(sorted(models))},"
                f" got {', '.join(sorted(found))}, at {prediction_path(folder, chip_id)};"
                " remove the models of other folds from models/folds and run `dvc repro`"
            )


def choose_panel_chips(scores: Scores, n_chips: int) -> list[str]:
    """Choose chips from poor to rich in biomass; the targets alone decide, so they stay."""
    order = np.argsort([target for target, _ in scores.chip_means], kind="stable")
    positions = np.linspace(0.1, 0.95, n_chips) * (len(order) - 1)
    chosen = dict.fromkeys(int(order[position]) for position in positions.round().astype(int))
    return [scores.chip_ids[index] for index in chosen]
