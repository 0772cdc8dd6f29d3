import subprocess
import sys
from pathlib import Path

import pytest
import torch
from together import make_environment
from torch import Tensor, nn

from biomassters.model.execution import Compiled, autocast, place_model

CPU = torch.device("cpu")
WITHOUT_COMPILER = """
import logging, torch
from biomassters.model.execution import Compiled
logging.basicConfig(format="%(name)s %(message)s")
compiled = Compiled(lambda x: (x.sin() + 1).square())
x = torch.rand(8)
for _ in range(2):
    assert torch.equal(compiled(x), (x.sin() + 1).square())
"""


def test_broken_compiler_is_one_warning_and_the_same_result(tmp_path: Path) -> None:
    environment = make_environment(
        PATH="/usr/bin:/bin",
        CXX="/bin/false",
        TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"),
        TORCHINDUCTOR_COMPILE_THREADS="1",  # more are processes that import torch, too
        HOME=str(tmp_path),
    )
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("biomassters")]
    assert len(warnings) == 1
    assert "going on without it, more slowly" in warnings[0]


def test_error_of_the_function_itself_is_no_compilers_matter() -> None:
    compiled = Compiled(lambda x, y: x @ y)
    compiled._call = compiled.function
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        compiled(torch.ones(2, 3), torch.ones(2, 3))


def test_nothing_is_compiled_before_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def pretend(function: object) -> object:
        calls.append(function)
        return function

    monkeypatch.setattr(torch, "compile", pretend)

    def double(x: Tensor) -> Tensor:
        return 2 * x

    compiled = Compiled(double)
    assert calls == []
    assert compiled(torch.ones(1)).item() == compiled(torch.ones(1)).item() == 2
    assert calls == [double]


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_products_are_computed_in_the_precision_that_was_asked_for(
    precision: str, dtype: torch.dtype
) -> None:
    layer, images = nn.Conv2d(3, 4, 1), torch.rand(1, 3, 8, 8)
    with autocast(CPU, precision):
        assert layer(images).dtype == dtype
    assert layer.weight.dtype == torch.float32
    assert layer(images).dtype == torch.float32


def test_placed_model_is_the_same_model_in_channels_last() -> None:
    layer = nn.Conv2d(3, 4, 3)
    weight = layer.weight.detach().clone()
    placed = place_model(layer, CPU)
    assert placed is layer
    assert placed.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(placed.weight.detach(), weight)
