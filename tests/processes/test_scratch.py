from pathlib import Path

import pytest

from biomassters.processes.scratch import scratch_folder


def test_scratch_is_the_main_checkouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", "/main")
    assert scratch_folder("train-0") == Path("/main/work/train-0")
    monkeypatch.delenv("DVC_ROOT")
    assert scratch_folder("train-0") == Path("work/train-0")
