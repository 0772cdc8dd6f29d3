"""The winner's published weights, turned into weights files of this project.

Knows the two kinds of file that his training writes: `model_last.pth` and `model_best.pth` hold a
dictionary with a state dict, `modelo_best.pth` a whole pickled module. Neither is ever unpickled.

Source: the winner's code (drivendataorg/the-biomassters, 1st-place).
"""

import errno
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import timm
import torch
from torch import Tensor

from biomassters.commands.backbone_search import count_differences, rank_backbones
from biomassters.commands.tensor_differences import describe_differences, show
from biomassters.commands.weights.legacy_archive import open_archive
from biomassters.commands.weights.published_weights import (
    FoundWeights,
    find_weights,
    list_payload,
    refuse,
)
from biomassters.commands.weights.torch_archive import StoredTensor
from biomassters.errors import ModelError, name_few
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.encoder import REDUCTIONS
from biomassters.model.normalisation import BandNormalisation
from biomassters.model.weights import N_NAMED, TensorKinds, describe_tensors, save_weights
from biomassters.model.weights_header import CLEANING_KEY
from biomassters.params.sections import Architecture
from biomassters.statistics.figures import publish_normalisation

SUFFIX: Final = ".safetensors"
ENCODER: Final = "encoder.model."

OTHER_FLOATS: Final = (torch.float16, torch.bfloat16, torch.float64)
"""Types that become float32: the first two without changing any number."""

FEW: Final = 0.1
"""Share of the tensors up to which a file is taken for a damaged one of a backbone, not for one of
another."""

log = logging.getLogger(__name__)


