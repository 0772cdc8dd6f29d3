"""Commands beside the pipeline: python -m biomassters COMMAND --help."""

import argparse
from pathlib import Path

from biomassters.commands.audit_catalogue import audit_catalogue, tabulate_catalogue
from biomassters.commands.compare import METRIC, compare
from biomassters.commands.plain_output import allow_any_output
from biomassters.commands.prune_checkpoints import prune_checkpoints
from biomassters.commands.summary import summarise
from biomassters.commands.use_catalogue import switch_catalogue
from biomassters.commands.why import explain
from biomassters.commands.write_catalogue import write_catalogue
from biomassters.dataset.catalogue import read_catalogue
from biomassters.dataset.catalogue_files import HOMES
from biomassters.processes.ending import run_script
from biomassters.simulator.official_files import write_dataset


def main() -> None:
    """Run the command that the command line names, and print what it tells."""
    allow_any_output()
    run_script(_run_command)


def _run_command() -> None:
    parser = argparse.ArgumentParser(prog="biomassters", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_simulate(commands)
    _add_write_catalogue(commands)
    _add_use_catalogue(commands)
    _add_test_targets(commands)
    _add_audit_catalogue(commands)
    _add_summary(commands)
    _add_import_weights(commands)
    _add_prune_checkpoints(commands)
    _add_compare(commands)
    _add_why(commands)
    arguments = parser.parse_args()
    text = arguments.run(arguments)
    if text is not None:
        print(text)


def _add_simulate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "simulate", help="write simulated chips as official files, with their catalogue"
    )
    command.add_argument("folder", type=Path, metavar="OUT", help="a new or empty folder")
    command.add_argument("--chips", type=int, default=10, help="train chips (10)")
    command.add_argument("--test-chips", type=int, default=2, help="test chips (2)")
    command.add_argument("--chip-size", type=int, default=256, help="pixels (256)")
    command.add_argument(
        "--names",
        choices=tuple(HOMES),
        default="official",
        help="what the catalogues are called: torchgeo is for TorchGeo's reader (official)",
    )
    command.set_defaults(
        run=lambda arguments: write_dataset(
            arguments.folder,
            n_train=arguments.chips,
            n_test=arguments.test_chips,
            chip_size=arguments.chip_size,
            home=arguments.names,
        )
    )


def _add_write_catalogue(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "write-catalogue", help="describe chips of your own by a catalogue, from their files"
    )
    command.add_argument("folder", type=Path, help="holds train_features/, train_agbm/ ...")
    command.set_defaults(run=lambda arguments: write_catalogue(arguments.folder))


def _add_use_catalogue(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "use-catalogue", help="check a catalogue folder, and make it the pipeline's data/"
    )
    command.add_argument("folder", type=Path, help="holds features_metadata.csv and its like")
    command.set_defaults(run=lambda arguments: switch_catalogue(arguments.folder))


def _add_test_targets(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "add-test-targets",
        help="describe targets of test chips, which the official catalogue lacks",
    )
    command.add_argument("folder", type=Path, help="holds features_metadata.csv and its like")
    command.add_argument(
        "place", help="a folder or an archive that has the targets, or `hub` for the hub's"
    )
    command.add_argument(
        "--partly", action="store_true", help="leave test chips without a target where it is absent"
    )

    def run(arguments: argparse.Namespace) -> str:
        # Not above: it imports all sources, which the other commands need not wait for.
        from biomassters.commands.add_test_targets import add_test_targets

        return add_test_targets(arguments.folder, arguments.place, partly=arguments.partly)

    command.set_defaults(run=run)


def _add_audit_catalogue(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "audit-catalogue", help="say what a catalogue has, and how its splits differ"
    )
    command.add_argument("folder", type=Path, help="holds features_metadata.csv and its like")
    command.set_defaults(
        run=lambda arguments: tabulate_catalogue(audit_catalogue(read_catalogue(arguments.folder)))
    )


def _add_summary(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("summary", help="print the metrics of the last `dvc repro`")
    command.set_defaults(run=lambda _: summarise(Path("metrics")))


def _add_import_weights(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "import-weights", help="turn a checkpoint that the winner published into a weights file"
    )
    command.add_argument(
        "file", type=Path, metavar="FILE", help="model_last.pth or modelo_best.pth; never executed"
    )
    command.add_argument(
        "out", type=Path, metavar="OUT.safetensors", help="a new file, in models/imported/ say"
    )
    command.add_argument(
        "--backbone", metavar="NAME", help="the timm encoder (the one that the checkpoint names)"
    )

    def run(arguments: argparse.Namespace) -> str:
        # Not above: torch takes seconds to import, which the other commands need not wait for.
        from biomassters.commands.import_weights import import_weights

        return import_weights(arguments.file, arguments.out, arguments.backbone)

    command.set_defaults(run=run)


def _add_prune_checkpoints(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> None:
    command = commands.add_parser(
        "prune-checkpoints", help="delete checkpoints in work/ that no training will go on from"
    )
    command.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    command.add_argument(
        "--all", action="store_true", help="all checkpoints but those that a process holds"
    )
    command.set_defaults(
        run=lambda arguments: prune_checkpoints(dry_run=arguments.dry_run, everything=arguments.all)
    )


def _add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "compare", help="tabulate DVC experiments: each change of the params, over seeds"
    )
    command.add_argument("--metric", default=METRIC, help=f"FILE:KEY ({METRIC})")
    command.set_defaults(run=lambda arguments: compare(arguments.metric))


def _add_why(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "why", help="tell which module, param or input makes a stage out of date since its last run"
    )
    command.add_argument("stage", nargs="?", metavar="STAGE", help="train, train@0, ... (all)")
    command.set_defaults(run=lambda arguments: explain(arguments.stage))


if __name__ == "__main__":
    main()
