import pytest
from support.log_bench import Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()
