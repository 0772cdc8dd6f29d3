"""What `make gpu` needs beside torch, as wheels in a folder to be carried: `make gpu-wheels`.

    python scripts/gpu_wheels.py
    python scripts/gpu_wheels.py --has torchvision scipy      # the machine has no numpy, no pillow
    python scripts/gpu_wheels.py --python 3.13 --torch 2.15.0
    python scripts/gpu_wheels.py --engines                    # beside these, for the CPU

Run where there is a registry; the wheels are for Linux on x86-64, of the versions and the hashes
that requirements.txt pins. The golden numbers of the tests go along, where they are beside the
repository.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[1]
WHEELS: Final = ROOT / "wheels"
ENGINE_WHEELS: Final = ROOT / "wheels-engines"
GOLDEN: Final = ROOT.parent / "shared" / "golden"

WITH_TORCH: Final = ("numpy", "pillow", "scipy", "torchvision")
"""What a machine that has torch of its own mostly has too; none of it is small."""

CARRIED: Final = (
    # A newer one than torch asked for may be needed.
    *("filelock", "packaging", "tqdm", "typing-extensions"),
    # The model: timm, and what it and huggingface_hub import.
    *("timm", "huggingface-hub", "safetensors", "pyyaml", "anyio", "certifi", "click", "h11"),
    *("httpcore2", "httpx2", "idna", "truststore"),
    # Params and environment variables.
    *("pydantic", "pydantic-core", "pydantic-settings", "annotated-types", "python-dotenv"),
    *("typing-inspection", "ruamel-yaml"),
    # The simulator's files and the chip store.
    *("rasterio", "affine", "attrs", "pyparsing", "numcodecs", "fastcrc", "psutil"),
    "threadpoolctl",
    # The trainer's curves: dvclive, and of DVC what it imports at once.
    *("dvclive", "dvc", "dvc-render", "dvc-studio-client", "charset-normalizer", "colorama"),
    *("flatten-dict", "funcy", "requests", "six", "tabulate", "urllib3", "voluptuous"),
    # The GPU tests.
    *("pytest", "iniconfig", "pluggy", "pygments"),
    # Installs all of that, so that the machine needs no pip.
    "pip",
)

ENGINES: Final = ("openvino", "openvino-telemetry")
"""Of the CPU, for benchmarks/engines.py: as large as all else, and carried by itself."""

GLIBCS: Final = (*range(5, 18), *range(18, 29))
"""Of manylinux_2_N, up to what the oldest systems of today have; pip wants each one named."""


def main() -> None:
    """Download the wheels, and say how large they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default="3.12", help="version of the machine's Python")
    parser.add_argument("--torch", default="2.11.0", help="version of the machine's torch")
    parser.add_argument(
        "--has", nargs="*", default=WITH_TORCH, choices=WITH_TORCH, metavar="NAME",
        help=f"what the machine has of {', '.join(WITH_TORCH)} (default: all of it)",
    )  # fmt: skip
    parser.add_argument(
        "--engines", action="store_true",
        help=f"only what benchmarks/engines.py needs, into {ENGINE_WHEELS.name}/",
    )  # fmt: skip
    options = parser.parse_args()
    if options.engines:
        collect(ENGINES, ENGINE_WHEELS, options.python, options.torch)
        return
    names = [*CARRIED, *(name for name in WITH_TORCH if name not in options.has)]
    collect(names, WHEELS, options.python, options.torch)
    print(f"Not carried: torch{''.join(f', {name}' for name in options.has)}.")


