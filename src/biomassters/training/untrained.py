"""What a training hands over where there are no chips to train on: outs that say so.

DVC asks for all outs of a stage, and what reads them must not take them for a training's.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from biomassters.batches.distributed import Processes
from biomassters.model.weights import save_untrained
from biomassters.processes.writing import write_whole


def write_untrained(
    processes: Processes,
    weights: Iterable[Path],
    recorded: Path,
    predictions: Path | None = None,
) -> None:
    """Say it, and write files in the place of models, metrics without a score, empty folders.

    Args:
        processes: Of which the first writes.
        weights: Where the models would be.
        recorded: The folder of metrics and curves, as `recorder` lays it out.
        predictions: The folder of the predictions of held-out chips; None = there is none.
    """
    if not processes.is_first:
        return
    print("no train chips, nothing to train")
    for path in weights:
        save_untrained(path)
    (recorded / "plots/metrics").mkdir(parents=True, exist_ok=True)
    text = json.dumps({"train_chips": 0}, indent=4)
    write_whole(recorded / "metrics.json", f"{text}\n".encode())
    if predictions is not None:
        predictions.mkdir(parents=True, exist_ok=True)
