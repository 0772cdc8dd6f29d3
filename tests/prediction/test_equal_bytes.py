"""The stage `predict`, whose files are the same to the byte however it is run on a CPU."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from zlib import crc32

import pytest
import torch
from stage_scripts import read_script
from tiny_training import IDS, build_tiny_model, one_thread, pack_chips  # noqa: F401
from together import run_together

from biomassters.batches.distributed import ALONE, Processes, join_processes
from biomassters.model.weights import save_weights
from biomassters.params.sections import EngineName, PredictParams
from repository_copy import ROOT

ENGINES: tuple[EngineName, ...] = ("torch", "openvino")
Files = Mapping[str, int]


def run_stage(engine: EngineName, batch_size: int, processes: Processes = ALONE) -> Files:
    """Predict the test chips of this folder; return the checksums of the files."""
    script = read_script("predict")
    predict = PredictParams(
        models="imported",
        calibration=str(ROOT / "presets/uncalibrated.json"),
        tta="flips",
        clamp=True,
        batch_size=batch_size,
        precision="fp32",
        engine=engine,
    )
    script.predict_chips(script.Params(cleaning="none", predict=predict), processes)
    processes.wait()  # for the first to write
    files = {path.name: crc32(path.read_bytes()) for path in Path("predictions").iterdir()}
    processes.wait()
    if processes.is_first:
        shutil.rmtree("predictions")
    return files


def run_in_turns(batch_size: int) -> dict[str, Files]:
    """Run the stage with each engine; alone, or in one of several processes."""
    torch.set_num_threads(1)
    with join_processes() as processes:
        return {engine: run_stage(engine, batch_size, processes) for engine in ENGINES}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to a folder with five test chips, and a model that looks at the months that they have."""
    monkeypatch.chdir(tmp_path)
    pack_chips(Path("chips"), *IDS, "5eed0005").path.rename("chips/test.zarr")
    model = build_tiny_model(missing_months="mask")
    with torch.no_grad():  # statistics of its features, so that its outputs are of one size
        for seed in range(10):
            generator = torch.Generator().manual_seed(seed)
            model.train()(torch.randn(3, 12, 15, 32, 32, generator=generator))
    save_weights(Path("models/imported/tiny.safetensors"), model, {})


def test_files_depend_on_no_batch_size_no_worker_no_thread_and_no_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BIOMASSTERS_WORKERS", "0")
    expected = {engine: run_stage(engine, 1) for engine in ENGINES}
    assert len(set(expected["torch"].values())) == 5
    first, second = run_together(__name__, "run_in_turns", 2)
    assert first == second == expected
    monkeypatch.setenv("BIOMASSTERS_WORKERS", "3")
    torch.set_num_threads(2)
    for batch_size in (3, 16):
        assert run_stage("torch", batch_size) == expected["torch"]
    assert run_stage("openvino", 3) == expected["openvino"]
    torch.set_num_threads(1)
