import argparse
import collections
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from example_chips import simulate_record
from forked_scripts import run_script
from golden import DECODER_CHANNELS, golden_images, golden_shapes
from safetensors import safe_open
from together import make_environment
from torch import Tensor, nn

from biomassters.commands.import_weights import import_weights
from biomassters.errors import ModelError
from biomassters.model.network import Network
from biomassters.model.weights import HEADER_KEY, load_model
from biomassters.packing.assembly import pack_split
from biomassters.prediction.maps import read_prediction
from biomassters.sources.source import SyntheticSource
from biomassters.statistics.counting import PUBLISHED_MAXIMUM, PUBLISHED_MINIMUM
from repository_copy import ROOT, set_params

BACKBONE = "mobilenetv3_small_050"
CHANNELS = (8, 8, 8, 8, 8)
CHECKPOINTS = ("model_last.pth", "modelo_best.pth")


class Evil:
    """Says that it is made by a call."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


class EvilModule(nn.Conv2d):
    """A module whose unpickling would run a command."""

    marker = Path()

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",), self.__dict__


def make_network(backbone: str = BACKBONE) -> Network:
    torch.manual_seed(0)
    return Network(backbone=backbone, decoder_channels=CHANNELS)


def save_checkpoint(
    path: Path,
    weights: dict[str, Tensor] | None = None,
    *,
    backbone: str | None = BACKBONE,
    prefix: str = "module.",
    **more: Any,
) -> Path:
    """Save what the winner's training does."""
    weights = make_network().state_dict() if weights is None else weights
    state = collections.OrderedDict((prefix + name, value) for name, value in weights.items())
    state._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]  # as torch's own has
    content = {"epoch": 41, "best_score": 27.6, "state_dict": state, **more}
    if backbone is not None:
        content["args"] = argparse.Namespace(backbone=backbone, dec_channels=list(CHANNELS))
    torch.save(content, path)
    return path


