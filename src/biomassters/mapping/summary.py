"""The figures and the picture of a map where the pipeline keeps those of all stages."""

import json
from pathlib import Path

from biomassters.mapping.finishing import read_summary
from biomassters.mapping.preview import PREVIEW
from biomassters.processes.writing import write_whole


def write_summary(folder: Path, metrics: Path) -> None:
    """Copy a finished map's figures to NAME.json, and its picture to images/NAME.png.

    Args:
        folder: The map's, called NAME.
        metrics: The folder of all maps' figures.
    """
    summary = read_summary(folder)
    del summary["fingerprint"]  # of this machine's code and inputs: no figure
    write_whole(metrics / f"{folder.name}.json", (json.dumps(summary, indent=2) + "\n").encode())
    write_whole(metrics / f"images/{folder.name}.png", (folder / PREVIEW).read_bytes())
