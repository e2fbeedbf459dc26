"""The probe: an honest store passes and keeps nothing, one that ignores the condition is found out."""

from collections.abc import Sequence

import pytest
from simulation.world.disk import SimDisk
from support.fake_s3 import FakeS3
from support.memory_store import MemoryStore
from support.seaweedfs import SeaweedFS

from streamlake.core.errors import Invalid, Unavailable
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor
from streamlake.s3stream.store.bucket import RequestPolicy, open_s3
from streamlake.s3stream.store.client import S3Options
from streamlake.s3stream.store.local import LocalStore
from streamlake.s3stream.store.port import Buffer, ObjectStore
from streamlake.s3stream.store.probe import PROBES_MAX, WRITERS, probe_conditional_writes


async def probe(store: ObjectStore) -> None:
    await probe_conditional_writes(store, Ids(1), "s3://bucket/lake")


class Overwrites(MemoryStore):
    """Ignores the condition."""

    async def create(self, key: str, parts: Sequence[Buffer]) -> None:
        await self.put(key, parts)


class ChecksFirst(MemoryStore):
    """Looks, and then writes: right for one writer, wrong for two at once."""

    async def create(self, key: str, parts: Sequence[Buffer]) -> None:
        if self.calls.count(("create", key)) < WRITERS:
            self.calls.append(("create", key))
            await self.put(key, parts)
        else:
            await super().create(key, parts)


class TellsTheWrongWinner(MemoryStore):
    """Refuses the later ones, but has taken their bytes."""

    async def create(self, key: str, parts: Sequence[Buffer]) -> None:
        try:
            await super().create(key, parts)
        finally:
            await self.put(key, parts)


async def test_honest_stores_pass_and_keep_nothing(seaweedfs: SeaweedFS) -> None:
    options = S3Options(
        endpoint=seaweedfs.s3_endpoint, region=seaweedfs.region, allow_http=True,
        access_key=seaweedfs.access_key, secret_key=seaweedfs.secret_key,
    )  # fmt: skip
    for store in (
        MemoryStore(),
        await LocalStore.open("/objects", SimDisk(), InlineExecutor(), Ids(1)),
        open_s3(f"s3://{seaweedfs.folder()}", Ids(1), InlineExecutor(), options),
    ):
        await probe(store)
        assert [meta async for meta in store.list("")] == []


@pytest.mark.parametrize("store", [Overwrites(), ChecksFirst(), TellsTheWrongWinner()], ids=lambda s: type(s).__name__)
async def test_a_store_that_breaks_the_promise_cannot_hold_a_wal(store: MemoryStore) -> None:
    with pytest.raises(Invalid, match=r"s3://bucket/lake overwrites.*cannot hold a WAL"):
        await probe(store)


async def test_a_server_that_ignores_the_condition_is_found_out_behind_the_client() -> None:
    async with FakeS3(honours_conditions=False) as server:
        options = S3Options(endpoint=server.endpoint, region="x", access_key="x", secret_key="y", allow_http=True)
        with pytest.raises(Invalid):
            await probe(open_s3("s3://bucket", Ids(1), InlineExecutor(), options, RequestPolicy(attempts=1)))


@pytest.mark.parametrize("operation", ["create", "get", "delete"])
async def test_an_unclear_answer_is_no_verdict(operation: str) -> None:
    store = MemoryStore()
    calls_per_probe = WRITERS if operation == "create" else 1
    store.fail(operation, "applied_then_unknown", times=calls_per_probe * (PROBES_MAX - 1))
    await probe(store)
    assert len({key for call, key in store.calls if call == "create"}) == PROBES_MAX, "a new key each time"


async def test_a_store_that_cannot_be_used_is_named_with_the_reason() -> None:
    store = MemoryStore()
    store.fail("create", "unavailable", times=1000)
    with pytest.raises(Unavailable, match=r"cannot write to s3://bucket/lake: create probe/.*planned.*Check endpoint"):
        await probe(store)
