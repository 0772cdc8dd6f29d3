"""What decides a map, and who makes it: the models that a process opens for the scene of a job."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Final

import rasterio
import torch

import biomassters
from biomassters.batches.distributed import Processes
from biomassters.batches.symmetries import views
from biomassters.calibration.calibration import Calibration
from biomassters.calibration.models import read_calibration_of
from biomassters.errors import SceneError
from biomassters.fingerprint.closure import hash_modules
from biomassters.fingerprint.digest import digest_facts
from biomassters.mapping.blocks import BlockPredictor
from biomassters.mapping.layout import FINGERPRINT_TAG, PERIOD_TAG, SCENE_TAG
from biomassters.mapping.memory import LEAST_CACHE
from biomassters.mapping.parts import DEFAULT_TILE_SIZE
from biomassters.mapping.windows import Windows
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.quantile_head import N_QUANTILES
from biomassters.model.weights import identify_weights
from biomassters.model.weights_header import list_weights
from biomassters.params.map_sections import MapParams, MappedParams
from biomassters.params.sections import CleaningName, PredictParams
from biomassters.prediction.engines import describe_engine
from biomassters.prediction.ensemble import choose_engines, open_ensemble
from biomassters.scenes.grid import Box
from biomassters.scenes.opening import open_scene
from biomassters.scenes.scene import Scene
from biomassters.store.bands import BANDS, S1_BANDS

log = logging.getLogger(__name__)

MODELS: Final = Path("models")
"""The folder of the folders of models, of which `predict.models` names one."""

MAKING: Final = "biomassters.mapping.making"
"""The module whose meaning, with all that it imports, decides the pixels of maps."""


@dataclass(frozen=True, kw_only=True)
class MapJob:
    """A map to be made; it may be pickled, and opened in any process that sees these files.

    Attributes:
        scene: The scene's YAML.
        folder: The map's.
        models: The folder of weights files whose predictions are averaged.
        window_size: Side of a window, pixels.
        cleaning: What is done to a window's values before.
        predict: How chips are predicted.
        map: What maps have beside that.
        tile_size: Side of a tile, pixels.
    """

    scene: Path
    folder: Path
    models: Path
    window_size: int
    cleaning: CleaningName
    predict: PredictParams
    map: MapParams
    tile_size: int

    @property
    def windows(self) -> Windows:
        """The lattice of windows."""
        return Windows(self.window_size, int(self.map.overlap * self.window_size))

    def locate(self) -> "MapJob":
        """Return the same job in absolute paths, for processes that work in other folders."""
        calibration = str(Path(self.predict.calibration).resolve())
        return replace(
            self,
            scene=self.scene.resolve(),
            folder=self.folder.resolve(),
            models=self.models.resolve(),
            predict=self.predict.model_copy(update={"calibration": calibration}),
        )


def describe_job(
    scene: Path, folder: Path, params: MappedParams, tile_size: int = DEFAULT_TILE_SIZE
) -> MapJob:
    """Return a map to be made as params.yaml says, with the models that its stages make.

    Args:
        scene: The scene's YAML.
        folder: The map's.
        params: What params.yaml says of maps.
        tile_size: Side of a tile, pixels.
    """
    return MapJob(
        scene=scene,
        folder=folder,
        models=MODELS / params.predict.models,
        window_size=params.data.chip_size,
        cleaning=params.cleaning,
        predict=params.predict,
        map=params.map,
        tile_size=tile_size,
    )


class Mapper:
    """A job whose scene and models are open.

    Attributes:
        job: It.
        scene: Its scene.
        blocks: What predicts.
        calibration: Of the models; None = there is none.
        models: By their files.
    """

    def __init__(self, job: MapJob, scene: Scene, device: torch.device) -> None:
        """Open the models, and try them.

        Args:
            job: What to make.
            scene: Of what.
            device: Where the models will run.

        Raises:
            SceneError: The scene lacks bands that the models see.
            ModelError: A model cannot be used.
            ChipDataError: The calibration cannot be used.
        """
        self.job = job
        self.scene = scene
        paths = list_weights(job.models)
        self.models: dict[Path, BiomassModel] = open_ensemble(
            paths,
            job.window_size,
            cleaning=job.cleaning,
            precision=job.predict.precision,
            device=device,
        )
        _check_bands(self.scene, self.models, job.scene)
        self.calibration: Calibration | None = read_calibration_of(
            self.models, Path(job.predict.calibration)
        )
        first = next(iter(self.models.values()))
        self.blocks = BlockPredictor(
            predictors=choose_engines(self.models.values(), job.predict, job.window_size),
            n_outputs=N_QUANTILES if first.quantiles else 1,
            windows=job.windows,
            views=views(job.map.tta),
            precision=job.predict.precision,
            cleaning=job.cleaning,
            batch_size=job.predict.batch_size,
        )
        self._is_settled = False

    def settle_engines(self) -> None:
        """Predict the window in the scene's middle, for nothing but its side effects.

        An engine that is not torch is held against it on the first window that it sees, and what
        memory a window takes is taken: the same window in every process that makes a part of the
        map, so that all decide alike. Once is enough.
        """
        if self._is_settled:
            return
        self._is_settled = True
        extent, size = self.scene.grid.extent, self.job.window_size
        middle = Box(
            extent.row + (extent.height - size) // 2,
            extent.column + (extent.width - size) // 2,
            size,
            size,
        )
        with rasterio.Env(GDAL_CACHEMAX=LEAST_CACHE):
            pixels = self.scene.read(middle)
        self.blocks.predict_batch(self.blocks.make_batch([pixels] * self.blocks.count_together()))

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over all that decides the map's pixels, but where tiles are cut."""
        grid = self.scene.grid
        facts = {
            "scene": self.scene.identity,
            "grid": [grid.crs, grid.resolution],
            "models": self.weights,
            "calibration": self.calibration and self.calibration.model_dump(mode="json"),
            "code": fingerprint_code(),
            "cleaning": self.job.cleaning,
            "window": asdict(self.job.windows),
            "predict": self.job.predict.model_dump(exclude={"models", "calibration", "tta"}),
            "map": self.job.map.model_dump(),
        }
        return digest_facts(facts)

    @cached_property
    def weights(self) -> dict[str, str]:
        """Each model's identity, by its name."""
        return {path.stem: identify_weights(model) for path, model in self.models.items()}

    def tags(self, box: Box) -> dict[str, str]:
        """Return what a tile says of itself."""
        job = self.job
        tags = {
            "MODELS": ",".join(f"{name}:{weights}" for name, weights in self.weights.items()),
            "TTA": job.map.tta,
            "PRECISION": job.predict.precision,
            "ENGINE": ", ".join(
                sorted({describe_engine(each).split(" (")[0] for each in self.blocks.predictors})
            ),
            "WINDOW": f"{job.windows.size} pixels, overlapping by {job.windows.overlap}",
            "CODE": fingerprint_code(),
            SCENE_TAG: f"{self.scene.name}:{self.scene.identity}",
            PERIOD_TAG: "/".join(self.scene.period),
            FINGERPRINT_TAG: self.fingerprint_tile(box),
        }
        return tags | (self.calibration.tags() if self.calibration else {})

    def fingerprint_tile(self, box: Box) -> str:
        """Return 16 hex digits over all that decides a tile."""
        return digest_facts([self.fingerprint, *astuple(box)])

    def fingerprint_tiles(self, tiles: Sequence[Box]) -> str:
        """Return 16 hex digits over all that decides a map that is cut into these tiles."""
        return digest_facts([self.fingerprint, *map(astuple, tiles)])


