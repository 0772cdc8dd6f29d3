"""The winner's published weights, turned into weights files of this project.

Knows the two kinds of file that his training writes: `model_last.pth` and `model_best.pth` hold a
dictionary with a state dict, `modelo_best.pth` a whole pickled module. Neither is ever unpickled.

Source: the winner's code (drivendataorg/the-biomassters, 1st-place).
"""

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import timm
import torch
from torch import Tensor

from biomassters.commands.inert_pickle import Placeholder
from biomassters.commands.legacy_archive import open_archive
from biomassters.commands.torch_archive import StoredTensor
from biomassters.errors import ModelError
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.encoder import REDUCTIONS
from biomassters.model.network import Network
from biomassters.model.weights import compare_tensors, describe_tensors, save_weights
from biomassters.model.weights_header import CLEANING_KEY
from biomassters.params.sections import ModelParams
from biomassters.statistics.figures import Statistics, TargetFigures, publish_normalisation
from biomassters.store.bands import BANDS

SUFFIX: Final = ".safetensors"
MODULE_PARTS: Final = ("_parameters", "_buffers", "_modules")
ENCODER: Final = "encoder.model."
DDP_PREFIX: Final = "module."
N_NAMED: Final = 3
"""Tensors or backbones that an error message names."""

MAX_DEPTH: Final = 32
MAX_MODULES: Final = 100_000
"""Of a pickled module, which may hold itself; the winner's has 9 levels and 2,900 modules."""

PUBLISHED: Final = Statistics(
    normalisation=publish_normalisation(),
    # Not published, and not used: the winner's head predicts in t/ha.
    target=TargetFigures(
        pixels=0,
        nodata_share=1.0,
        minimum=0.0,
        maximum=0.0,
        mean=0.0,
        standard_deviation=1.0,
        percentiles={},
    ),
    bands={},
)
"""What the winner's inputs are scaled by."""


@dataclass(frozen=True, kw_only=True)
class FoundWeights:
    """What a file of published weights holds.

    Attributes:
        kind: `checkpoint` (a state dict among other things) or `module` (pickled whole).
        tensors: By the winner's names, without the prefix of distributed training.
        backbone: As the winner named it; None: the file does not say.
        epoch: Counted from 0; None: the file does not say.
    """

    kind: str
    tensors: Mapping[str, StoredTensor]
    backbone: str | None
    epoch: int | None


def import_weights(source: Path, out: Path, backbone: str | None = None) -> str:
    """Turn published weights of the winner into a weights file.

    Args:
        source: `model_last.pth`, `model_best.pth` or `modelo_best.pth`; nothing in it is executed.
        out: A new file, written whole or not at all.
        backbone: The timm encoder; None: the one that the file names or that alone fits.

    Returns:
        What was done, for people.

    Raises:
        ModelError: `source` is no such file, or damaged, or its backbone is not known;
            `out` cannot be written.
    """
    _check_out(out)
    try:
        with source.open("rb") as file:
            archive = open_archive(source, file)
            found = find_weights(archive.read_content(), source)
            settings = _choose_architecture(found, backbone, source)
            tensors = {name: archive.read_tensor(found.tensors[name]) for name in found.tensors}
    except OSError as error:
        raise ModelError(
            f"expected a checkpoint of the winner, got {error.strerror}, at {source};"
            " name the file model_last.pth or modelo_best.pth"
        ) from None
    _check_finite(tensors, source)
    model = BiomassModel.build(settings, PUBLISHED)
    model.network.load_state_dict(tensors)
    metadata = {"imported_from": source.name, "kind": found.kind, CLEANING_KEY: "winner"}
    if found.epoch is not None:
        metadata["epoch"] = str(found.epoch)
    _save(out, model, metadata)
    channels = ", ".join(map(str, settings.decoder_channels))
    return (
        f"{out} has the weights of {source} (a {found.kind}"
        f"{'' if found.epoch is None else f' after epoch {found.epoch}'}): {settings.backbone},"
        f" decoder {channels}, {sum(t.numel() for t in tensors.values()) / 1e6:.1f} million numbers"
    )


def find_weights(content: Any, source: Path) -> FoundWeights:
    """Find the weights in what a file holds.

    Args:
        content: As `TorchArchive.read_content` returns it.
        source: The file, for errors.

    Raises:
        ModelError: There are none.
    """
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        arguments = content.get("args")
        attributes = arguments.state if isinstance(arguments, Placeholder) else {}
        kind, named = "checkpoint", content["state_dict"].items()
        backbone, epoch = attributes.get("backbone"), content.get("epoch")
    elif isinstance(content, Placeholder) and "_modules" in content.state:
        name = content.state.get("name")
        kind, named = "module", _walk_modules(content, source)
        backbone = name.removeprefix("u-") if isinstance(name, str) else None
        epoch = None
    else:
        raise _refuse("neither a state dict nor a module", source)
    tensors = {
        name: tensor
        for name, tensor in named
        if isinstance(name, str) and isinstance(tensor, StoredTensor)
    }
    if tensors and all(name.startswith(DDP_PREFIX) for name in tensors):
        tensors = {name.removeprefix(DDP_PREFIX): tensor for name, tensor in tensors.items()}
    return FoundWeights(
        kind=kind,
        tensors=tensors,
        backbone=backbone if isinstance(backbone, str) else None,
        epoch=epoch if type(epoch) is int else None,
    )


