import json
from pathlib import Path

import pytest
import torch
from example_models import build
from example_statistics import describe_chips
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from stage_scripts import read_script
from tiny_training import IDS, pack_chips

from biomassters.batches.distributed import ALONE
from biomassters.calibration.calibration import write_no_calibration
from biomassters.errors import ModelError
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.weights import (
    decode_architecture,
    encode_architecture,
    identify_weights,
    load_model,
    save_untrained,
    save_weights,
)
from biomassters.model.weights_header import CLEANING_KEY, HEADER_KEY, read_packages
from biomassters.params.sections import ModelParams, PredictParams
from biomassters.processes.packages import list_versions

SETTINGS = ModelParams(
    bands="all",
    backbone="mobilenetv3_small_050",
    pretrained=False,
    decoder_channels=(8, 8, 8, 8, 8),
    normalisation="zscore",
    target_scaling="standard",
    month_aggregation="attention",
    month_encoding="learned",
    missing_months="nearest",
    head="mean",
    quantile_level=0.9,
)


@pytest.fixture(scope="module")
def model() -> BiomassModel:
    torch.manual_seed(0)
    mean = tuple(map(float, range(15)))
    statistics = describe_chips(mean=mean, standard_deviation=(4.0,) * 15)
    return BiomassModel.build(SETTINGS, statistics).eval()


NO_METADATA = {HEADER_KEY: '{"architecture": "", "metadata": []}'}


def header_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def test_loaded_model_predicts_the_same_from_stored_integers(
    model: BiomassModel, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, model, {})
    loaded = load_model(path)
    assert loaded.architecture == model.architecture
    assert not loaded.training
    s1 = torch.full((1, 12, 4, 32, 32), -1100, dtype=torch.int16)
    s2 = torch.full((1, 12, 11, 32, 32), 300, dtype=torch.int32).to(torch.uint16)
    present = torch.ones(1, 12, dtype=torch.bool)
    with torch.no_grad():
        expected = model(model.normalise(s1, s2, present))
        assert torch.equal(loaded(loaded.normalise(s1, s2, present)), expected)


def test_weights_remember_the_bands_and_their_normalisation(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, build(bands=("B4", "VV ascending")), {})
    loaded = load_model(path)
    assert loaded.architecture.bands == ("B4", "VV ascending")
    assert (loaded.bands.s1, loaded.bands.s2) == ((0,), (2,))
    assert load_file(path)["normalisation.offset"].tolist() == [-60, 0]


def test_same_model_gives_the_same_bytes(model: BiomassModel, tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    metadata = {str(number): "x" for number in range(20)}
    save_weights(first, model, metadata)
    save_weights(second, load_model(first), dict(reversed(metadata.items())))
    assert first.read_bytes() == second.read_bytes()


def test_header_tells_the_packages_that_made_it(model: BiomassModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, model, {})
    assert torch.__version__.startswith(read_packages(path)["torch"])
    assert read_packages(path) == list_versions()


def test_file_from_before_packages_were_told_has_none(model: BiomassModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, model, {})
    header = json.loads(header_of(path)[HEADER_KEY])
    del header["packages"]
    save_file(load_file(path), path, {HEADER_KEY: json.dumps(header)})
    assert read_packages(path) == {}
    load_model(path)


def test_header_holds_architecture_and_metadata(model: BiomassModel, tmp_path: Path) -> None:
    save_weights(tmp_path / "model.safetensors", model, {"fold": "3"})
    header = json.loads(header_of(tmp_path / "model.safetensors")[HEADER_KEY])
    assert header["metadata"] == {"fold": "3"}
    assert decode_architecture(header["architecture"]) == model.architecture


def test_model_of_chips_that_were_cleaned_otherwise_is_refused(
    model: BiomassModel, tmp_path: Path
) -> None:
    path = tmp_path / "final.safetensors"
    save_weights(path, model, {CLEANING_KEY: "second"})
    load_model(path)
    load_model(path, cleaning="second")
    with pytest.raises(ModelError, match=r"cleaning: none, .* got .* cleaning: second") as caught:
        load_model(path, cleaning="none")
    assert str(caught.value).endswith(
        f"at {path}; set cleaning to second, or train the model again"
    )


def test_model_that_does_not_say_is_of_chips_as_stored(model: BiomassModel, tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    save_weights(path, model, {"fold": "0"})
    load_model(path, cleaning="none")
    with pytest.raises(ModelError, match="got one trained with cleaning: none"):
        load_model(path, cleaning="winner")


def test_prediction_refuses_a_model_of_otherwise_cleaned_chips(
    model: BiomassModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pack_chips(Path("chips"), IDS[0]).path.rename("chips/test.zarr")
    save_weights(Path("models/imported/winner.safetensors"), model, {CLEANING_KEY: "winner"})
    script = read_script("predict")
    write_no_calibration(Path("uncalibrated.json"), "imported weights")
    predict = PredictParams(
        models="imported",
        calibration="uncalibrated.json",
        tta="none",
        clamp=True,
        batch_size=1,
        engine="torch",
        precision="fp32",
    )
    with pytest.raises(ModelError, match="set cleaning to winner"):
        script.predict_chips(script.Params(cleaning="none", predict=predict), ALONE)
    assert not Path("predictions").exists()
    script.predict_chips(script.Params(cleaning="winner", predict=predict), ALONE)
    assert [path.name for path in Path("predictions").iterdir()] == [f"{IDS[0]}_agbm.tif"]


def test_identity_is_of_the_tensors_alone(model: BiomassModel, tmp_path: Path) -> None:
    save_weights(tmp_path / "a.safetensors", model, {"fold": "0"})
    again = load_model(tmp_path / "a.safetensors")
    assert identify_weights(again) == identify_weights(model)
    again.network.segmentation_head.bias.data[0] += 1e-6
    assert identify_weights(again) != identify_weights(model)


def test_folder_is_created_and_nothing_else_is_left(model: BiomassModel, tmp_path: Path) -> None:
    save_weights(tmp_path / "models" / "last" / "fold-0.safetensors", model, {})
    assert [path.name for path in (tmp_path / "models/last").iterdir()] == ["fold-0.safetensors"]


def test_failed_write_leaves_the_old_file_and_no_other(
    model: BiomassModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")

    def fail(self: Path, _: bytes) -> int:
        self.touch()
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="no space"):
        save_weights(path, model, {})
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    assert path.read_text() == "old"


def test_pretrained_weights_are_never_downloaded_for_loading(
    model: BiomassModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_weights(tmp_path / "model.safetensors", model, {})
    monkeypatch.setattr("timm.models._hub.load_state_dict_from_hf", lambda *_: pytest.fail("loads"))
    load_model(tmp_path / "model.safetensors")


def test_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"expected the weights .*none\.safetensors, got no such"):
        load_model(tmp_path / "none.safetensors")


@pytest.mark.parametrize("data", [b"", b"not safetensors", b"\x00" * 64])
def test_file_of_another_format_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="expected a weights file of this project"):
        load_model(path)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        {HEADER_KEY: "x"},
        {HEADER_KEY: "{}"},
        {HEADER_KEY: "[]"},
        NO_METADATA,
    ],
)
def test_safetensors_of_another_project_are_refused(
    metadata: dict[str, str] | None, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(3)}, path, metadata)
    with pytest.raises(ModelError, match="expected a weights file of this project"):
        load_model(path)


