from collections.abc import Iterator

import pytest
from s3_server import run_service


@pytest.fixture(scope="session")
def service() -> Iterator[int]:
    """Return the port of one service for all tests."""
    with run_service() as port:
        yield port
