import pytest

from biomassters.errors import BiomasstersError
from biomassters.processes.counts import count_processes


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_number_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIOMASSTERS_PROCESSES", text)
    with pytest.raises(BiomasstersError, match="expected a number of processes from 1 on, got"):
        count_processes()
