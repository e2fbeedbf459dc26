"""The pytest fixture `streamlake`: a Kafka broker, a schema registry and Iceberg tables, without Java or Docker.

pytest imports this by its entry point in every run of an environment that has StreamLake, so it imports nothing more.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

import streamlake

if TYPE_CHECKING:
    from streamlake.lake.local import LocalLake


@pytest.fixture(scope="session", name="streamlake")
def streamlake_server() -> "Iterator[LocalLake]":
    """A StreamLake server in a temporary directory, one for the whole run (with pytest-xdist: of each worker)."""
    with streamlake.local() as lake:
        yield lake
