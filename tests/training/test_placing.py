import pytest
import torch
from tiny_training import build_tiny_model

from biomassters.processes.environment import ACTIVATION_CHECKPOINTING_VARIABLE
from biomassters.training.placing import place_for_training


@pytest.mark.parametrize(("value", "is_checkpointed"), [("0", False), ("1", True)])
def test_activations_are_checkpointed_where_the_environment_says_so(
    value: str, is_checkpointed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ACTIVATION_CHECKPOINTING_VARIABLE, value)
    calls = []
    model = build_tiny_model()
    monkeypatch.setattr(model.network, "checkpoint_activations", lambda: calls.append(1))
    assert place_for_training(model, torch.device("cpu")) is model
    assert bool(calls) == is_checkpointed
