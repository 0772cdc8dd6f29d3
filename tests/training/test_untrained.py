import json
from pathlib import Path

import pytest

from biomassters.batches.distributed import ALONE
from biomassters.errors import ModelError
from biomassters.model.weights import load_model
from biomassters.training.untrained import write_untrained


def test_all_that_a_training_hands_over_is_there_and_says_that_there_was_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = [tmp_path / "models/last/a.safetensors", tmp_path / "models/folds/a.safetensors"]
    write_untrained(ALONE, weights, tmp_path / "metrics", tmp_path / "validation/fold-0")
    assert capsys.readouterr().out == "no train chips, nothing to train\n"
    for path in weights:
        with pytest.raises(ModelError, match="no train chips"):
            load_model(path)
    assert json.loads((tmp_path / "metrics/metrics.json").read_text()) == {"train_chips": 0}
    for folder in ("metrics/plots/metrics", "validation/fold-0"):
        assert list((tmp_path / folder).iterdir()) == []