def _walk_modules(module: Placeholder, source: Path) -> Iterator[tuple[str, Any]]:
    """Yield the parameters and persistent buffers of a module by their names in a state dict."""
    waiting = [("", module, 0)]
    n_modules = 0
    while waiting:
        prefix, current, depth = waiting.pop()
        n_modules += 1
        if depth > MAX_DEPTH or n_modules > MAX_MODULES:
            raise _refuse("a module that holds itself, or far more than the winner's", source)
        parts = {key: _as_dict(current.state.get(key)) for key in MODULE_PARTS}
        transient = current.state.get("_non_persistent_buffers_set")
        for name, tensor in [*parts["_parameters"].items(), *parts["_buffers"].items()]:
            if not (isinstance(transient, set) and name in transient):
                yield f"{prefix}{name}", tensor
        for name, child in parts["_modules"].items():
            if isinstance(child, Placeholder):
                waiting.append((f"{prefix}{name}.", child, depth + 1))


def _as_dict(value: Any) -> dict[str, Any]:
    items = value.items() if isinstance(value, dict) else ()
    return {name: item for name, item in items if isinstance(name, str)}


def _choose_architecture(found: FoundWeights, backbone: str | None, source: Path) -> ModelParams:
    """Return the architecture whose tensors are exactly those that were found."""
    channels = _read_decoder_channels(found.tensors, source)
    if backbone is None:
        backbone = _find_backbone(found, source)
    settings = ModelParams(
        backbone=backbone,
        pretrained=False,
        decoder_channels=channels,
        normalisation="minmax",
        target_scaling="none",
        month_aggregation="attention",
        month_encoding="none",
        missing_months="zero",
    )
    try:
        with torch.device("meta"):  # no memory, whatever sizes a file claims
            network = Network(backbone=backbone, decoder_channels=channels)
    except ModelError as error:
        raise ModelError(str(error).replace("model.backbone", "--backbone")) from None
    expected = describe_tensors(network.state_dict())
    got = {name: (torch.Size(t.shape), t.storage.dtype) for name, t in found.tensors.items()}
    findings = compare_tensors(expected, got)
    if findings:
        raise ModelError(
            f"expected the {len(expected)} tensors of the winner's network with {backbone},"
            f" got {findings}, at {source}; give its backbone by --backbone NAME"
        )
    return settings


def _read_decoder_channels(tensors: Mapping[str, StoredTensor], source: Path) -> tuple[int, ...]:
    names = [f"decoder.blocks.{block}.conv1.0.weight" for block in range(len(REDUCTIONS))]
    absent = [name for name in names if name not in tensors or len(tensors[name].shape) != 4]
    if absent:
        raise _refuse(f"{len(tensors)} tensors without {absent[0]}", source)
    return tuple(tensors[name].shape[0] for name in names)


def _find_backbone(found: FoundWeights, source: Path) -> str:
    """Return the backbone that a file names, as timm calls it today, or that alone fits.

    Shapes alone do not tell those apart that pad or normalise differently, such as
    tf_efficientnetv2_s and efficientnetv2_s: of several that fit, none is chosen.
    """
    if found.backbone is not None:
        for name in [*timm.list_pretrained(), *timm.list_models()]:
            # `tf_efficientnetv2_l_in21k` is today `tf_efficientnetv2_l.in21k`.
            if name.replace(".", "_") == found.backbone.replace(".", "_"):
                return str(name)
        # Tags of weights have changed their names, but say nothing of the architecture.
        kin = [n for n in timm.list_models() if found.backbone.startswith((f"{n}_", f"{n}."))]
        if kin:
            return str(max(kin, key=len))
    fitting = _list_fitting_backbones(found.tensors)
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(fitting[:N_NAMED]) + (", ..." if len(fitting) > N_NAMED else "")
    raise ModelError(
        f"expected a checkpoint that names a backbone of timm, got {found.backbone!r} and the"
        f" shapes of {names or 'none'}, at {source}; give its backbone by --backbone NAME"
    )


def _list_fitting_backbones(tensors: Mapping[str, StoredTensor]) -> list[str]:
    """Return the timm encoders whose tensors have just these names and shapes."""
    got = {
        name.removeprefix(ENCODER): torch.Size(tensor.shape)
        for name, tensor in tensors.items()
        if name.startswith(ENCODER)
    }
    fitting = []
    for name in timm.list_models():
        config = timm.get_pretrained_cfg(name)
        first = config.first_conv if config is not None else None
        if not isinstance(first, str) or f"{first}.weight" not in got:
            continue  # building all 1,300 would take minutes
        try:
            with torch.device("meta"):
                model = timm.create_model(name, features_only=True, in_chans=len(BANDS))
        except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError):
            continue  # it has no feature levels
        if {key: tensor.shape for key, tensor in model.state_dict().items()} == got:
            fitting.append(str(name))
    return fitting


def _check_finite(tensors: Mapping[str, Tensor], source: Path) -> None:
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise _refuse(f"numbers that are not finite in {name}", source)


def _check_out(out: Path) -> None:
    if out.suffix != SUFFIX:
        raise ModelError(f"expected a new file *{SUFFIX}, got {out}; choose such a name")
    if out.exists():
        raise ModelError(
            f"expected a new file, got one that exists, at {out}; remove it or choose another name"
        )


def _save(out: Path, model: BiomassModel, metadata: Mapping[str, str]) -> None:
    try:
        save_weights(out, model, metadata)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ModelError(
            f"expected to write {out}, got {error.strerror}; choose another folder"
        ) from None


def _refuse(got: str, source: Path) -> ModelError:
    return ModelError(
        f"expected a checkpoint of the winner, got {got}, at {source};"
        " name the file model_last.pth or modelo_best.pth"
    )
