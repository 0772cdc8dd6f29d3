from typing import Any

import pytest
import torch
from together import run_together

from biomassters.batches.distributed import ALONE, join_processes


def talk() -> dict[str, Any]:
    with join_processes() as processes:
        own = torch.tensor([float(processes.rank), 1.0])
        heard = {
            "first": processes.is_first,
            "size": processes.size,
            "device": str(processes.device),
            "broadcast": processes.broadcast({"state": own})["state"].tolist(),
            "gather": processes.gather(f"rank {processes.rank}"),
            "stack": processes.stack(own).tolist(),
            "add": processes.add(own).tolist(),
            "group": processes.divide(2).size(),
            "whole": processes.divide(1).size(),
        }
        processes.wait()
    return heard


def test_two_processes_agree() -> None:
    first, second = run_together(__name__, "talk")
    assert first.pop("first")
    assert not second.pop("first")
    assert first == second
    assert first == {
        "size": 2,
        "device": "cpu",
        "broadcast": [0.0, 1.0],
        "gather": ["rank 0", "rank 1"],
        "stack": [[0.0, 1.0], [1.0, 1.0]],
        "add": [1.0, 2.0],
        "group": 1,
        "whole": 2,
    }


def test_one_alone_hears_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    with join_processes() as processes:
        assert processes is ALONE
        assert not torch.distributed.is_initialized()
        own = torch.tensor([1.0, 2.0])
        assert processes.is_first
        assert processes.broadcast("x") == "x"
        assert processes.gather("x") == ["x"]
        assert processes.stack(own).tolist() == [[1.0, 2.0]]
        assert processes.add(own) is own
        assert own.tolist() == [1.0, 2.0]
        processes.wait()
