"""A map of a scene, by whatever makes it: this process, several, a shard, or a cluster."""

from pathlib import Path

from biomassters.errors import ParamsError
from biomassters.mapping.job import describe_job
from biomassters.mapping.memory import parse_memory
from biomassters.mapping.parts import WHOLE, check_tile_size, parse_shard
from biomassters.mapping.running import Means, make_map
from biomassters.params.map_sections import MappedParams
from biomassters.params.reading import read_params


def map_scene(
    scene: Path,
    folder: Path,
    *,
    tile_size: int,
    workers: int,
    shard: str | None,
    dask: str | None,
    memory: str | None,
    zones: Path | None,
) -> str:
    """Make what is missing of a map, as params.yaml says, and return what was done.

    Args:
        scene: The scene's YAML.
        folder: The map's.
        tile_size: Side of a tile, pixels.
        workers: Processes on this machine.
        shard: The part that this process makes, such as 0/8; None = all.
        dask: The address of a Dask scheduler; None = no cluster.
        memory: Of each process, such as 2GiB; None = by default.
        zones: A GeoJSON of polygons whose biomass is added up; None = none.

    Raises:
        ParamsError: An option cannot be, or two of them together.
        BiomasstersError: The map cannot be made, or not all of it.
    """
    asked = {"--workers": workers != 1, "--shard": shard is not None, "--dask": dask is not None}
    both = [name for name, is_asked in asked.items() if is_asked]
    if workers < 1 or len(both) > 1:
        got = " and ".join(both) if len(both) > 1 else f"--workers {workers}"
        raise ParamsError(
            "expected one of --workers (1 or more), --shard and --dask, got"
            f" {got}, at the command line; leave out the others"
        )
    job = describe_job(scene, folder, read_params(MappedParams), check_tile_size(tile_size))
    means = Means(
        shard=parse_shard(shard) if shard else WHOLE,
        workers=workers,
        dask=dask,
        memory=parse_memory(memory) if memory else None,
    )
    return make_map(job, means, zones).describe()