def open_mapper(job: MapJob, device: torch.device | None = None) -> Mapper:
    """Open a job's scene and models.

    Args:
        job: What to make.
        device: Where the models will run; None = the first GPU, or the CPU.

    Raises:
        SceneError: The scene cannot be used, or lacks bands that the models see.
        ModelError: A model cannot be used.
        ChipDataError: The calibration cannot be used.
    """
    # What a look at the pixels leaves in GDAL's cache stays there as long as the files are open.
    with rasterio.Env(GDAL_CACHEMAX=LEAST_CACHE):
        scene = open_scene(job.scene)
    return Mapper(job, scene, device or Processes().device)


@cache
def fingerprint_code() -> str:
    """Return 16 hex digits over what the code means that makes maps."""
    root = Path(biomassters.__file__).parent.parent
    return digest_facts(hash_modules(root, MAKING))


def _check_bands(scene: Scene, models: Mapping[Path, BiomassModel], where: Path) -> None:
    """Refuse a scene that never has a band that a model sees; chips may lack an orbit."""
    for path, model in models.items():
        missing = [name for name in model.bands.pick(BANDS) if name not in scene.bands]
        seen_orbits = [name for name in model.bands.pick(BANDS) if name in S1_BANDS]
        if missing and set(missing) < set(seen_orbits):
            log.warning("%s has no %s in any month", where, ", ".join(missing))
        elif missing:
            raise SceneError(
                f"expected the bands that {path} sees, got a scene without {', '.join(missing)},"
                f" at {where}; add them to the scene, or train with model.bands"
            )
