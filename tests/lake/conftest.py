"""One lake for the tests that need nothing special, as a user would start it."""

from collections.abc import Iterator

import pytest
from support.server_fixtures import topic  # noqa: F401

import streamlake
from streamlake.lake.local import LocalLake


@pytest.fixture(scope="module")
def lake() -> Iterator[LocalLake]:
    with streamlake.local() as lake:
        yield lake
