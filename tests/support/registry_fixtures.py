"""A schema registry on the real metadata store, for the conftest.py of a folder that wants it."""

from collections.abc import AsyncIterator

import pytest
from support.members import next_process

from streamlake.cluster.store.database import Database
from streamlake.cluster.store.schemas import SchemaStore
from streamlake.core.clock import SystemClock
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor, ThreadExecutor
from streamlake.registry.schema_registry import SchemaRegistry

__all__ = ["registry", "store"]


@pytest.fixture
async def store() -> AsyncIterator[SchemaStore]:
    clock = SystemClock()
    database = await Database.open("sqlite://", InlineExecutor(), clock)
    identity = (await next_process(database, clock, Ids(7))).identity
    yield SchemaStore(database, identity)
    await database.close()


@pytest.fixture
async def registry(store: SchemaStore) -> AsyncIterator[SchemaRegistry]:
    executor = ThreadExecutor("registry")
    yield SchemaRegistry(store, executor)
    executor.close()
