"""Commands beside the pipeline: python -m biomassters COMMAND --help."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from biomassters.commands.plain_output import allow_any_output
from biomassters.dataset.catalogue_files import HOMES, Home
from biomassters.processes.ending import run_script

Run: TypeAlias = Callable[..., str | None]
"""Takes the command's arguments by their names; returns what is to be printed."""


class _Argument(NamedTuple):
    """What `argparse.ArgumentParser.add_argument` takes."""

    names: tuple[str, ...]
    options: dict[str, Any]


class _Command(NamedTuple):
    purpose: str
    arguments: tuple[_Argument, ...]
    run: Run


_COMMANDS: Final[dict[str, _Command]] = {}
"""By name, in the order of the help."""


def main() -> None:
    """Run the command that the command line names, and print what it tells."""
    allow_any_output()
    run_script(_run_command)


def _run_command() -> None:
    parser = argparse.ArgumentParser(prog="biomassters", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, command in _COMMANDS.items():
        parser_of_command = commands.add_parser(name, help=command.purpose)
        for argument in command.arguments:
            parser_of_command.add_argument(*argument.names, **argument.options)
    values = vars(parser.parse_args())
    text = _COMMANDS[values.pop("command")].run(**values)
    if text is not None:
        print(text)


def _argument(*names: str, **options: Any) -> _Argument:
    return _Argument(names, options)


def _command(name: str, purpose: str, *arguments: _Argument) -> Callable[[Run], Run]:
    """Make a command of a function, which takes the arguments by their names.

    The function imports what it needs when it runs, so that a help comes at once, and no command
    waits for another's torch.
    """

    def add(run: Run) -> Run:
        _COMMANDS[name] = _Command(purpose, arguments, run)
        return run

    return add


_METRIC: Final = "metrics/evaluation.json:test.model.chip_rmse"
_CATALOGUE: Final = _argument("folder", type=Path, help="holds features_metadata.csv and its like")


@_command(
    "simulate",
    "write simulated chips as official files, with their catalogue",
    _argument("folder", type=Path, metavar="OUT", help="a new or empty folder"),
    _argument("--chips", type=int, default=10, help="train chips (10)"),
    _argument("--test-chips", type=int, default=2, help="test chips (2)"),
    _argument("--chip-size", type=int, default=256, help="pixels (256)"),
    _argument(
        "--names",
        choices=tuple(HOMES),
        default="official",
        help="what the catalogues are called: torchgeo is for TorchGeo's reader (official)",
    ),
)
def _simulate(folder: Path, chips: int, test_chips: int, chip_size: int, names: Home) -> None:
    from biomassters.simulator.official_files import write_dataset

    write_dataset(folder, n_train=chips, n_test=test_chips, chip_size=chip_size, home=names)


@_command(
    "write-catalogue",
    "describe chips of your own by a catalogue, from their files",
    _argument("folder", type=Path, help="holds train_features/, train_agbm/ ..."),
)
def _write_catalogue(folder: Path) -> str:
    from biomassters.commands.write_catalogue import write_catalogue

    return write_catalogue(folder)


@_command("use-catalogue", "check a catalogue folder, and make it the pipeline's data/", _CATALOGUE)
def _use_catalogue(folder: Path) -> str:
    from biomassters.commands.use_catalogue import switch_catalogue

    return switch_catalogue(folder)


@_command(
    "add-test-targets",
    "describe targets of test chips, which the official catalogue lacks",
    _CATALOGUE,
    _argument("place", help="a folder or an archive that has the targets, or `hub` for the hub's"),
    _argument(
        "--partly", action="store_true", help="leave test chips without a target where it is absent"
    ),
)
def _add_test_targets(folder: Path, place: str, partly: bool) -> str:
    from biomassters.commands.add_test_targets import add_test_targets

    return add_test_targets(folder, place, partly=partly)


@_command("audit-catalogue", "say what a catalogue has, and how its splits differ", _CATALOGUE)
def _audit_catalogue(folder: Path) -> str:
    from biomassters.commands.audit_catalogue import audit_catalogue, tabulate_catalogue
    from biomassters.dataset.catalogue import read_catalogue

    return tabulate_catalogue(audit_catalogue(read_catalogue(folder)))


@_command("summary", "print the metrics of the last `dvc repro`")
def _summary() -> str:
    from biomassters.commands.summary import summarise

    return summarise(Path("metrics"))


@_command(
    "score",
    "score any folder of predictions, alone or against another's, chip by chip",
    _argument("folder", type=Path, help="holds CHIP_agbm.tif of one band or four"),
    _argument("--against", type=Path, metavar="FOLDER", help="another one, for the difference"),
    _argument("--split", choices=("test", "train"), default="test", help="whose chips (test)"),
    _argument("--json", action="store_true", dest="as_json", help="print JSON"),
    _argument("--chips", type=Path, metavar="CSV", help="write a row for each chip"),
)
def _score(
    folder: Path,
    against: Path | None,
    split: Literal["train", "test"],
    as_json: bool,
    chips: Path | None,
) -> str:
    from biomassters.commands.score import score

    return score(folder, against=against, split=split, as_json=as_json, chips=chips)


@_command(
    "submission",
    "write the archive of all test chips' maps that the competition takes",
    _argument("out", type=Path, metavar="OUT.tar.gz", help="one band each, float32"),
    _argument(
        "--predictions", type=Path, default=Path("predictions"), help="their folder (predictions)"
    ),
)
def _submission(out: Path, predictions: Path) -> str:
    from biomassters.commands.submission import write_submission

    return write_submission(out, predictions)


@_command(
    "map",
    "map a scene of any size, tile by tile; repeated, it makes what is missing",
    _argument("scene", type=Path, metavar="SCENE.yaml", help="in scenes/, say (docs/maps.md)"),
    _argument("folder", type=Path, metavar="OUT", help="the map's folder, maps/NAME say"),
    _argument("--tile-size", type=int, default=1024, metavar="PIXELS", help="of a side (1024)"),
    _argument("--workers", type=int, default=1, metavar="N", help="processes here (1)"),
    _argument("--shard", metavar="I/N", help="make the I-th of N parts, from 0 on"),
    _argument("--dask", metavar="ADDRESS", help="of a scheduler: tcp://scheduler:8786"),
    _argument("--memory", metavar="GIB", help="of each process: 2GiB (1.5 GiB beside the models)"),
    _argument("--zones", type=Path, metavar="GEOJSON", help="polygons to add up biomass of"),
)
def _map(scene: Path, folder: Path, **options: Any) -> str:
    from biomassters.commands.map_scene import map_scene

    return map_scene(scene, folder, **options)


@_command(
    "import-weights",
    "turn a checkpoint that the winner published into a weights file",
    _argument(
        "file", type=Path, metavar="FILE", help="model_last.pth or modelo_best.pth; never executed"
    ),
    _argument(
        "out", type=Path, metavar="OUT.safetensors", help="a new file, in models/imported/ say"
    ),
    _argument(
        "--backbone", metavar="NAME", help="the timm encoder (the one that the checkpoint names)"
    ),
)
def _import_weights(file: Path, out: Path, backbone: str | None) -> str:
    from biomassters.commands.import_weights import import_weights

    return import_weights(file, out, backbone)


@_command(
    "prune-checkpoints",
    "delete checkpoints in work/ that no training will go on from",
    _argument("--dry-run", action="store_true", help="only say what would be deleted"),
    _argument(
        "--all",
        action="store_true",
        dest="everything",
        help="all checkpoints but those that a process holds",
    ),
)
def _prune_checkpoints(dry_run: bool, everything: bool) -> str:
    from biomassters.commands.prune_checkpoints import prune_checkpoints

    return prune_checkpoints(dry_run=dry_run, everything=everything)


@_command(
    "compare",
    "tabulate DVC experiments: each change of the params, over seeds",
    _argument("--metric", default=_METRIC, help=f"FILE:KEY ({_METRIC})"),
)
def _compare(metric: str) -> str:
    from biomassters.commands.compare import compare

    return compare(metric)


@_command(
    "why",
    "tell which module, param or input makes a stage out of date since its last run",
    _argument("stage", nargs="?", metavar="STAGE", help="train, train@0, ... (all)"),
)
def _why(stage: str | None) -> str:
    from biomassters.commands.why import explain

    return explain(stage)


if __name__ == "__main__":
    main()