def read_metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = json.loads(file.metadata()[HEADER_KEY])["metadata"]
    return metadata


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_imported_model_gives_the_winners_output(
    name: str, shared_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "winner.safetensors"
    said = import_weights(shared_folder / "golden" / name, out)
    assert BACKBONE in said
    model = load_model(out)
    assert model.architecture.decoder_channels == DECODER_CHANNELS[BACKBONE]
    shapes = golden_shapes(shared_folder / "golden", BACKBONE)
    assert {key: t.shape for key, t in model.network.state_dict().items()} == shapes
    golden = np.load(shared_folder / "golden" / f"{BACKBONE}.npz")
    with torch.no_grad():
        unmasked = model(golden_images()).numpy()
        masked = model(golden_images(), torch.from_numpy(golden["mask"])).numpy()
    for got, expected in [(unmasked, golden["unmasked"]), (masked, golden["masked"])]:
        assert np.abs(got - expected.reshape(got.shape)).max() < 1e-4 * expected.std()


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_header_says_where_the_weights_come_from(
    name: str, shared_folder: Path, tmp_path: Path
) -> None:
    import_weights(shared_folder / "golden" / name, tmp_path / "winner.safetensors")
    metadata = read_metadata(tmp_path / "winner.safetensors")
    expected = {"imported_from": name, "cleaning": "winner"}
    if name == "model_last.pth":
        assert metadata == {**expected, "kind": "checkpoint", "epoch": "3"}
    else:
        assert metadata == {**expected, "kind": "module"}


def test_imported_model_has_the_published_constants(tmp_path: Path) -> None:
    out = tmp_path / "winner.safetensors"
    import_weights(save_checkpoint(tmp_path / "model_last.pth"), out)
    model = load_model(out)
    assert model.architecture.normalisation == "minmax"
    assert model.architecture.target_scaling == "none"
    scale = model.normalisation.scale.double()
    np.testing.assert_allclose(model.normalisation.offset, PUBLISHED_MINIMUM)
    np.testing.assert_allclose(model.normalisation.offset + 1 / scale, PUBLISHED_MAXIMUM, rtol=1e-5)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_arrive_unchanged_with_and_without_the_prefix(prefix: str, tmp_path: Path) -> None:
    network = make_network()
    source = save_checkpoint(tmp_path / "a.pth", network.state_dict(), prefix=prefix)
    import_weights(source, tmp_path / "a.safetensors")
    imported = load_model(tmp_path / "a.safetensors").network.state_dict()
    assert all(torch.equal(imported[name], t) for name, t in network.state_dict().items())


@pytest.mark.parametrize("is_replicated", [False, True])
def test_whole_module_is_walked(is_replicated: bool, tmp_path: Path) -> None:
    network = make_network()
    network.segmentation_head.register_buffer("scratch", torch.ones(1), persistent=False)
    holder = nn.Module()
    holder.module = network
    torch.save(holder if is_replicated else network, tmp_path / "a.pth")
    import_weights(tmp_path / "a.pth", tmp_path / "a.safetensors", BACKBONE)
    imported = load_model(tmp_path / "a.safetensors").network.state_dict()
    assert all(torch.equal(imported[name], t) for name, t in network.state_dict().items())


def test_evil_checkpoint_is_imported_without_being_executed(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    source = save_checkpoint(
        tmp_path / "a.pth", sched_state_dict=Evil(marker), scaler={"x": [Evil(marker)]}
    )
    import_weights(source, tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").exists()
    assert not marker.exists()
    torch.load(source, weights_only=False)
    assert marker.exists()  # the attack is real


def test_evil_module_within_a_module_is_not_executed(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    network = make_network()
    evil = EvilModule(8, 1, 3, padding=1)
    EvilModule.marker = marker
    evil.load_state_dict(network.segmentation_head.state_dict())
    network.segmentation_head = evil
    torch.save(network, tmp_path / "a.pth")
    import_weights(tmp_path / "a.pth", tmp_path / "a.safetensors", BACKBONE)
    imported = load_model(tmp_path / "a.safetensors").network.segmentation_head
    assert torch.equal(imported.weight, evil.weight)
    assert not marker.exists()


def test_module_that_holds_itself_is_refused(tmp_path: Path) -> None:
    module = nn.Module()
    module._modules["child"] = module
    torch.save(module, tmp_path / "a.pth")
    with pytest.raises(ModelError, match="a module that holds itself"):
        import_weights(tmp_path / "a.pth", tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("named", "chosen"),
    [
        ("tf_efficientnetv2_l_in21k", "tf_efficientnetv2_l.in21k"),
        ("tf_efficientnetv2_l.in21k", "tf_efficientnetv2_l.in21k"),
        ("tf_efficientnet_b5_ns", "tf_efficientnet_b5"),
        ("resnet18", "resnet18"),
        ("../../resnet18", None),
        ("hf-hub:someone/something", None),
    ],
)
def test_backbone_is_found_under_its_name_of_today(named: str, chosen: str | None) -> None:
    from biomassters.commands.import_weights import FoundWeights, _find_backbone

    found = FoundWeights(kind="checkpoint", tensors={}, backbone=named, epoch=None)
    if chosen is None:
        with pytest.raises(ModelError, match=r"--backbone NAME"):
            _find_backbone(found, Path("a.pth"))
    else:
        assert _find_backbone(found, Path("a.pth")) == chosen


def test_unnamed_backbone_is_found_where_it_alone_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = ["mobilenetv3_small_075", BACKBONE, "resnet18", "tf_efficientnetv2_b0"]
    monkeypatch.setattr(timm, "list_models", lambda *_: known)
    source = save_checkpoint(tmp_path / "a.pth", backbone=None)
    assert BACKBONE in import_weights(source, tmp_path / "a.safetensors")


def test_unnamed_backbone_of_several_that_fit_is_not_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = ["efficientnet_lite0", "tf_efficientnet_lite0", BACKBONE]
    monkeypatch.setattr(timm, "list_models", lambda *_: known)
    weights = make_network("tf_efficientnet_lite0").state_dict()
    source = save_checkpoint(tmp_path / "a.pth", weights, backbone=None)
    with pytest.raises(ModelError, match=r"efficientnet_lite0, tf_efficientnet_lite0.*--backbone"):
        import_weights(source, tmp_path / "a.safetensors")
    import_weights(source, tmp_path / "a.safetensors", "tf_efficientnet_lite0")
    assert load_model(tmp_path / "a.safetensors").architecture.backbone == "tf_efficientnet_lite0"


def test_unknown_or_unfitting_backbone_is_refused(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "a.pth")
    with pytest.raises(ModelError, match=r"got 'mobilenetv9', at --backbone; the closest are"):
        import_weights(source, tmp_path / "a.safetensors", "mobilenetv9")
    with pytest.raises(ModelError, match=r"got \d+ of another shape or type.*--backbone NAME"):
        import_weights(source, tmp_path / "a.safetensors", "mobilenetv3_small_100")


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    weights = dict(make_network().state_dict())
    weights["surplus"] = weights.pop("segmentation_head.bias")
    weights["segmentation_head.weight"] = weights["segmentation_head.weight"].double()
    source = save_checkpoint(tmp_path / "a.pth", weights)
    with pytest.raises(ModelError) as caught:
        import_weights(source, tmp_path / "a.safetensors")
    assert "1 missing (segmentation_head.bias)" in str(caught.value)
    assert "1 unknown (surplus)" in str(caught.value)
    assert "1 of another shape or type (segmentation_head.weight)" in str(caught.value)


def test_huge_channels_cost_no_memory(tmp_path: Path) -> None:
    weights = dict(make_network().state_dict())
    weights["decoder.blocks.2.conv1.0.weight"] = torch.zeros(1_000_000, 1, 1, 1)
    source = save_checkpoint(tmp_path / "a.pth", weights)
    with pytest.raises(ModelError, match="of another shape"):
        import_weights(source, tmp_path / "a.safetensors")


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    weights = make_network().state_dict()
    weights["segmentation_head.bias"].fill_(torch.nan)
    source = save_checkpoint(tmp_path / "a.pth", weights)
    with pytest.raises(ModelError, match=r"not finite in segmentation_head\.bias"):
        import_weights(source, tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 1}, "neither a state dict nor a module"),
        ([1, 2], "neither a state dict nor a module"),
        ({"state_dict": {}}, r"0 tensors without decoder\.blocks\.0"),
        (nn.Linear(2, 3), r"2 tensors without decoder\.blocks\.0"),
    ],
)
def test_file_of_other_content_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ModelError, match=message):
        import_weights(tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_checkpoint_is_refused(share: float, tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "a.pth")
    data = source.read_bytes()
    source.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ModelError, match=r"expected a whole file that torch\.save wrote"):
        import_weights(source, tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["none.pth", "."])
