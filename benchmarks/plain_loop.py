"""An epoch of ours beside one of a plain loop of torch, in turns: the same chips, the same model.

    python benchmarks/plain_loop.py
    python benchmarks/plain_loop.py --backbone tf_efficientnetv2_b0 --chip-size 128

The plain loop is what one writes first: a `Dataset` that decodes the 24 TIFFs of a chip by
rasterio, normalises and augments it by numpy and OpenCV (scipy where that is not installed) in the
workers of a `DataLoader`, and blanks the months that are dropped; then normalised tensors, loss,
backward pass, AdamW. Ours reads the packed store in threads, which prepare the chips, and encodes
no dropped month.

The chips are simulated as official files in a temporary folder, and lie in memory, not on a disk.
"""

import argparse
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from biomassters.dataset.catalogue import read_catalogue
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.execution import place_model
from biomassters.packing.assembly import pack_split
from biomassters.simulator.official_files import write_dataset
from biomassters.sources.folder_source import FolderSource
from biomassters.store.bands import N_BANDS, N_MONTHS
from biomassters.store.chips import ChipStore
from biomassters.store.georeference import allow_nowhere
from biomassters.training.engine import Recipe, Trainer
from biomassters.training.kept_weights import AverageWeights
from biomassters.training.losses import chip_losses
from biomassters.training.optimisation import Schedule, build_optimizer
from measuring import Preset, Row, build_model, format_table, median, read_preset, set_optimisation

