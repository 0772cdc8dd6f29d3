"""A GPU that is not there: tensors that say they lie on one, and whose numbers the CPU computes.

What a GPU refuses is refused here: an operation on tensors of both devices. What makes the host
wait for a GPU is noted. What remains untried: its kernels, their rounding, and gradients, which
torch computes in a thread of the device; of a training, they are 0 here.

For a process of its own: torch believes afterwards that it has a GPU.
"""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from biomassters.model.biomass_model import BiomassModel
from biomassters.prediction import ensemble, inference

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")

aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._to_copy.default}
BY_INDEX = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
"""These take places from the CPU, too: they copy them to the GPU, and wait."""
OF_UNKNOWN_SIZE = {aten.nonzero.default, aten.masked_select.default}
"""What comes out has as many values as the GPU finds: the host waits for their number."""


class OnGpu(Tensor):
    """A tensor of the pretended GPU.

    Attributes:
        values: The same on the CPU.
    """

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> "OnGpu":
        """Wrap a tensor of the CPU; it is not copied."""
        wrapped: OnGpu = Tensor._make_wrapper_subclass(
            cls, values.shape, strides=values.stride(), dtype=values.dtype, device=GPU
        )
        wrapped.values = values
        return wrapped

    def tolist(self) -> Any:
        """Return the numbers, which torch does for no tensor of another class."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Refuse what nobody pretends to compute."""
        raise AssertionError(f"{func} outside of `pretend_gpu`")


class PretendedGpu(TorchDispatchMode):
    """Computes what is on it.

    Attributes:
        waits: Each time that the host waited for it: the function of this project that did.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Compute on the CPU; what comes out is where a GPU would have left it."""
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        here = [tensor for tensor in tensors if isinstance(tensor, OnGpu)]
        # A single number may come from anywhere.
        elsewhere = [t for t in tensors if not isinstance(t, OnGpu) and t.dim() > 0]
        if here and elsewhere and func not in COPIES | BY_INDEX:
            shapes = [[tuple(t.shape) for t in some] for some in (here, elsewhere)]
            raise AssertionError(f"{func} of {shapes[0]} on the GPU and {shapes[1]} on the CPU")
        device = None if kwargs.get("device") is None else torch.device(kwargs["device"])
        if makes_host_wait(func, here, elsewhere, device, kwargs):
            self.waits.append(name_caller())
        if device is not None:
            kwargs["device"] = CPU
        kwargs.pop("pin_memory", None)
        stays = bool(here) if device is None else device.type == "cuda"
        if func is aten.copy_.default:
            stays = isinstance(args[0], OnGpu)
        found = func(*tree_map(take_values, args), **tree_map(take_values, kwargs))
        wrappers = {id(tensor.values): tensor for tensor in here}

        def wrap(output: Any) -> Any:
            if not isinstance(output, Tensor):
                return output
            if id(output) in wrappers:  # changed in place
                return wrappers[id(output)]
            return OnGpu(output) if stays else output

        return tree_map(wrap, found)


def take_values(tensor: Any) -> Any:
    """Return what the CPU has of an argument."""
    return tensor.values if isinstance(tensor, OnGpu) else tensor


def makes_host_wait(
    func: Any,
    here: Sequence[Tensor],
    elsewhere: Sequence[Tensor],
    device: torch.device | None,
    options: dict[str, Any],
) -> bool:
    """Tell whether the host waits until a GPU has computed all before this operation."""
    if func is aten._local_scalar_dense.default or func in OF_UNKNOWN_SIZE:
        return bool(here)
    if func in BY_INDEX:
        of_truth = any(tensor.dtype == torch.bool for tensor in here[1:])
        return bool(here) and (bool(elsewhere) or of_truth)
    if func is aten._to_copy.default and device is not None:
        leaves, comes = bool(here) and device == CPU, not here and device != CPU
        return (leaves or comes) and not options.get("non_blocking")
    return func is aten.copy_.default and bool(here and elsewhere)


def name_caller() -> str:
    """Return the innermost function of this project that is being called."""
    frames = (f for f in traceback.extract_stack() if "biomassters" in Path(f.filename).parts)
    return [frame.name for frame in frames][-1]


class Event:
    """Of a stream."""

    def synchronize(self) -> None:
        """Wait for nothing: all has been computed."""


class Stream:
    """Of a GPU that computes at once."""

    def __init__(self, device: torch.device | None = None) -> None:
        pass

    def record_event(self) -> Event:
        """Return an event that has happened."""
        return Event()

    def wait_event(self, event: Event) -> None:
        """Wait for nothing."""


@contextmanager
def pretend_gpu() -> Iterator[PretendedGpu]:
    """Let torch have a GPU."""
    torch._C._ensureCUDADeviceGuardSet()  # else the guards around operations look for the driver
    predict_view_sets: Any = inference.predict_view_sets
    empty = torch.empty

    def make_empty(*shape: Any, **options: Any) -> Tensor:
        return empty(*shape, **options | {"pin_memory": False})

    replacements: list[tuple[Any, str, Callable[..., Any]]] = [
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "device_count", lambda: 1),
        (torch.cuda, "_lazy_init", lambda: None),
        (torch.cuda, "is_bf16_supported", lambda *_, **__: True),
        (torch.cuda, "is_current_stream_capturing", lambda: False),
        (torch.cuda, "get_rng_state", lambda *_: None),
        (torch.cuda, "set_rng_state", lambda *_: None),
        (torch.cuda, "Stream", Stream),
        (torch.cuda, "current_stream", lambda *_: Stream()),
        (torch.cuda, "stream", lambda _: nullcontext()),
        (Tensor, "pin_memory", lambda self: self),
        (torch, "empty", make_empty),
        (Tensor, "record_stream", lambda *_: None),
        # No tensor that is made in inference mode can be wrapped.
        (torch, "inference_mode", torch.no_grad),
        (inference, "predict_view_sets", torch.no_grad()(predict_view_sets.__wrapped__)),
        (ensemble, "place_model", lambda model, _: move(model)),
        (Tensor, "backward", leave_zeros),
        (torch.autograd, "grad", lambda *_, **__: None),
    ]
    with ExitStack() as stack:
        for place, name, replacement in replacements:
            stack.enter_context(patch.object(place, name, replacement))
        # Whose operations would be called by name.
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield stack.enter_context(PretendedGpu())


def leave_zeros(loss: Tensor) -> None:
    """Give each parameter that a loss depends on a gradient, of 0, in place of `backward`."""
    seen, ahead = set(), [loss.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        ahead += [following for following, _ in node.next_functions]
        if hasattr(node, "variable"):
            node.variable.grad = OnGpu(torch.zeros(node.variable.shape))


def move(model: BiomassModel) -> BiomassModel:
    """Move a model to the pretended GPU, as `Module.to` cannot."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                moved = nn.Parameter(OnGpu(parameter.detach()), parameter.requires_grad)
                module._parameters[name] = moved
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = OnGpu(buffer)
    return model
