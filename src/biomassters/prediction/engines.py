"""What computes a model's forward passes: torch, or on a CPU OpenVINO, which takes far less time.

Changes speed and rounding, and nothing else of a result. A model that OpenVINO cannot convert, or
converts into another one, is computed by torch, and one line says so.

OpenVINO gets the network chip by chip (`model.one_chip`), for a fixed size of its images and any
number of months: so its results do not depend on the batch, and absent months cost nothing. They
do not depend on the number of threads either (tested), nor on how many chips are under way at once.
"""

import logging
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

import numpy as np
import torch
from torch import Tensor

from biomassters.errors import ModelError
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.execution import autocast
from biomassters.model.kept_months import find_kept_months
from biomassters.model.one_chip import OneChip, draw_example
from biomassters.params.sections import EngineName
from biomassters.prediction.alone import predict_chips_alone

log = logging.getLogger(__name__)

HINTS: Final[Mapping[str, str]] = {"fp32": "f32", "bf16": "bf16"}
"""The arithmetic that OpenVINO can be asked for on a CPU, by its name in params.yaml."""
CAPABILITIES: Final[Mapping[str, str]] = {"fp32": "FP32", "bf16": "BF16"}
"""What OpenVINO says of a CPU that has it."""

LARGEST_ERROR: Final[Mapping[str, float]] = {"fp32": 1e-3, "bf16": 0.1}
"""Of a converted network's prediction, as standard deviation, in those of torch's in float32.

Of trained models float32 agrees to about 1e-6, bfloat16 to about 1e-2; another network is off by
about 1. Hardly trained ones amplify rounding: twice torch's own error will do, too.
"""
LARGEST_ALONE: Final = 128
"""Side of chips, pixels, of which each passes on a thread of its own, several at once: 1.1 to 1.3
times as fast with two threads. Larger ones, which take gigabytes, have all threads."""
LONGEST_CAUSE: Final = 200
"""Characters of an engine's complaint, which may be pages, that the log shows."""


class Predictor(Protocol):
    """What predicts: a `BiomassModel`, or one whose network another engine computes."""

    @property
    def device(self) -> torch.device:
        """Where the batches must lie."""
        ...

    def eval(self) -> object:
        """Switch to evaluation mode."""
        ...

    def normalise(self, s1: Tensor, s2: Tensor, s2_present: Tensor) -> Tensor:
        """Return the network's input; see `BiomassModel.normalise`."""
        ...

    def ignore_months(self, s2_present: Tensor) -> Tensor | None:
        """Return the months to ignore; see `BiomassModel.ignore_months`."""
        ...

    def __call__(self, images: Tensor, ignored: Tensor | None = None) -> Tensor:
        """Return the prediction, (B, H, W) float32, t/ha; see `BiomassModel.forward`."""
        ...


def choose_engine(
    model: BiomassModel, engine: EngineName, *, precision: str, chip_size: int
) -> Predictor:
    """Return what computes a model: the model itself, or its network converted.

    Args:
        model: Put into evaluation mode.
        engine: `auto` is OpenVINO where the model is on a CPU that has the arithmetic, and the
            network can be converted; a warning tells where that fails.
        precision: Arithmetic of the forward passes to come.
        chip_size: Side of their images, pixels.

    Raises:
        ModelError: OpenVINO is asked for, and is not there or cannot do it.
    """
    model.eval()
    if engine == "torch":
        return model
    must = engine == "openvino"
    reason = _find_obstacle(model.device, precision)
    if reason is not None:
        if not must:
            return model
        raise ModelError(
            f"expected OpenVINO to predict in {precision}, got {reason}, at predict.engine;"
            " set it to torch or auto, or choose another predict.precision"
        )
    try:
        return OpenVinoModel(model, precision=precision, chip_size=chip_size, must=must)
    except Exception as error:  # whatever a converter makes of a stranger's network
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:LONGEST_CAUSE]}"
        _tell_failure(model, cause, must=must)
        return model


def _tell_failure(model: BiomassModel, cause: str, *, must: bool) -> None:
    """Warn that torch predicts, or refuse to go on."""
    backbone = model.architecture.backbone
    if must:
        raise ModelError(
            f"expected a network that OpenVINO converts, got {backbone} ({cause}),"
            " at predict.engine; set it to auto or torch"
        )
    log.warning("OpenVINO does not convert %s (%s); torch predicts", backbone, cause)


def describe_engine(predictor: Predictor) -> str:
    """Return what computes a model, for people."""
    if isinstance(predictor, OpenVinoModel):
        return f"OpenVINO {predictor.version} (converted in {predictor.seconds:.1f} s)"
    return f"torch {torch.__version__}"


def _find_obstacle(device: torch.device, precision: str) -> str | None:
    """Return why OpenVINO cannot be used, or None."""
    if device.type != "cpu":
        return "a model on a GPU"
    if precision not in HINTS:
        return "an arithmetic that it does not have on a CPU"
    try:
        openvino = _import_openvino()
    except ImportError as error:
        return f"no such package ({error})"
    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if CAPABILITIES[precision] not in capabilities:
        return "a CPU without that arithmetic"
    return None


