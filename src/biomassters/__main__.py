"""Commands beside the pipeline: python -m biomassters COMMAND --help."""

import argparse
from pathlib import Path

from biomassters.catalogue_switch import switch_catalogue
from biomassters.dataset_writer import write_dataset
from biomassters.doors import run_door
from biomassters.summary import summarise


def main() -> None:
    """Run the command that the command line names."""
    parser = argparse.ArgumentParser(prog="biomassters", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_simulate(commands)
    _add_use_catalogue(commands)
    _add_summary(commands)
    arguments = parser.parse_args()
    run_door(lambda: arguments.run(arguments))


def _add_simulate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "simulate", help="write simulated chips as official files, with their catalogue"
    )
    command.add_argument("folder", type=Path, metavar="OUT", help="a new or empty folder")
    command.add_argument("--chips", type=int, default=10, help="train chips (10)")
    command.add_argument("--test-chips", type=int, default=2, help="test chips (2)")
    command.add_argument("--chip-size", type=int, default=256, help="pixels (256)")
    command.set_defaults(
        run=lambda arguments: write_dataset(
            arguments.folder,
            n_train=arguments.chips,
            n_test=arguments.test_chips,
            chip_size=arguments.chip_size,
        )
    )


def _add_use_catalogue(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "use-catalogue", help="check a catalogue folder, and make it the pipeline's data/"
    )
    command.add_argument("folder", type=Path, help="holds features_metadata.csv and its like")
    command.set_defaults(run=lambda arguments: print(switch_catalogue(arguments.folder)))


def _add_summary(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("summary", help="print the metrics of the last `dvc repro`")
    command.set_defaults(run=lambda _: print(summarise(Path("metrics"))))


if __name__ == "__main__":
    main()