def collect(names: Sequence[str], place: Path, python: str, torch: str) -> None:
    """Download wheels into a folder, in place of what it had, and say how large they are.

    Args:
        names: Canonical names of what is wanted.
        place: The folder.
        python: Version of the Python that they are for.
        torch: Version of the torch that it has.
    """
    pins = list(read_pins((ROOT / "requirements.txt").read_text(), names, python))
    if "torchvision" in names:
        pins = [pin for pin in pins if not pin.startswith("torchvision")]
        pins.append(find_torchvision(torch, python))
    with tempfile.TemporaryDirectory() as name:  # what was there stays, until all of it is here
        folder = Path(name) / "wheels"
        folder.mkdir()
        download(pins, python, folder)
        if GOLDEN.is_dir() and place == WHEELS:
            copy_golden(folder / "golden")
        shutil.rmtree(place, ignore_errors=True)
        shutil.move(folder, place)
    size = sum(path.stat().st_size for path in place.rglob("*")) / 2**20
    n_wheels = len(list(place.glob("*.whl")))
    print(
        f"{n_wheels} wheels for Python {python} on Linux x86-64, {size:.0f} MiB, in {place.name}/."
    )


def read_pins(requirements: str, names: Iterable[str], python: str) -> Iterator[str]:
    """Yield requirements with hashes, one a line, as pip reads them.

    Args:
        requirements: The text of requirements.txt.
        names: Canonical names of what is wanted.
        python: Version of the Python that the markers are asked about, such as 3.12.

    Raises:
        SystemExit: One of them is not pinned for that Python.
    """
    target = {
        "python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux",
        "platform_machine": "x86_64", "platform_system": "Linux", "os_name": "posix",
        "implementation_name": "cpython", "platform_python_implementation": "CPython", "extra": "",
    }  # fmt: skip
    wanted = set(names)
    for line in requirements.replace("\\\n", " ").splitlines():
        pin, *hashes = line.split(" --hash=")
        if not re.match(r"[A-Za-z0-9]", pin):
            continue
        requirement = Requirement(pin)
        name = canonicalize_name(requirement.name)
        if name in wanted and (requirement.marker is None or requirement.marker.evaluate(target)):
            wanted.remove(name)
            hashed = " ".join(f"--hash={value.strip()}" for value in hashes)
            yield f"{name}{requirement.specifier} {hashed}".strip()
    wanted -= {"pip"}  # which no environment pins
    if wanted:
        sys.exit(
            f"error: expected pins for Python {python}, got none of {', '.join(sorted(wanted))},"
            " at requirements.txt; choose a Python that pyproject.toml allows, or correct CARRIED"
        )


def find_torchvision(torch: str, python: str) -> str:
    """Return the torchvision that belongs to a version of torch, by its own metadata."""
    command = ["uv", "pip", "compile", "--quiet", "--no-annotate", "--no-header"]
    found = subprocess.run(
        [*command, "--python-version", python, "--python-platform", "linux", "-"],
        input=f"torchvision\ntorch=={torch}\n", capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return next(line for line in found.splitlines() if line.startswith("torchvision=="))


def download(pins: Iterable[str], python: str, folder: Path) -> None:
    """Download wheels into a folder; those with hashes are held against them."""
    hashed = [pin for pin in pins if "--hash" in pin]
    others = ["pip", *(pin for pin in pins if "--hash" not in pin)]
    platforms = [f"manylinux_2_{n}_x86_64" for n in GLIBCS]
    platforms += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", f"--dest={folder}"]
    command += [f"--python-version={python}", "--implementation=cp"]
    command += [f"--abi={abi}" for abi in (f"cp{python.replace('.', '')}", "abi3", "none")]
    command += [f"--platform={platform}" for platform in platforms]
    listed = folder / "pins.txt"
    listed.write_text("\n".join(hashed) + "\n")
    subprocess.run([*command, "--require-hashes", f"--requirement={listed}"], check=True)
    subprocess.run([*command, *others], check=True)
    listed.unlink()


def copy_golden(folder: Path) -> None:
    """Copy the reference networks' outputs, without the checkpoints beside them."""
    folder.mkdir()
    for pattern in ("*.keys.json", "*_*.npz"):
        for path in GOLDEN.glob(pattern):
            if not path.name.startswith("normalised"):
                shutil.copyfile(path, folder / path.name)


if __name__ == "__main__":
    main()