def test_truncated_file_is_refused(model: BiomassModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, model, {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="expected a weights file of this project"):
        load_model(path)


def test_tensors_that_do_not_fit_the_architecture_are_named(
    model: BiomassModel, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, model, {})
    tensors, header = load_file(path), header_of(path)
    tensors["network.surplus"] = tensors.pop("network.segmentation_head.bias")
    tensors["normalisation.scale"] = torch.ones(11)
    save_file(tensors, path, header)
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert "1 missing (network.segmentation_head.bias)" in str(caught.value)
    assert "1 unknown (network.surplus)" in str(caught.value)
    assert "1 of another shape or type (normalisation.scale)" in str(caught.value)


def test_unsound_architecture_in_the_header_names_the_file(
    model: BiomassModel, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, model, {})
    tensors, header = load_file(path), header_of(path)
    header[HEADER_KEY] = header[HEADER_KEY].replace("zscore", "median")
    save_file(tensors, path, header)
    with pytest.raises(ModelError, match=r"expected an architecture .* at .*model\.safetensors"):
        load_model(path)


def test_architecture_survives_json() -> None:
    for changes in (
        {},
        {"month_aggregation": "max", "missing_months": "mask"},
        {"bands": ("B4", "VV ascending")},
        {"head": "quantiles", "quantile_level": 0.8},
    ):
        architecture = build(**changes).architecture
        assert decode_architecture(encode_architecture(architecture)) == architecture


def test_architecture_of_an_older_file_is_as_the_winners() -> None:
    new = {"bands", "month_aggregation", "month_encoding", "missing_months"}
    new |= {"head", "quantile_level"}
    fields = json.loads(encode_architecture(build().architecture))
    old = json.dumps({name: value for name, value in fields.items() if name not in new})
    assert decode_architecture(old) == build().architecture


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"backbone": "resnet18"}',
        '{"backbone": "resnet18", "decoder_channels": [8, 8], "normalisation": "minmax",'
        ' "target_scaling": "none"}',
        '{"backbone": "resnet18", "decoder_channels": [8, 8, 8, 8, 8], "normalisation": "other",'
        ' "target_scaling": "none"}',
        '{"backbone": "resnet18", "decoder_channels": [8, 8, 8, 8, 8], "normalisation": "minmax",'
        ' "target_scaling": "none", "missing_months": "guess"}',
    ],
)
def test_unsound_architecture_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="expected an architecture"):
        decode_architecture(text)


def test_file_of_no_training_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "fold-0.safetensors"
    save_untrained(path)
    with pytest.raises(
        ModelError, match=rf"the catalogue has no train chips, at {path}; add train"
    ):
        load_model(path, cleaning="none")
    assert read_packages(path) == list_versions()
