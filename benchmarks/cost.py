"""Hours and energy of the winner's recipe: computed from FLOPs, or from your own chips a second.

    python benchmarks/cost.py
    python benchmarks/cost.py --chips-per-second 80 --watts 700

Public peak figures (dense tensor-core arithmetic without sparsity, and board power) are of the
makers' data sheets: A100 SXM 312 TFLOP/s and 400 W, H100 and H200 SXM 989 and 700 W, L40S 362 and
350 W, RTX 4090 165 (float32 accumulation) and 450 W, RTX 3090 71 and 350 W, A10 125 and 150 W.
"""

import argparse
from dataclasses import dataclass
from typing import Final

from measuring import Row, format_table, read_preset

TFLOP_A_CHIP: Final = 2.2
"""Of a training step: three forward passes of 0.733 (`benchmarks/model.py --case winner`)."""

TRAIN_CHIPS: Final = 8689
"""Source: the competition."""

WINNER_S: Final = 8 * 24 * 3600
"""Source: the winner's report: 8 days on two A100s."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as its maker describes it: peak TFLOP/s in 16 bits, and watts."""

    name: str
    peak_tflops: float
    watts: float


GPUS: Final = (
    Gpu("A100 SXM", 312, 400),
    Gpu("H100 SXM", 989, 700),
    Gpu("H200 SXM", 989, 700),
    Gpu("L40S", 362, 350),
    Gpu("RTX 4090 (24 GB)", 165, 450),
    Gpu("RTX 3090 (24 GB)", 71, 350),
    Gpu("A10 (24 GB)", 125, 150),
)


def count_chips() -> int:
    """Return the chips that the winner's preset trains on, each as often as it does.

    The chips of the fold that is held out are not among them; with them it would be 9 % more.
    """
    preset = read_preset("winner")
    held_out = round(TRAIN_CHIPS / 10)
    return preset.train.epochs * (TRAIN_CHIPS - held_out) + preset.finetune.epochs * TRAIN_CHIPS


def compute_hours(n_chips: int, chips_per_second: float) -> float:
    """Return the hours of training."""
    return n_chips / chips_per_second / 3600


def compute_rate(gpu: Gpu, utilisation: float) -> float:
    """Return chips a second at a share of the peak, 0...1."""
    return gpu.peak_tflops * utilisation / TFLOP_A_CHIP


def winner_utilisation() -> tuple[float, float]:
    """Return the winner's chips a second, on both GPUs, and the share of their peak it was."""
    rate = count_chips() / WINNER_S
    return rate, rate * TFLOP_A_CHIP / (2 * GPUS[0].peak_tflops)


def describe(name: str, rate: float, watts: float) -> Row:
    """Return a row of the table."""
    hours = compute_hours(count_chips(), rate)
    return {
        "GPU": name,
        "chips/s": f"{rate:.1f}",
        "hours": f"{hours:,.0f}",
        "kWh": f"{hours * watts / 1000:,.0f}",
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--utilisation", type=float, default=0.2, help="share of the peak")
    parser.add_argument(
        "--chips-per-second", type=float, help="your own, by benchmarks/training.py"
    )
    parser.add_argument("--watts", type=float, default=700.0, help="of your GPU")
    options = parser.parse_args()
    rate, share = winner_utilisation()
    print(f"{count_chips():,} training chips of {TFLOP_A_CHIP} TFLOP")
    print(f"the winner: {rate:.1f} chips/s on two A100s, {100 * share:.1f} % of their peak")
    if options.chips_per_second:
        rows = [describe("yours (measured)", options.chips_per_second, options.watts)]
    else:
        rows = [describe(g.name, compute_rate(g, options.utilisation), g.watts) for g in GPUS]
        print(f"computed, at {100 * options.utilisation:.0f} % of the peak and full board power:")
    print(format_table(rows))


if __name__ == "__main__":
    main()
