"""Files that are not the winner's, that are damaged, or that attack who reads them."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from winner_files import BACKBONE, make_network, save_checkpoint

from biomassters.commands.import_weights import import_weights
from biomassters.errors import ModelError
from biomassters.model.weights import load_model


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


def test_evil_checkpoint_is_imported_without_being_executed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    marker = tmp_path / "marker"
    source = save_checkpoint(
        tmp_path / "a.pth", sched_state_dict=Evil(marker), scaler={"x": [Evil(marker)]}
    )
    import_weights(source, tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").exists()
    assert not marker.exists()
    assert f"got {os.system.__module__}.system beside them, at {source}" in caplog.text
    assert "not executed" in caplog.text
    torch.load(source, weights_only=False)
    assert marker.exists()  # the attack is real


def test_evil_module_within_a_module_is_not_executed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
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
    assert f"got {os.system.__module__}.system beside them" in caplog.text


def test_objects_beside_the_weights_are_named_once_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    optimizer = torch.optim.AdamW([torch.zeros(1)])
    path = Path("a\n")
    source = save_checkpoint(tmp_path / "a.pth", optimizer=[optimizer, optimizer], where=path)
    import_weights(source, tmp_path / "a.safetensors")
    [record] = caplog.records
    assert "torch.optim.adamw.AdamW" in record.getMessage()
    assert f"{type(path).__module__}.{type(path).__name__}" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_what_the_winners_training_saves_is_no_payload(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    optimizer = torch.optim.AdamW([torch.zeros(1)]).state_dict()
    source = save_checkpoint(tmp_path / "a.pth", opt_state_dict=optimizer, sched_state_dict=None)
    import_weights(source, tmp_path / "a.safetensors")
    torch.save(make_network(), tmp_path / "b.pth")
    import_weights(tmp_path / "b.pth", tmp_path / "b.safetensors", BACKBONE)
    assert caplog.text == ""


def test_module_that_holds_itself_is_refused(tmp_path: Path) -> None:
    module = nn.Module()
    module._modules["child"] = module
    torch.save(module, tmp_path / "a.pth")
    with pytest.raises(ModelError, match="a module that holds itself"):
        import_weights(tmp_path / "a.pth", tmp_path / "a.safetensors")


def test_unknown_or_unfitting_backbone_is_refused(tmp_path: Path) -> None:
    source = save_checkpoint(tmp_path / "a.pth")
    with pytest.raises(ModelError, match=r"got 'mobilenetv9', at --backbone; the closest are"):
        import_weights(source, tmp_path / "a.safetensors", "mobilenetv9")
    with pytest.raises(ModelError, match=r"got \d+ of another shape or type.*--backbone NAME"):
        import_weights(source, tmp_path / "a.safetensors", "mobilenetv3_small_100")


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    weights = dict(make_network().state_dict())
    weights["surplus"] = weights.pop("segmentation_head.bias")
    weights["segmentation_head.weight"] = weights["segmentation_head.weight"].int()
    source = save_checkpoint(tmp_path / "a.pth", weights)
    with pytest.raises(ModelError) as caught:
        import_weights(source, tmp_path / "a.safetensors")
    assert "1 missing (segmentation_head.bias)" in str(caught.value)
    assert "1 unknown (surplus)" in str(caught.value)
    kinds = "expected float32 (1, 8, 3, 3), got int32 (1, 8, 3, 3)"
    assert f"1 of another shape or type (segmentation_head.weight: {kinds})" in str(caught.value)
    assert "--backbone" not in str(caught.value)


def test_renamed_tensor_is_told_its_name(tmp_path: Path) -> None:
    weights = dict(make_network().state_dict())
    weights["head.bias"] = weights.pop("segmentation_head.bias")
    source = save_checkpoint(tmp_path / "a.pth", weights)
    with pytest.raises(ModelError, match=r"rename head\.bias to segmentation_head\.bias where"):
        import_weights(source, tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "lost", ["encoder.model.blocks.2.0.bn2.weight", "decoder.blocks.1.conv1.0.weight"]
)
def test_lost_tensor_is_named_though_the_backbone_is_not(lost: str, tmp_path: Path) -> None:
    weights = dict(make_network().state_dict())
    del weights[lost]
    source = save_checkpoint(tmp_path / "a.pth", weights, backbone=None)
    with pytest.raises(ModelError) as caught:
        import_weights(source, tmp_path / "a.safetensors")
    assert f"network with {BACKBONE}, got 1 missing ({lost}), at" in str(caught.value)
    assert "mend these tensors where you trust the file" in str(caught.value)


def test_counts_in_half_precision_are_named_as_such(tmp_path: Path) -> None:
    weights = {name: tensor.half() for name, tensor in make_network().state_dict().items()}
    source = save_checkpoint(tmp_path / "a.pth", weights)
    with pytest.raises(ModelError, match=r"expected int64 \(\), got float16 \(\)") as caught:
        import_weights(source, tmp_path / "a.safetensors")
    n_counts = sum(name.endswith("num_batches_tracked") for name in weights)
    assert f"got {n_counts} of another shape or type" in str(caught.value)
    assert f" and {n_counts - 3} more), at" in str(caught.value)
    assert "mend these tensors" in str(caught.value)


def test_many_tensors_are_named_by_a_few_and_their_count(tmp_path: Path) -> None:
    weights = {f"model.{name}": t for name, t in make_network().state_dict().items()}
    source = save_checkpoint(tmp_path / "a.pth", weights)
    some = r"model\.encoder\.\S+, model\.encoder\.\S+, model\.encoder\.\S+ and \d+ more"
    with pytest.raises(ModelError, match=rf"tensors \({some}\) without decoder\.blocks\.0"):
        import_weights(source, tmp_path / "a.safetensors")


def test_name_of_a_tensor_stays_on_its_line(tmp_path: Path) -> None:
    weights = dict(make_network().state_dict())
    weights["\x1b[2J\n" + "x" * 500] = weights.pop("segmentation_head.bias")
    source = save_checkpoint(tmp_path / "a.pth", weights)
    with pytest.raises(ModelError, match=r"1 unknown \(\\x1b\[2J\\nx+\)") as caught:
        import_weights(source, tmp_path / "a.safetensors")
    assert len(str(caught.value)) < 600


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
        (nn.Linear(2, 3), r"2 tensors \(weight, bias\) without decoder\.blocks\.0"),
        (
            {"state_dict": {"decoder.blocks.0.conv1.0.weight": torch.empty(0, 1, 1, 1)}},
            r"1 tensors .* without decoder\.blocks\.0",
        ),
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
