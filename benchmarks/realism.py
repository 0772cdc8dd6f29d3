"""How well a classifier tells simulated chips from real ones.

    python benchmarks/realism.py chips/train.zarr
    python benchmarks/realism.py FOLDER [FOLDER ...]      # of <chip_id>.tar.xz or <chip_id>.npz

As many chips are simulated as real ones are given, of 256 pixels, several times over. Of each chip
a classifier sees the figures of `chip_figures.py`. It learns on four fifths of either kind and
ranks the rest (of a few chips: one of either kind), 20 times. 0.5 is blindness, 1 is certainty.
"""

import argparse
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from biomassters.simulator.chip import simulate_chip
from biomassters.store.bands import BANDS
from chip_figures import KINDS, Floats, measure_chip, read_real_chips

N_SPLITS = 20
SUBSETS = {
    "all figures": (),
    "levels (means, deviations, percentiles)": ("mean", "deviation", "10 %", "90 %"),
    "correlations with AGBM": ("correlation with AGBM",),
    "neighbours": ("neighbours",),
}


def main() -> None:
    """Measure the real chips and each draw of simulated ones, classify, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("chips", type=Path, nargs="+", help="a store, or folders of archives")
    parser.add_argument("--draws", type=int, default=6, help="sets of simulated chips (6)")
    arguments = parser.parse_args()
    real = [chip for path in arguments.chips for _, chip in read_real_chips(path)]
    if len(real) < 4 or arguments.draws < 2:
        raise SystemExit(
            f"expected 4 real chips and 2 draws or more, got {len(real)} and {arguments.draws};"
            " name other places"
        )
    figures = np.stack([measure_chip(chip) for chip in real])
    draws = [simulate_figures(f"realism-{draw}", len(real)) for draw in range(arguments.draws)]
    print(f"{len(real)} real chips against as many simulated ones, {len(draws)} draws")
    print("AUC, mean and range over the draws\n")
    print("| what it sees | logistic regression | random forest |\n|---|---|---|")
    for name, kinds in SUBSETS.items():
        print(f"| {name} | " + " | ".join(describe(figures, draws, kinds)) + " |")
    others = [*draws[1:], draws[0]]
    null = [describe_range(scores) for scores in score_pairs(zip(draws, others, strict=True), ())]
    print("| all figures, simulated against simulated | " + " | ".join(null) + " |")
    print("\nWhat tells them apart one by one (AUC over all draws, mean over months):")
    for auc, name in rank_figures(figures, np.concatenate(draws))[:8]:
        print(f"  {auc:.2f} {name}")


def simulate_figures(name: str, n_chips: int) -> Floats:
    """Simulate chips and measure them: (n, 12, 15, 6)."""
    return np.stack([measure_chip(simulate_chip(f"{name}-{i}", 256)) for i in range(n_chips)])


def describe(real: Floats, draws: Sequence[Floats], kinds: Sequence[str]) -> list[str]:
    """Return a cell for each classifier."""
    pairs = ((real, simulated) for simulated in draws)
    return [describe_range(scores) for scores in score_pairs(pairs, kinds)]


def describe_range(scores: Sequence[float]) -> str:
    """Write mean and range."""
    return f"{np.mean(scores):.2f} ({min(scores):.2f} to {max(scores):.2f})"


def score_pairs(pairs: Iterable[tuple[Floats, Floats]], kinds: Sequence[str]) -> list[list[float]]:
    """Return the AUC of each classifier for each pair of sets."""
    scores = [
        [score(model, first, second, kinds) for model in make_classifiers()]
        for first, second in pairs
    ]
    return [list(column) for column in zip(*scores, strict=True)]


def make_classifiers() -> list[Pipeline]:
    """Make the two; a figure that a chip lacks (an absent month) becomes the median."""
    fill = SimpleImputer(strategy="median", keep_empty_features=True)
    linear = LogisticRegression(C=0.01, max_iter=500)
    forest = RandomForestClassifier(100, random_state=0)
    return [make_pipeline(fill, StandardScaler(), linear), make_pipeline(fill, forest)]


def score(model: Pipeline, first: Floats, second: Floats, kinds: Sequence[str]) -> float:
    """Return the AUC of held-out chips, one of `first` ranked above one of `second`, on average."""
    columns = [KINDS.index(kind) for kind in kinds] or list(range(len(KINDS)))
    x = np.concatenate([first, second])[..., columns].reshape(len(first) + len(second), -1)
    y = np.repeat([1, 0], [len(first), len(second)])
    held_out = 2 * max(1, len(first) // 5)
    splits = StratifiedShuffleSplit(N_SPLITS, test_size=held_out, random_state=0)
    aucs = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fold may lack a month altogether
        for train, test in splits.split(x, y):
            chance = model.fit(x[train], y[train]).predict_proba(x[test])[:, 1]
            aucs.append(roc_auc_score(y[test], chance))
    return float(np.mean(aucs))


def rank_figures(real: Floats, simulated: Floats) -> list[tuple[float, str]]:
    """Return how well each kind of figure of each band tells the sets apart by itself, best first.

    0.5 is not at all; whichever set is higher.
    """
    ranking = []
    for band, band_name in enumerate(BANDS):
        for kind, kind_name in enumerate(KINDS):
            aucs = []
            for month in range(real.shape[1]):
                a, b = (values[:, month, band, kind] for values in (real, simulated))
                a, b = a[np.isfinite(a)], b[np.isfinite(b)]
                if len(a) >= 4 and len(b) >= 4:
                    truth = np.repeat([1, 0], [len(a), len(b)])
                    aucs.append(float(roc_auc_score(truth, np.concatenate([a, b]))))
            # Months that differ to either side are averaged as they are: chance cancels out.
            ranking.append((0.5 + abs(float(np.mean(aucs)) - 0.5), f"{band_name}: {kind_name}"))
    return sorted(ranking, reverse=True)


if __name__ == "__main__":
    main()