def import_weights(source: Path, out: Path, backbone: str | None = None) -> str:
    """Turn published weights of the winner into a weights file.

    His input scaling is in his code, and his head predicts in t/ha.

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
            model = _build(found, backbone, source)
            tensors = {name: archive.read_tensor(found.tensors[name]) for name in found.tensors}
    except OSError as error:
        raise ModelError(
            f"expected a checkpoint of the winner, got {error.strerror}, at {source};"
            " name the file model_last.pth or modelo_best.pth"
        ) from None
    conversions = list(_convert(tensors))
    _check_finite(tensors, source)
    _fill(model, tensors)
    metadata = {"imported_from": source.name, "kind": found.kind, CLEANING_KEY: "winner"}
    if found.epoch is not None:
        metadata["epoch"] = str(found.epoch)
    _save(out, model, metadata)
    _warn_of_payload(list_payload(archive.unknown, found), source)
    channels = ", ".join(map(str, model.architecture.decoder_channels))
    said = (
        f"{out} has the weights of {source} (a {found.kind}"
        f"{'' if found.epoch is None else f' after epoch {found.epoch}'}):"
        f" {model.architecture.backbone}, decoder {channels},"
        f" {sum(t.numel() for t in tensors.values()) / 1e6:.1f} million numbers"
    )
    return "\n".join([said, *conversions])


def _warn_of_payload(names: list[str], source: Path) -> None:
    if names:
        log.warning(
            "expected weights alone, got %s beside them, at %s; it was not imported, not executed,"
            " and is not in the new file",
            name_few([show(name).replace(" ", ".") for name in names], N_NAMED),
            source,
        )


def _convert(tensors: dict[str, Tensor]) -> Iterator[str]:
    """Make all numbers with a fraction float32, in place, and say what that changed."""
    counts = Counter(tensor.dtype for tensor in tensors.values())
    n_rounded = 0
    for name, tensor in tensors.items():
        if tensor.dtype in OTHER_FLOATS:
            tensors[name] = tensor.float()
            if tensor.dtype == torch.float64:
                n_rounded += int((tensors[name].double() != tensor).sum())
    for dtype in OTHER_FLOATS:
        if counts[dtype]:
            change = "none of its numbers changed by it"
            if dtype == torch.float64 and n_rounded:
                change = f"{n_rounded:,} of its numbers were rounded"
            kind = str(dtype).removeprefix("torch.")
            yield f"{counts[dtype]} tensors of {kind} are float32 there; {change}"


def _build(found: FoundWeights, backbone: str | None, source: Path) -> BiomassModel:
    """Build the model whose tensors are exactly those that were found, for `_fill` to fill."""
    channels = _read_decoder_channels(found.tensors, source)
    architecture = Architecture(
        bands="all",
        backbone=_find_backbone(found, source) if backbone is None else backbone,
        decoder_channels=channels,
        normalisation="minmax",
        target_scaling="none",
        month_aggregation="attention",
        month_encoding="none",
        missing_months="zero",
        head="mean",
        quantile_level=0.9,
    )
    published = BandNormalisation.from_statistics("minmax", publish_normalisation())
    try:
        with torch.device("meta"):  # no memory, whatever sizes a file claims
            model = BiomassModel(architecture=architecture, normalisation=published)
    except ModelError as error:
        raise ModelError(str(error).replace("model.backbone", "--backbone")) from None
    expected = describe_tensors(model.network.state_dict())
    got = {name: _describe_stored(t, expected.get(name)) for name, t in found.tensors.items()}
    differences = describe_differences(expected, got)
    if differences:
        shapes = [{name: shape for name, (shape, _) in kinds.items()} for kinds in (expected, got)]
        is_other = count_differences(*shapes) > FEW * len(expected)
        raise ModelError(
            f"expected the {len(expected)} tensors of the winner's network with"
            f" {architecture.backbone}, got {differences}, at {source};"
            f" {'give its backbone by --backbone NAME' if is_other else _advise(expected, got)}"
        )
    return model


def _fill(model: BiomassModel, tensors: Mapping[str, Tensor]) -> None:
    """Let a model share the tensors of its network; all else of it is what the winner published."""
    state = {
        **{f"network.{name}": tensor for name, tensor in tensors.items()},
        **{f"normalisation.{name}": t for name, t in model.normalisation.state_dict().items()},
        "target_scale": torch.tensor(1.0),
        "target_offset": torch.tensor(0.0),
    }
    model.load_state_dict(state, assign=True)


def _advise(expected: TensorKinds, got: TensorKinds) -> str:
    """Return what helps where a few tensors differ: they have other names, or were changed."""
    missing, unknown = expected.keys() - got.keys(), got.keys() - expected.keys()
    if len(missing) == len(unknown) == 1:
        old, new = *unknown, *missing
        if expected[new][0] == got[old][0]:
            return f"rename {show(old)} to {new} where you trust the file, or name another file"
    return "mend these tensors where you trust the file, or name another file"


def _describe_stored(
    tensor: StoredTensor, expected: tuple[torch.Size, torch.dtype] | None
) -> tuple[torch.Size, torch.dtype]:
    """Return the shape of a tensor, and the type that it has or, by `_convert`, will have."""
    dtype = tensor.storage.dtype
    is_converted = dtype in OTHER_FLOATS and expected is not None and expected[1] == torch.float32
    return torch.Size(tensor.shape), torch.float32 if is_converted else dtype


def _read_decoder_channels(tensors: Mapping[str, StoredTensor], source: Path) -> tuple[int, ...]:
    channels = []
    for block in range(len(REDUCTIONS)):
        # As many as the first convolution makes and the second one takes: one of them may be lost.
        first, second = (f"decoder.blocks.{block}.conv{n}.0.weight" for n in (1, 2))
        present = [name for name in (first, second) if name in tensors]
        if not present or len(tensors[present[0]].shape) != 4 or 0 in tensors[present[0]].shape:
            names = f" ({name_few([*map(show, tensors)], N_NAMED)})" if tensors else ""
            raise refuse(f"{len(tensors)} tensors{names} without {first}", source)
        channels.append(tensors[present[0]].shape[0])
    return tuple(channels)


def _find_backbone(found: FoundWeights, source: Path) -> str:
    """Return the backbone that a file names, as timm calls it today, or that alone fits.

    Shapes alone do not tell those apart that pad or normalise differently, such as
    tf_efficientnetv2_s and efficientnetv2_s: of several that fit, none is chosen. Where none fits,
    it is the one that all but a few tensors are of, for the error to name these.
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
    shapes = {
        name.removeprefix(ENCODER): tensor.shape
        for name, tensor in found.tensors.items()
        if name.startswith(ENCODER)
    }
    ranked = rank_backbones(shapes)
    fitting = [name for n_differing, name in ranked if n_differing == 0]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting and ranked and ranked[0][0] <= FEW * len(shapes):
        return ranked[0][1]
    raise ModelError(
        f"expected a checkpoint that names a backbone of timm, got {found.backbone!r} and the"
        f" shapes of {name_few(fitting, N_NAMED) or 'none'}, at {source};"
        " give its backbone by --backbone NAME"
    )


def _check_finite(tensors: Mapping[str, Tensor], source: Path) -> None:
    for name, tensor in tensors.items():
        # The least and the largest, which are NaN if any is: in a tenth of the time of all.
        if tensor.numel() and not all(map(torch.isfinite, torch.aminmax(tensor))):
            raise refuse(f"numbers that are not finite in {name}", source)


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
