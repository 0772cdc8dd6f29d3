"""Stage `map`: a scene of any size as one map, tile by tile; see docs/maps.md.

A tile that lies there with the same fingerprint is not made again, whatever ended the run before.
"""

import sys
from pathlib import Path

from biomassters.fingerprint.stage_inputs import hold_inputs
from biomassters.mapping.job import describe_job
from biomassters.mapping.running import Means, make_map
from biomassters.mapping.summary import write_summary
from biomassters.params.map_sections import MappedParams, parse_scene
from biomassters.params.reading import read_params
from biomassters.processes.ending import run_script

METRICS = Path("metrics/maps")


class Params(MappedParams):
    """What this stage reads of params.yaml."""


def main() -> None:
    """Make the map of the scene that the command line names."""
    name = parse_scene(sys.argv[1:])
    with hold_inputs(__file__, scene=name):
        job = describe_job(Path(f"scenes/{name}.yaml"), Path("maps") / name, read_params(Params))
        print(make_map(job, Means()).describe())
        write_summary(job.folder, METRICS)


if __name__ == "__main__":
    run_script(main)