CPU = torch.device("cpu")
HAS_OPENCV = importlib.util.find_spec("cv2") is not None
Floats = npt.NDArray[np.float32]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="mobilenetv3_small_050", help="a timm encoder")
    parser.add_argument("--chip-size", type=int, default=256, help="pixels")
    parser.add_argument("--batch", type=int, default=4, help="chips a step")
    parser.add_argument("--steps", type=int, default=4, help="of an epoch")
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each, in turns")
    parser.add_argument("--workers", type=int, default=2, help="processes of the DataLoader")
    parser.add_argument("--channels-last", action="store_true", help="the plain loop's model, too")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    options = parser.parse_args()
    preset = choose_recipe(options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "chips"
        n_chips = options.batch * options.steps
        write_dataset(folder, n_train=n_chips, n_test=1, chip_size=options.chip_size)
        epochs = {
            "plain loop": open_plain_loop(options, preset, folder),
            "ours": open_ours(options, preset, folder),
        }
        seconds: dict[str, list[float]] = {kind: [] for kind in epochs}
        for _ in tqdm(range(options.rounds + 1), unit="round", disable=None):
            for kind, run_epoch in epochs.items():
                started = time.perf_counter()
                run_epoch()
                seconds[kind].append(time.perf_counter() - started)
    rows = tabulate({kind: times[1:] for kind, times in seconds.items()}, n_chips)  # one warms up
    library = "OpenCV" if HAS_OPENCV else "scipy"
    print(
        f"{options.backbone}, {options.chip_size} pixels, {options.batch} chips a step, torch"
        f" {torch.__version__}, {torch.get_num_threads()} threads, {options.workers} workers of the"
        f" DataLoader, which rotate by {library}"
    )
    print(format_table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def choose_recipe(options: argparse.Namespace) -> Preset:
    """Return the small preset with the winner's augmentation and loss, and another backbone."""
    preset = read_preset("embedded")
    winner = read_preset("winner")
    return preset.model_copy(
        update={
            "model": preset.model.model_copy(
                update={"backbone": options.backbone, "normalisation": "minmax"}
            ),
            "augmentation": winner.augmentation,
            "optimisation": set_optimisation(preset, options.batch, "fp32", False),
        }
    )


def tabulate(seconds: dict[str, list[float]], n_chips: int) -> list[Row]:
    """Return a row for each kind; the ratio is the median of the rounds' ratios."""
    plain = np.array(seconds["plain loop"])
    return [
        {
            "epoch": kind,
            "s": median(times),
            "chips/s": n_chips / median(times),
            "times the plain loop": median((plain / np.array(times)).tolist()),
        }
        for kind, times in seconds.items()
    ]


def open_ours(options: argparse.Namespace, preset: Preset, folder: Path) -> Callable[[], object]:
    """Return what trains an epoch as stage `train` does."""
    path = folder.parent / "train.zarr"
    chips = read_catalogue(folder).chips("train")
    source = FolderSource(folder)
    pack_split(chips, source, path, folder.parent / "scratch", chip_size=options.chip_size)
    store = ChipStore.open(path)
    trainer = Trainer(
        model=place_model(build_model(preset), CPU),
        store=store,
        indices=list(range(len(store))),
        recipe=Recipe(
            schedule=Schedule(lr=preset.lr, phase=preset.train),
            seed=0,
            optimisation=preset.optimisation,
            augmentation=preset.augmentation,
        ),
        keeper=AverageWeights(first_epoch=0),
    )
    epochs = iter(range(10**6))
    bar = tqdm(disable=True)
    return lambda: trainer._train_epoch(next(epochs), bar)


def open_plain_loop(
    options: argparse.Namespace, preset: Preset, folder: Path
) -> Callable[[], None]:
    """Return what trains an epoch in a plain loop."""
    model = build_model(preset).train()
    if options.channels_last:
        model = place_model(model, CPU)
    chips = TiffChips(folder, model, preset)
    loader: DataLoader[Any] = DataLoader(
        chips,
        batch_size=options.batch,
        shuffle=True,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
    )
    optimizer = build_optimizer(model, preset.lr, preset.optimisation.weight_decay)

    def run_epoch() -> None:
        for images, target in loader:
            optimizer.zero_grad()
            take_step(model, images, target)
            torch.nn.utils.clip_grad_norm_(model.parameters(), preset.optimisation.clip_norm)
            optimizer.step()

    return run_epoch


def take_step(model: BiomassModel, images: Tensor, target: Tensor) -> None:
    """Leave the gradients of the mean over chips of their RMSE."""
    losses = chip_losses(
        "rmse", model.predict_scaled(images), target, target < 400, value_range=400
    )
    losses.mean().backward()  # type: ignore[no-untyped-call]


class TiffChips(Dataset[tuple[Floats, Floats]]):
    """Chips from their official files, as an item of a `DataLoader`."""

    def __init__(self, folder: Path, model: BiomassModel, preset: Preset) -> None:
        self.folder = folder
        self.offset = model.normalisation.offset.numpy()[:, None, None]
        self.scale = model.normalisation.scale.numpy()[:, None, None]
        self.settings = preset.augmentation
        self.chips = sorted(path.name[:8] for path in (folder / "train_agbm").iterdir())

    def __len__(self) -> int:
        return len(self.chips)

    def __getitem__(self, index: int) -> tuple[Floats, Floats]:
        """Return a chip's images, (12, 15, H, W), and its target, (H, W)."""
        chip = self.chips[index]
        target = read_tiff(self.folder / "train_agbm" / f"{chip}_agbm.tif")[0]
        images = np.zeros((N_MONTHS, N_BANDS, *target.shape), np.float32)
        for month in range(N_MONTHS):
            features = self.folder / "train_features"
            images[month, :4] = self.normalise(
                read_tiff(features / f"{chip}_S1_{month:02}.tif"), slice(0, 4), -9999
            )
            path = features / f"{chip}_S2_{month:02}.tif"
            if path.exists():
                images[month, 4:] = self.normalise(read_tiff(path), slice(4, 15), 255, (10,))
        return self.augment(images, target)

    def normalise(
        self, values: npt.NDArray[Any], bands: slice, nodata: float, only: tuple[int, ...] = ()
    ) -> Floats:
        """Scale the bands of a sensor; nodata is 0."""
        scaled = (values.astype(np.float32) - self.offset[bands]) * self.scale[bands]
        missing = values == nodata
        if only:
            missing[: only[0]] = False
        scaled[missing] = 0
        return scaled

    def augment(self, images: Floats, target: Floats) -> tuple[Floats, Floats]:
        """Flip, turn and rotate a chip, and blank months."""
        random = np.random.default_rng()
        turns, flip = random.integers(4), random.integers(2)
        images, target = (np.rot90(array, turns, (-2, -1)) for array in (images, target))
        if flip:
            images, target = images[..., ::-1], target[..., ::-1]
        if random.random() < self.settings.rotation_p:
            limit = self.settings.rotation_degrees
            angle, shift = random.uniform(-limit, limit), random.uniform(-0.1, 0.1, 2)
            images = np.stack([rotate(month, angle, shift) for month in images])
            target = rotate(target[None], angle, shift)[0]
        if random.random() < self.settings.month_dropout_p:
            lost = random.random(N_MONTHS) < self.settings.month_dropout_rate
            lost[random.integers(N_MONTHS)] = False
            images = np.where(lost[:, None, None, None], np.float32(0), images)
        return np.ascontiguousarray(images), np.ascontiguousarray(target)


def read_tiff(path: Path) -> npt.NDArray[Any]:
    """Read all bands of a file."""
    with allow_nowhere(), rasterio.open(path) as raster:
        return np.asarray(raster.read())


def rotate(bands: Floats, angle: float, shift: npt.NDArray[np.float64]) -> Floats:
    """Rotate bands, (C, H, W), about a centre near the middle; mirrored at the border."""
    size = bands.shape[-1]
    centre = (size - 1) / 2 + size * shift
    if HAS_OPENCV:
        import cv2

        cv2.setNumThreads(1)
        matrix = cv2.getRotationMatrix2D(tuple(centre.tolist()), angle, 1.0)
        rotated = [
            cv2.warpAffine(
                np.ascontiguousarray(band), matrix, (size, size), borderMode=cv2.BORDER_REFLECT_101
            )
            for band in bands
        ]
        return np.stack(rotated)
    from scipy import ndimage

    radians = np.radians(angle)
    matrix = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
    middle = centre[::-1]
    return np.stack(
        [
            ndimage.affine_transform(
                band, matrix, middle - matrix @ middle, order=1, mode="mirror", output=np.float32
            )
            for band in bands
        ]
    )


if __name__ == "__main__":
    main()
