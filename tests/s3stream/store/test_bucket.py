"""S3Store: the contract on a real server, and every way in which an answer can lie on a fake one."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from contracts.objectstore_contract import ObjectStoreContract, keys
from support.fake_s3 import FakeS3, give_up_s
from support.memory_store import MemoryStore
from support.seaweedfs import SeaweedFS
from support.wait import DEADLINE_S

from streamlake.core.errors import Corrupt, Exists, Invalid, NotFound, OutcomeUnknown, Unavailable
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor
from streamlake.s3stream.store import bucket as bucket_module
from streamlake.s3stream.store import client as client_module
from streamlake.s3stream.store.bucket import RequestPolicy, S3Store, open_s3
from streamlake.s3stream.store.client import RequestFailed, S3Options, StoreClient
from streamlake.s3stream.store.port import ObjectMeta


class TestOnSeaweedFS(ObjectStoreContract):
    @pytest.fixture
    def store(self, seaweedfs: SeaweedFS) -> S3Store:
        return on_seaweedfs(seaweedfs, f"s3://{seaweedfs.folder()}")

    async def test_multipart(self, store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(client_module, "MULTIPART_BYTES_MIN", 11 << 20)
        monkeypatch.setattr(client_module, "MULTIPART_CHUNK_BYTES", 5 << 20)
        data = bytes(range(256)) * 48 * 1024
        await store.put("large", [data])
        assert await store.get("large") == data
        assert store.puts == 5, "start, three parts, completion"
        assert (store.bytes_in, store.bytes_out) == (len(data), len(data))

    async def test_wrong_keys_are_said(self, seaweedfs: SeaweedFS) -> None:
        store = on_seaweedfs(seaweedfs, "s3://test-1", access_key="who", secret_key="what")
        with pytest.raises(Unavailable, match="refuses our keys"):
            await store.get("a")
        with pytest.raises(OutcomeUnknown, match="refuses our keys"):
            await store.create("a", [b"x"])
        assert store.retries == 0, "it would not help"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("AWS_SESSION_TOKEN", "of other keys"),
            ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9"),
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
            ("AWS_ACCESS_KEY_ID", "another"),
        ],
    )
    async def test_what_is_configured_wins_over_the_environment(
        self, seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch, name: str, value: str
    ) -> None:
        url = f"s3://{seaweedfs.folder()}"
        monkeypatch.setenv(name, value)
        store = on_seaweedfs(seaweedfs, url)
        await store.put("a", [b"x"])
        assert await store.get("a") == b"x"

    @pytest.mark.parametrize("endpoint", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
    async def test_what_is_not_configured_comes_from_the_environment(
        self, seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch, endpoint: str
    ) -> None:
        url = f"s3://{seaweedfs.folder()}"
        monkeypatch.setenv(endpoint, seaweedfs.s3_endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret_key)
        store = on_seaweedfs(seaweedfs, url, endpoint="", access_key="", secret_key="")
        await store.put("a", [b"x"])
        assert await store.get("a") == b"x"

    async def test_a_missing_bucket_is_not_a_missing_object(self, seaweedfs: SeaweedFS) -> None:
        missing = on_seaweedfs(seaweedfs, "s3://no-such-bucket")
        for call in (missing.get("a"), missing.get_range("a", 0, 1), keys(missing)):
            with pytest.raises(Unavailable, match="bucket does not exist"):
                await call


def on_seaweedfs(seaweedfs: SeaweedFS, url: str, **changes: Any) -> S3Store:
    options: dict[str, Any] = {
        "endpoint": seaweedfs.s3_endpoint, "region": seaweedfs.region, "allow_http": True,
        "access_key": seaweedfs.access_key, "secret_key": seaweedfs.secret_key,
    }  # fmt: skip
    return open_s3(url, Ids(), InlineExecutor(), S3Options(**options | changes), RequestPolicy(pause_first_s=0.01))


class TestMemoryStore(ObjectStoreContract):
    """The store that tests inject faults with keeps the contract too."""

    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


@pytest.fixture
async def server() -> AsyncIterator[FakeS3]:
    async with FakeS3() as server:
        yield server


def connected(server: FakeS3, *, endpoint: str = "", request_timeout_s: float = DEADLINE_S, **changes: Any) -> S3Store:
    options = S3Options(
        endpoint=endpoint or server.endpoint, region="x", access_key="x", secret_key="y", allow_http=True,
        request_timeout_s=request_timeout_s,
    )  # fmt: skip
    policy: dict[str, Any] = {"attempts": 3, "pause_first_s": 0.001, "pause_max_s": 0.002}
    return open_s3("s3://bucket", Ids(1), InlineExecutor(), options, RequestPolicy(**policy | changes))


@pytest.fixture
def store(server: FakeS3, request: pytest.FixtureRequest) -> S3Store:
    return connected(server, request_timeout_s=give_up_s(request.node.name))


# -- create: every answer but success is unknown (hazards C2, C7) ------------------------------------------------------


@pytest.mark.parametrize("answer", ["apply_500", "apply_503", "apply_reset", "apply_hang", "apply_409"])
async def test_a_create_that_landed_behind_an_error_is_ours(server: FakeS3, store: S3Store, answer: str) -> None:
    server.misbehave("PUT", answer)
    await store.create("wal/1", [b"mine"])
    assert server.objects == {"wal/1": b"mine"}
    assert server.requests == ["PUT", "GET"]
    assert store.retries == 0


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

    async def land_after_reading(*args: Any) -> bytes | None:
        found = await original(*args)
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


async def test_a_torn_upload_is_not_taken_for_another_ones_object(server: FakeS3, store: S3Store) -> None:
    server.misbehave("PUT", "torn")
    with pytest.raises(OutcomeUnknown, match="first 2 of 4 bytes"):
        await store.create("wal/1", [b"mine"])
    assert server.objects == {"wal/1": b"mi"}


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

    monkeypatch.setattr(bucket_module.asyncio, "sleep", sleep)
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


async def test_requests_in_flight_are_bounded(server: FakeS3) -> None:
    store = connected(server, in_flight_max=2, attempts=1)
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


async def test_an_answer_shorter_than_the_range_is_corrupt(server: FakeS3, store: S3Store) -> None:
    server.objects["a"] = b"short"
    with pytest.raises(Corrupt, match="before byte 10"):
        await store.get_range("a", 0, 10)
    with pytest.raises(Corrupt):
        await store.get_range("a", 50, 10)
    assert store.retries == 0


# -- listing -----------------------------------------------------------------------------------------------------------


class Shelf:
    """A StoreClient that only lists: `found` in its own order, page by page."""

    url = "s3://shelf"

    def __init__(self, found: list[str]) -> None:
        self.found = found
        self.asked: list[tuple[str, str]] = []
        self.failing: list[RequestFailed] = []

    async def list(self, folder: str, after: str) -> list[ObjectMeta]:
        self.asked.append((folder, after))
        if self.failing:
            raise self.failing.pop()
        found = [key for key in self.found if key.startswith(folder)]
        start = found.index(after) + 1 if after else 0
        return [ObjectMeta(key, 1) for key in found[start : start + bucket_module.LIST_PAGE_KEYS]]


def shelf_store(shelf: Shelf) -> S3Store:
    return S3Store(cast(StoreClient, shelf), Ids(1), InlineExecutor(), RequestPolicy(attempts=3, pause_first_s=0))


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_module, "LIST_PAGE_KEYS", 3)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 6, 7])
async def test_a_listing_goes_page_by_page(small_pages: None, count: int) -> None:
    shelf = Shelf([f"a/{n}" for n in range(count)])
    store = shelf_store(shelf)
    assert await keys(store, "a/") == shelf.found
    assert store.lists == count // 3 + 1
    assert {folder for folder, _ in shelf.asked} == {"a/"}


async def test_a_page_that_fails_is_asked_for_again_and_no_other(small_pages: None) -> None:
    shelf = Shelf([f"a/{n}" for n in range(8)])
    store = shelf_store(shelf)
    found = []
    async for meta in store.list("a/"):
        found.append(meta.key)
        if meta.key == "a/1":
            shelf.failing = [RequestFailed("slow down", 503), RequestFailed("reset", None)]
    assert found == shelf.found
    assert shelf.asked == [("a/", ""), *[("a/", "a/2")] * 3, ("a/", "a/5")]


async def test_a_listing_stops_behind_its_prefix(small_pages: None) -> None:
    shelf = Shelf([f"a/{n:02}" for n in range(40)])
    assert await keys(shelf_store(shelf), "a/1") == shelf.found[10:20]
    assert shelf.asked[-1] == ("a/", "a/17"), "the page that ends at a/20 says that no more can come"


async def test_stores_that_list_folder_by_folder_lose_nothing(small_pages: None) -> None:
    shelf = Shelf(["a/1", "a/2", "a/3", "a/4", "a-b/1", "a-b/2", "a.c", "ab", "b"])
    assert await keys(shelf_store(shelf), "a") == shelf.found[:-1]


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


async def test_what_goes_through_is_counted(server: FakeS3, store: S3Store) -> None:
    await store.put("a", [b"abc"])
    await store.create("b", [b"xy"])
    await store.get("a")
    with pytest.raises(NotFound):
        await store.get("none")
    assert (store.puts, store.gets, store.bytes_in, store.bytes_out, store.retries) == (2, 2, 5, 3, 0)