class _SilentTelemetry:
    """Takes the place of what would tell OpenVINO's makers of each import and conversion."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Start nothing."""

    def ignore(self, *_: Any, **__: Any) -> None:
        """Send nothing."""

    start_session = end_session = send_event = send_error = send_stack_trace = ignore
    force_shutdown = ignore


def _import_openvino() -> Any:
    """Import OpenVINO, which is not cheap, without its telemetry, which is on unless told."""
    with suppress(ImportError):  # a version that has none
        import openvino_telemetry

        openvino_telemetry.Telemetry = _SilentTelemetry
    import openvino

    return openvino


class OpenVinoModel:
    """A model whose network OpenVINO computes, on the CPU; nothing is written.

    Its first prediction is held against torch's: a converter may take a stranger's network for
    another one. Not on made-up images, which a network may amplify beyond measure.

    Attributes:
        device: The CPU.
        version: OpenVINO's.
        seconds: That the conversion took.
    """

    def __init__(
        self, model: BiomassModel, *, precision: str, chip_size: int, must: bool = True
    ) -> None:
        """Convert a model's network.

        Args:
            model: In evaluation mode, on the CPU; not modified.
            precision: Arithmetic, one of `HINTS`.
            chip_size: Side of the images, pixels.
            must: Whether to refuse a network that predicts otherwise, in place of a warning.

        Raises:
            Exception: Of any class: the network cannot be converted.
        """
        started = time.monotonic()
        self.model = model
        self.device = model.device
        self.precision = precision
        self.must = must
        self.version = str(_import_openvino().__version__).split("-")[0]
        self._requests = _convert(model, chip_size, precision)
        self._is_right: bool | None = None  # None = not known yet
        self.seconds = time.monotonic() - started

    def eval(self) -> "OpenVinoModel":
        """Do nothing: it cannot be trained."""
        return self

    def normalise(self, s1: Tensor, s2: Tensor, s2_present: Tensor) -> Tensor:
        """Return the network's input; see `BiomassModel.normalise`."""
        return self.model.normalise(s1, s2, s2_present)

    def ignore_months(self, s2_present: Tensor) -> Tensor | None:
        """Return the months to ignore; see `BiomassModel.ignore_months`."""
        return self.model.ignore_months(s2_present)

    def __call__(self, images: Tensor, ignored: Tensor | None = None) -> Tensor:
        """Return the prediction, (B, H, W) float32, t/ha; see `BiomassModel.forward`.

        Raises:
            ModelError: It is not torch's, and must be.
        """
        if self._is_right is None:
            self._is_right = self._is_as_torch(images[:1], None if ignored is None else ignored[:1])
        if not self._is_right:
            return predict_chips_alone(self.model, images, ignored, self.precision)
        return self._predict(images, ignored)

    def _is_as_torch(self, images: Tensor, ignored: Tensor | None) -> bool:
        with autocast(self.device, "fp32"):
            expected = self.model(images, ignored)

        def measure_error(prediction: Tensor) -> float:
            return float((prediction - expected).std() / expected.std())

        error = measure_error(self._predict(images, ignored))
        if error <= LARGEST_ERROR[self.precision]:
            return True
        with autocast(self.device, self.precision):  # a pass of torch more, where it must decide
            of_torch = measure_error(self.model(images, ignored))
        if error <= 2 * of_torch:
            return True
        cause = f"predictions off by {error:.2g} standard deviations"
        _tell_failure(self.model, cause, must=self.must)
        return False

    def _predict(self, images: Tensor, ignored: Tensor | None) -> Tensor:
        outputs: dict[int, Tensor] = {}

        def keep(request: Any, chip: int) -> None:
            outputs[chip] = torch.from_numpy(request.get_output_tensor(0).data.copy())

        self._requests.set_callback(keep)
        for chip in range(len(images)):
            of_chip = images[chip : chip + 1]
            kept = find_kept_months(
                None if ignored is None else ignored[chip : chip + 1], of_chip.shape, self.device
            )
            months = torch.arange(images.shape[1]) if kept.positions is None else kept.positions
            # Waits until fewer chips are under way than may be.
            self._requests.start_async(
                [kept.pick(of_chip).contiguous().numpy(), months.numpy()], chip
            )
        self._requests.wait_all()
        return self.model.finish(torch.cat([outputs[chip] for chip in range(len(images))]))


def _convert(model: BiomassModel, chip_size: int, precision: str) -> Any:
    """Return OpenVINO's queue of requests to a model's network, one for each chip at a time."""
    openvino = _import_openvino()
    example = draw_example(model.bands.n_bands, chip_size)
    shape = [-1, *example[0].shape[1:]]
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # a trace warns of each size that it takes for granted
        # Traced here: OpenVINO would do it twice, and compare.
        network = OneChip(model.network)
        traced = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]
        converted = openvino.convert_model(
            traced, example_input=example, input=[(shape, np.float32), ([-1], np.int64)]
        )
    n_threads = torch.get_num_threads()
    n_streams = n_threads if chip_size <= LARGEST_ALONE else 1
    settings = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": n_threads,
        "NUM_STREAMS": n_streams,
        # Two stages side by side would be pinned to the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    compiled = openvino.Core().compile_model(converted, "CPU", settings)
    return openvino.AsyncInferQueue(compiled, n_streams)
