import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from example_chips import simulate_record
from forked_scripts import run_script
from golden import DECODER_CHANNELS, golden_images, golden_shapes
from safetensors import safe_open
from together import make_environment
from torch import nn
from winner_files import BACKBONE, make_network, save_checkpoint

from biomassters.commands.import_weights import import_weights
from biomassters.errors import ModelError
from biomassters.model.weights import load_model
from biomassters.model.weights_header import HEADER_KEY
from biomassters.packing.assembly import pack_split
from biomassters.prediction.maps import read_prediction
from biomassters.sources.synthetic_source import SyntheticSource
from biomassters.statistics.figures import PUBLISHED_MAXIMUM, PUBLISHED_MINIMUM
from repository_copy import ROOT, set_params

CHECKPOINTS = ("model_last.pth", "modelo_best.pth")
UNCALIBRATED = "presets/uncalibrated.json"


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


def test_file_from_before_torch_1_6_gives_the_same_bytes(tmp_path: Path) -> None:
    weights = make_network().state_dict()
    outs = [tmp_path / "new.safetensors", tmp_path / "old.safetensors"]
    for out, is_zip in zip(outs, (True, False), strict=True):
        source = tmp_path / "a.pth"
        torch.save({"state_dict": weights}, source, _use_new_zipfile_serialization=is_zip)
        import_weights(source, out, BACKBONE)
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_state_dict_alone_is_taken(tmp_path: Path) -> None:
    weights = make_network().state_dict()
    torch.save(weights, tmp_path / "a.pth")
    said = import_weights(tmp_path / "a.pth", tmp_path / "a.safetensors", BACKBONE)
    assert "(a state dict)" in said
    imported = load_model(tmp_path / "a.safetensors").network.state_dict()
    assert all(torch.equal(imported[name], tensor) for name, tensor in weights.items())


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32_exactly(dtype: torch.dtype, tmp_path: Path) -> None:
    network = make_network().to(dtype)
    source = save_checkpoint(tmp_path / "a.pth", network.state_dict())
    said = import_weights(source, tmp_path / "a.safetensors")
    floats = [t for t in network.state_dict().values() if t.is_floating_point()]
    kind = str(dtype).removeprefix("torch.")
    assert f"{len(floats)} tensors of {kind} are float32 there; none of its numbers" in said
    imported = load_model(tmp_path / "a.safetensors").network.state_dict()
    for name, tensor in network.state_dict().items():
        assert torch.equal(imported[name].to(tensor.dtype), tensor)
        assert torch.equal(imported[name].double(), tensor.double())


def test_double_precision_is_rounded_and_said_to_be(tmp_path: Path) -> None:
    network = make_network().double()
    exact = import_weights(
        save_checkpoint(tmp_path / "a.pth", network.state_dict()), tmp_path / "a.safetensors"
    )
    assert "tensors of float64 are float32 there; none of its numbers changed by it" in exact
    with torch.no_grad():
        network.segmentation_head.bias.fill_(0.1)
    out = tmp_path / "b.safetensors"
    said = import_weights(save_checkpoint(tmp_path / "b.pth", network.state_dict()), out)
    assert "tensors of float64 are float32 there; 1 of its numbers were rounded" in said
    assert load_model(out).network.segmentation_head.bias.item() == np.float32(0.1)


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
    from biomassters.commands.import_weights import _find_backbone
    from biomassters.commands.weights.published_weights import FoundWeights

    found = FoundWeights(
        kind="checkpoint", tensors={}, backbone=named, epoch=None, classes=frozenset()
    )
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


def test_unnamed_backbone_is_found_among_all_of_timm(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "a.pth", backbone=None)
    assert f": {BACKBONE}, decoder" in import_weights(source, tmp_path / "a.safetensors")


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


def test_imported_model_is_predicted_from_by_the_stage(shared_folder: Path, tmp_path: Path) -> None:
    pack_split(
        [simulate_record(name, target=False) for name in ("5eed0001", "5eed0002")],
        SyntheticSource(32),
        tmp_path / "chips/test.zarr",
        tmp_path / "scratch",
        chip_size=32,
    )
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "presets").mkdir()
    shutil.copyfile(ROOT / UNCALIBRATED, tmp_path / UNCALIBRATED)
    imported = {"predict.models": "imported", "predict.calibration": UNCALIBRATED}
    set_params(tmp_path, {**imported, "cleaning": "winner"})

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
    prediction, tags, _ = read_prediction(tmp_path / "predictions", "5eed0001")
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
