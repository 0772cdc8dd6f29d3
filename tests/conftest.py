"""What several test files share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Golden numbers, the real catalogue and two real chips, kept beside the repository."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("needs ../shared (golden numbers and real chips), which is absent here")
    return folder