def test_absent_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected a checkpoint of the winner, got"):
        import_weights(tmp_path / name, tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("out", "message"),
    [("a.pth", r"expected a new file \*\.safetensors"), ("b.safetensors", "got one that exists")],
)
def test_wrong_or_taken_name_is_refused(out: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "b.safetensors").write_text("mine")
    with pytest.raises(ModelError, match=message):
        import_weights(tmp_path / "none.pth", tmp_path / out)
    assert (tmp_path / "b.safetensors").read_text() == "mine"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_failed_write_leaves_nothing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_checkpoint(tmp_path / "a.pth")

    def fail(self: Path, _: bytes) -> int:
        self.touch()
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", fail)
    # A full disk is the scripts' to report; see test_scripts.
    with pytest.raises(OSError if number == errno.ENOSPC else ModelError):
        import_weights(source, tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_imported_model_is_predicted_from_by_the_stage(shared_folder: Path, tmp_path: Path) -> None:
    pack_split(
        [simulate_record(name, target=False) for name in ("5eed0001", "5eed0002")],
        SyntheticSource(32),
        tmp_path / "chips/test.zarr",
        tmp_path / "scratch",
        chip_size=32,
    )
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    set_params(tmp_path, {"predict.models": "imported", "cleaning": "winner"})

    def predict() -> "subprocess.CompletedProcess[str]":
        environment = make_environment(BIOMASSTERS_WORKERS="0")
        script = str(ROOT / "src/predict.py")
        return run_script(tmp_path, script, environment=environment, sources=ROOT / "src")

    without = predict()
    assert without.returncode == 1
    assert without.stderr.startswith("error: expected models at models/imported, got none")
    for name in CHECKPOINTS:
        out = tmp_path / "models/imported" / f"{Path(name).stem}.safetensors"
        import_weights(shared_folder / "golden" / name, out)
    done = predict()
    assert done.returncode == 0, done.stderr
    maps = sorted((tmp_path / "predictions").iterdir())
    assert [path.name for path in maps] == ["5eed0001_agbm.tif", "5eed0002_agbm.tif"]
    prediction, tags = read_prediction(tmp_path / "predictions", "5eed0001")
    assert prediction.shape == (32, 32)
    assert np.isfinite(prediction).all()
    assert tags["MODELS"] == "model_last,modelo_best"


def test_command_imports_and_reports_errors_in_one_line(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pth")
    command = ("import-weights", "a.pth", "models/imported/a.safetensors")
    done = subprocess.run(
        [sys.executable, "-m", "biomassters", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "a checkpoint after epoch 41" in done.stdout
    script = str(ROOT / "src/biomassters/__main__.py")
    environment = make_environment()
    again = run_script(tmp_path, script, *command, environment=environment, sources=ROOT / "src")
    assert again.returncode == 1
    assert again.stderr.startswith("error: expected a new file")
    assert again.stderr.count("\n") == 1
