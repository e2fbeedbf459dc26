"""S3Store: the contract on a real server, and every way in which an answer can lie on a fake one."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import obstore
import pytest
from contracts.objectstore_contract import ObjectStoreContract, keys
from support.fake_s3 import FakeS3
from support.memory_store import MemoryStore
from support.seaweedfs import SeaweedFS

from streamlake.core.errors import Corrupt, Exists, Full, Invalid, NotFound, OutcomeUnknown, Unavailable
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor
from streamlake.s3stream import s3_store
from streamlake.s3stream.s3_store import S3Options, S3Store


class TestOnSeaweedFS(ObjectStoreContract):
    @pytest.fixture
    def store(self, seaweedfs: SeaweedFS) -> S3Store:
        options = S3Options(
            endpoint=seaweedfs.s3_endpoint, region=seaweedfs.region, allow_http=True,
            access_key=seaweedfs.access_key, secret_key=seaweedfs.secret_key, pause_first_s=0.01,
        )  # fmt: skip
        return S3Store(f"s3://{seaweedfs.bucket()}/data", Ids(), InlineExecutor(), options)

    async def test_it_honours_conditional_writes(self, store: S3Store) -> None:
        await store.probe_conditional_writes()
        assert await keys(store) == [], "the probe leaves nothing"

    async def test_multipart(self, store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(s3_store, "MULTIPART_BYTES_MIN", 11 << 20)
        monkeypatch.setattr(s3_store, "MULTIPART_CHUNK_BYTES", 5 << 20)
        data = bytes(range(256)) * 48 * 1024
        await store.put("large", [data])
        assert await store.get("large") == data
        assert store.puts == 5, "start, three parts, completion"
        assert (store.bytes_in, store.bytes_out) == (len(data), len(data))

    async def test_wrong_keys_are_said(self, seaweedfs: SeaweedFS) -> None:
        options = S3Options(
            endpoint=seaweedfs.s3_endpoint,
            region=seaweedfs.region,
            allow_http=True,
            access_key="who",
            secret_key="what",
        )
        store = S3Store("s3://test-1", Ids(), InlineExecutor(), options)
        with pytest.raises(Unavailable, match="refuses our keys"):
            await store.get("a")
        with pytest.raises(Unavailable, match="cannot write to s3://test-1"):
            await store.probe_conditional_writes()
        assert store.retries == 0, "it would not help"

    async def test_a_missing_bucket_is_not_a_missing_object(self, seaweedfs: SeaweedFS, store: S3Store) -> None:
        missing = S3Store("s3://no-such-bucket", Ids(), InlineExecutor(), store._options)
        for call in (missing.get("a"), missing.get_range("a", 0, 1), keys(missing)):
            with pytest.raises(Unavailable, match="bucket does not exist"):
                await call


class TestMemoryStore(ObjectStoreContract):
    """The store that tests inject faults with keeps the contract too."""

    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


@pytest.fixture
async def server() -> AsyncIterator[FakeS3]:
    async with FakeS3() as server:
        yield server


def connected(server: FakeS3, **changes: Any) -> S3Store:
    options: dict[str, Any] = {
        "endpoint": server.endpoint, "region": "x", "access_key": "x", "secret_key": "y", "allow_http": True,
        "attempts": 3, "pause_first_s": 0.001, "pause_max_s": 0.002, "request_timeout_s": 0.3,
    }  # fmt: skip
    return S3Store("s3://bucket", Ids(1), InlineExecutor(), S3Options(**options | changes))


@pytest.fixture
def store(server: FakeS3) -> S3Store:
    return connected(server)


# -- create: every answer but success is unknown (hazards C2, C7) ------------------------------------------------------


@pytest.mark.parametrize("answer", ["apply_500", "apply_503", "apply_reset", "apply_hang", "apply_409"])
async def test_a_create_that_landed_behind_an_error_is_ours(server: FakeS3, store: S3Store, answer: str) -> None:
    server.misbehave("PUT", answer)
    await store.create("wal/1", [b"mine"])
    assert server.objects == {"wal/1": b"mine"}
    assert server.requests == ["PUT", "GET"]


@pytest.mark.parametrize("answer", ["500", "503", "reset", "409"])
async def test_a_create_that_did_not_land_is_sent_again(server: FakeS3, store: S3Store, answer: str) -> None:
    server.misbehave("PUT", answer)
    await store.create("wal/1", [b"mine"])
    assert server.objects == {"wal/1": b"mine"}
    assert server.requests == ["PUT", "GET", "PUT"]


async def test_a_create_that_lands_late_is_ours(server: FakeS3, store: S3Store) -> None:
    """503, then absent, then the first put arrives, and the second is refused because of it."""
    server.misbehave("PUT", "late_503")
    original = store._read_back

    async def land_after_reading(key: str) -> bytes | None:
        found = await original(key)
        server.land()
        return found

    store._read_back = land_after_reading  # type: ignore[method-assign]
    await store.create("wal/1", [b"mine"])
    assert server.requests == ["PUT", "GET", "PUT", "GET"]
    assert server.objects == {"wal/1": b"mine"}


@pytest.mark.parametrize("answer", ["", "500", "503", "reset", "409"])
async def test_another_ones_object_is_told_from_ours(server: FakeS3, store: S3Store, answer: str) -> None:
    server.objects["wal/1"] = b"fence of epoch 2"
    if answer:
        server.misbehave("PUT", answer)
    with pytest.raises(Exists):
        await store.create("wal/1", [b"mine"])
    assert server.objects == {"wal/1": b"fence of epoch 2"}


async def test_a_create_that_cannot_be_read_back_is_unknown(server: FakeS3, store: S3Store) -> None:
    server.misbehave("PUT", "apply_500")
    server.misbehave("GET", "503", times=3)
    with pytest.raises(OutcomeUnknown, match="cannot be read back"):
        await store.create("wal/1", [b"mine"])


async def test_a_create_that_never_lands_is_unknown_in_the_end(server: FakeS3, store: S3Store) -> None:
    server.misbehave("PUT", "503", times=3)
    with pytest.raises(OutcomeUnknown):
        await store.create("wal/1", [b"mine"])
    assert server.requests.count("PUT") == 3


async def test_obstore_itself_never_retries(server: FakeS3, store: S3Store) -> None:
    """If it did, our own landed write would come back to us as AlreadyExists (C2), for other bytes unnoticed."""
    server.misbehave("PUT", "apply_500")
    await store.create("wal/1", [b"mine"])
    assert server.requests.count("PUT") == 1


async def test_a_cancelled_put_may_land(server: FakeS3, store: S3Store) -> None:
    server.misbehave("PUT", "apply_hang")
    put = asyncio.create_task(store.put("a", [b"late"]))
    while not server.objects:
        await asyncio.sleep(0)
    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put
    assert server.objects == {"a": b"late"}


# -- what can be repeated ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["500", "503", "reset", "apply_500", "apply_reset", "apply_hang"])
async def test_put_survives(server: FakeS3, store: S3Store, answer: str) -> None:
    server.misbehave("PUT", answer, times=2)
    await store.put("a", [b"x", b"y"])
    assert server.objects == {"a": b"xy"}
    assert (store.puts, store.retries) == (3, 2)


@pytest.mark.parametrize("answer", ["500", "503", "reset", "cut", "apply_hang"])
async def test_get_survives(server: FakeS3, store: S3Store, answer: str) -> None:
    server.objects["a"] = b"0123456789"
    server.misbehave("GET", answer, times=2)
    assert await store.get("a") == b"0123456789"
    server.misbehave("GET", answer, times=2)
    assert await store.get_range("a", 2, 6) == b"234567"
    assert store.bytes_out == 16


async def test_put_is_unknown_in_the_end_and_get_unavailable(server: FakeS3, store: S3Store) -> None:
    server.misbehave("PUT", "503", times=3)
    with pytest.raises(OutcomeUnknown, match="503"):
        await store.put("a", [b"x"])
    server.misbehave("GET", "503", times=3)
    with pytest.raises(Unavailable, match="503"):
        await store.get("a")


async def test_pauses_grow_and_are_jittered(server: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    store = connected(server, attempts=8, pause_first_s=1, pause_max_s=5)
    slept: list[float] = []

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)

    monkeypatch.setattr(s3_store.asyncio, "sleep", sleep)
    server.misbehave("GET", "503", times=7)
    server.objects["a"] = b"x"
    await store.get("a")
    assert len(slept) == 7
    assert all(delay_s <= bound_s for delay_s, bound_s in zip(slept, (1, 2, 4, 5, 5, 5, 5), strict=True))
    assert len(set(slept)) == 7


async def test_no_server_is_unavailable(server: FakeS3) -> None:
    store = connected(server, endpoint="http://127.0.0.1:9")
    with pytest.raises(Unavailable):
        await store.get("a")
    with pytest.raises(Unavailable):
        await keys(store)
    with pytest.raises(OutcomeUnknown):
        await store.put("a", [b"x"])
    with pytest.raises(OutcomeUnknown):
        await store.delete(["a"])
    with pytest.raises(Unavailable, match="Check endpoint"):
        await store.probe_conditional_writes()


async def test_requests_in_flight_are_bounded(server: FakeS3) -> None:
    store = connected(server, requests_in_flight_max=2, request_timeout_s=60, attempts=1)
    server.misbehave("PUT", "apply_hang", times=2)
    stuck = [asyncio.create_task(store.put(f"stuck/{n}", [b"x"])) for n in range(2)]
    while len(server.objects) < 2:
        await asyncio.sleep(0)
    third = asyncio.create_task(store.put("third", [b"x"]))
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(server.requests) == 2
    for task in stuck:
        task.cancel()
    await third
    assert "third" in server.objects


# -- the rest ----------------------------------------------------------------------------------------------------------


async def test_a_store_that_ignores_conditions_is_refused() -> None:
    async with FakeS3(honours_conditions=False) as server:
        with pytest.raises(Invalid, match="cannot hold a WAL"):
            await connected(server).probe_conditional_writes()


async def test_an_answer_shorter_than_the_range_is_corrupt(server: FakeS3, store: S3Store) -> None:
    server.objects["a"] = b"short"
    with pytest.raises(Corrupt, match="before byte 10"):
        await store.get_range("a", 0, 10)
    with pytest.raises(Corrupt):
        await store.get_range("a", 50, 10)
    assert store.retries == 0


async def test_stores_that_mind_missing_keys(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """GCS and Azure answer 404 to a delete of what is not there, and stop at it."""
    there = {"a", "c"}

    async def delete(_: object, paths: str | list[str]) -> None:
        for path in [paths] if isinstance(paths, str) else paths:
            if path not in there:
                raise FileNotFoundError(path)
            there.discard(path)

    monkeypatch.setattr(obstore, "delete_async", delete)
    await store.delete(["a", "b", "c"])
    assert there == set()


async def test_a_listing_is_bounded(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def pages(*args: object, **kwargs: object) -> AsyncIterator[list[dict[str, object]]]:
        for page in range(3):
            yield [{"path": f"a/{page}/{n}", "size": 1} for n in range(10)]

    monkeypatch.setattr(obstore, "list", pages)
    monkeypatch.setattr(s3_store, "LIST_KEYS_MAX", 25)
    with pytest.raises(Full, match="narrower"):
        await keys(store, "a/")


@pytest.mark.parametrize("key", ["../x", "/x", "a//b", "", ".tmp/x"])
async def test_keys_are_checked_everywhere(server: FakeS3, store: S3Store, key: str) -> None:
    for call in (
        store.put(key, []),
        store.create(key, []),
        store.get(key),
        store.get_range(key, 0, 1),
        store.delete([key]),
    ):
        with pytest.raises(Invalid):
            await call
    assert server.requests == []


@pytest.mark.parametrize(
    "url", ["file:///tmp", "http://host/bucket", "bucket", "memory:///", "az://container", "s3://"]
)
def test_urls_that_are_no_object_store_are_invalid(url: str) -> None:
    with pytest.raises(Invalid):
        S3Store(url, Ids(), InlineExecutor())


def test_other_clouds_by_url() -> None:
    S3Store("gs://bucket/prefix", Ids(), InlineExecutor())
    S3Store("abfss://container@account.dfs.core.windows.net/prefix", Ids(), InlineExecutor())


async def test_what_goes_through_is_counted(server: FakeS3, store: S3Store) -> None:
    await store.put("a", [b"abc"])
    await store.create("b", [b"xy"])
    await store.get("a")
    with pytest.raises(NotFound):
        await store.get("none")
    assert (store.puts, store.gets, store.bytes_in, store.bytes_out, store.retries) == (2, 2, 5, 3, 0)
