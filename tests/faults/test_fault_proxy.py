"""S3Store against a real server whose answers go wrong on the way: what it says happened is what happened."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from contracts.objectstore_contract import ObjectStoreContract, keys
from pyiceberg.io.pyarrow import PyArrowFileIO
from support.fault_proxy import APPLIED_FAULTS, FAULTS, FaultProxy
from support.seaweedfs import SeaweedFS

from streamlake.core.errors import Exists, NotFound, OutcomeUnknown, Unavailable
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor
from streamlake.s3stream.store import client as client_module
from streamlake.s3stream.store.bucket import RequestPolicy, S3Store, open_s3
from streamlake.s3stream.store.client import S3Options
from streamlake.s3stream.store.probe import probe_conditional_writes

LOST_ANSWERS = sorted(APPLIED_FAULTS - {"applied_hang"})
REQUEST_FAULTS = ["reset_before", "reset_within", "without_body", "500", "503", "409"]
MILD = {
    "slow": 0.05, "reset_before": 0.02, "reset_within": 0.02, "reset_after": 0.03, "500": 0.01, "503": 0.02, "409": 0.01,
    "applied_500": 0.02, "applied_503": 0.01, "applied_409": 0.01, "cut": 0.02,
}  # fmt: skip


@pytest.fixture
def proxy(seaweedfs: SeaweedFS, folder: str) -> Iterator[FaultProxy]:
    with FaultProxy(seaweedfs.s3_endpoint, folder) as proxy:
        yield proxy


@pytest.fixture
def folder(seaweedfs: SeaweedFS) -> str:
    return seaweedfs.folder()


def opened(seaweedfs: SeaweedFS, endpoint: str, folder: str, *, timeout_s: float = 60, **changes: Any) -> S3Store:
    options = S3Options(
        endpoint=endpoint, region=seaweedfs.region, access_key=seaweedfs.access_key, secret_key=seaweedfs.secret_key,
        allow_http=True, request_timeout_s=timeout_s,
    )  # fmt: skip
    policy: dict[str, Any] = {"pause_first_s": 0.005, "pause_max_s": 0.05}
    return open_s3(f"s3://{folder}", Ids(1), InlineExecutor(), options, RequestPolicy(**policy | changes))


@pytest.fixture
def store(seaweedfs: SeaweedFS, proxy: FaultProxy, folder: str) -> S3Store:
    return opened(seaweedfs, proxy.endpoint, folder)


@pytest.fixture
def truth(seaweedfs: SeaweedFS, folder: str) -> S3Store:
    """The same bucket without the proxy."""
    return opened(seaweedfs, seaweedfs.s3_endpoint, folder)


# -- the contract ------------------------------------------------------------------------------------------------------


class TestThroughACleanProxy(ObjectStoreContract):
    """The proxy itself changes nothing."""


class TestThroughMildFaults(ObjectStoreContract):
    """Retries and read-backs hide all of it."""

    @pytest.fixture(autouse=True, params=range(2))
    def faults(self, proxy: FaultProxy, request: pytest.FixtureRequest) -> None:
        proxy.random(request.param, MILD)

    async def test_the_probe_passes_too(self, store: S3Store, proxy: FaultProxy, truth: S3Store) -> None:
        await probe_conditional_writes(store, Ids(1), "s3://bucket")


# -- one fault at a time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [*REQUEST_FAULTS, *LOST_ANSWERS, "slow"])
@pytest.mark.parametrize("operation", ["put", "create"])
async def test_writes_survive(proxy: FaultProxy, store: S3Store, truth: S3Store, operation: str, fault: str) -> None:
    proxy.plan(operation, "a", fault, times=2)
    await getattr(store, operation)("a", [b"mine"])
    assert await truth.get("a") == b"mine"
    # After a landed create the condition fails: no second fault is met.
    assert proxy.faults[operation, fault] in (1, 2)


@pytest.mark.parametrize("fault", [*REQUEST_FAULTS, *LOST_ANSWERS, "cut", "slow"])
async def test_reads_survive(proxy: FaultProxy, store: S3Store, truth: S3Store, fault: str) -> None:
    body = bytes(range(256)) * 64
    await truth.put("a", [body])
    proxy.plan("get", "a", fault, times=2)
    assert await store.get("a") == body
    proxy.plan("get_range", "a", fault, times=2)
    assert await store.get_range("a", 1000, 5000) == body[1000:6000]
    proxy.plan("list", "", fault, times=2)
    assert await keys(store) == ["a"]
    assert proxy.faults.total() == (3 if fault == "slow" else 6)


@pytest.mark.parametrize("fault", [*REQUEST_FAULTS, *LOST_ANSWERS])
async def test_deletes_survive(proxy: FaultProxy, store: S3Store, truth: S3Store, fault: str) -> None:
    for key in ("a", "b", "c"):
        await truth.put(key, [b"x"])
    proxy.plan("delete", "", fault, times=2)
    await store.delete(["a", "c", "none"])
    assert await keys(truth) == ["b"]
    assert proxy.faults["delete", fault] == 2


@pytest.mark.parametrize("fault", ["hang", "applied_hang"])
async def test_a_silent_server_is_given_up(proxy: FaultProxy, seaweedfs: SeaweedFS, folder: str, fault: str) -> None:
    store = opened(seaweedfs, proxy.endpoint, folder, timeout_s=0.3)
    proxy.plan("", "", fault, times=1)
    await store.create("a", [b"x"])
    for operation, call in (
        ("put", lambda: store.put("b", [b"x"])),
        ("get", lambda: store.get("b")),
        ("get_range", lambda: store.get_range("b", 0, 1)),
        ("list", lambda: keys(store)),
        ("delete", lambda: store.delete(["b"])),
    ):
        proxy.plan(operation, "", fault)
        await call()
        assert proxy.faults[operation, fault] == 1
    assert await keys(store) == ["a"]


async def test_a_create_that_lands_behind_our_back_is_found(proxy: FaultProxy, store: S3Store, truth: S3Store) -> None:
    """503, absent, 503 again, absent: in the end nobody knows; and then it lands."""
    proxy.plan("create", "a", "late_503", times=6)
    with pytest.raises(OutcomeUnknown):
        await store.create("a", [b"mine"])
    with pytest.raises(NotFound):
        await truth.get("a")
    proxy.land()
    assert await truth.get("a") == b"mine"
    await store.create("a", [b"mine"])
    with pytest.raises(Exists):
        await store.create("a", [b"other"])


@pytest.mark.parametrize("fault", ["", *REQUEST_FAULTS, *LOST_ANSWERS])
async def test_anothers_object_is_never_taken_for_ours(
    proxy: FaultProxy, store: S3Store, truth: S3Store, fault: str
) -> None:
    await truth.create("a", [b"fence of epoch 2"])
    if fault:
        proxy.plan("create", "a", fault)
    with pytest.raises(Exists):
        await store.create("a", [b"mine"])
    assert await truth.get("a") == b"fence of epoch 2"


async def test_when_it_will_not_end_the_outcome_is_said(proxy: FaultProxy, store: S3Store, truth: S3Store) -> None:
    await truth.put("there", [b"x"])
    proxy.random(1, {"503": 1.0})
    for call in (store.put("a", [b"x"]), store.create("a", [b"x"]), store.delete(["there"])):
        with pytest.raises(OutcomeUnknown, match="503"):
            await call
    for call in (store.get("there"), store.get_range("there", 0, 1), keys(store)):
        with pytest.raises(Unavailable, match="503"):
            await call
    with pytest.raises(Unavailable, match=r"cannot write to s3://b:.*503"):
        await probe_conditional_writes(store, Ids(1), "s3://b")
    assert await keys(truth) == ["there"]


async def test_an_upload_cut_off_behind_its_head_leaves_nothing(
    proxy: FaultProxy, seaweedfs: SeaweedFS, folder: str, truth: S3Store
) -> None:
    """Without the checksum that we send, SeaweedFS keeps an empty object then."""
    store = opened(seaweedfs, proxy.endpoint, folder, attempts=1)
    for operation in ("put", "create"):
        for n in range(5):
            proxy.plan(operation, f"{operation}{n}", "without_body")
            with pytest.raises(OutcomeUnknown):
                await getattr(store, operation)(f"{operation}{n}", [b"mine"])
    await truth.put("last", [b"x"])  # the server is done with those before
    assert await keys(truth) == ["last"]


# -- many at once ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def landing(proxy: FaultProxy) -> AsyncIterator[None]:
    """Late requests reach the server a little later, again and again."""

    async def land() -> None:
        while True:
            await asyncio.sleep(0.02)
            await asyncio.to_thread(proxy.land)

    task = asyncio.create_task(land())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        proxy.land()


HARSH = {
    "reset_before": 0.06, "reset_within": 0.06, "reset_after": 0.1, "503": 0.06, "409": 0.03, "applied_500": 0.06,
    "applied_409": 0.04, "late_503": 0.1, "cut": 0.06,
}  # fmt: skip
ATTEMPTS = 4
KEYS = 40


@pytest.mark.parametrize("seed", range(4))
async def test_of_two_writers_one_wins_each_key_and_nobody_is_told_wrong(
    proxy: FaultProxy, seaweedfs: SeaweedFS, folder: str, truth: S3Store, seed: int
) -> None:
    """The ledger of the object WAL and its fences (hazards C2, C3, C7)."""
    proxy.random(seed, HARSH)
    bodies = [b"writer 0", b"writer 1"]
    writers = [opened(seaweedfs, proxy.endpoint, folder, attempts=ATTEMPTS, in_flight_max=8) for _ in bodies]
    names = [f"wal/{n:03}" for n in range(KEYS)]

    async def create(writer: int, key: str) -> str:
        try:
            await writers[writer].create(key, [bodies[writer]])
        except (Exists, OutcomeUnknown) as error:
            return type(error).__name__
        return "won"

    async with landing(proxy):
        told = await asyncio.gather(*(create(writer, key) for key in names for writer in range(2)))
    for n, key in enumerate(names):
        outcomes = told[2 * n : 2 * n + 2]
        try:
            winner = bodies.index(await truth.get(key))
        except NotFound:
            assert outcomes == ["OutcomeUnknown", "OutcomeUnknown"]
            continue
        assert outcomes[winner] in ("won", "OutcomeUnknown"), "its bytes are there: it was not refused"
        assert outcomes[1 - winner] in ("Exists", "OutcomeUnknown"), "its bytes are not there: it did not win"
        if "OutcomeUnknown" in outcomes:
            assert proxy.faults_of_key[key] >= ATTEMPTS, "unknown only when every attempt went wrong"
    assert told.count("won") > KEYS / 2 and told.count("Exists") > KEYS / 2
    assert sum(proxy.faults.values()) > KEYS
    assert {fault for _, fault in proxy.faults} == set(HARSH)


async def test_a_storm_of_slow_down(proxy: FaultProxy, store: S3Store, truth: S3Store) -> None:
    proxy.plan("", "", "503", times=100)
    await asyncio.gather(*(store.put(f"storm/{n:02}", [b"%d" % n]) for n in range(50)))
    assert len(await keys(truth, "storm/")) == 50
    assert store.retries == 100


async def test_an_outage_of_some_seconds(proxy: FaultProxy, seaweedfs: SeaweedFS, folder: str, truth: S3Store) -> None:
    store = opened(seaweedfs, proxy.endpoint, folder, attempts=40, pause_first_s=0.05, pause_max_s=0.3)
    await store.put("before", [b"x"])
    proxy.down()
    calls = [store.put("put", [b"x"]), store.create("create", [b"x"]), store.get("before"), store.delete(["before"])]
    tasks = [asyncio.create_task(call) for call in calls]
    while store.retries < 40:
        await asyncio.sleep(0.05)
    assert not any(task.done() for task in tasks[:3]), [task for task in tasks if task.done()]
    proxy.up()
    put, create, _, _ = await asyncio.gather(*tasks, return_exceptions=True)
    assert (put, create) == (None, None)
    assert sorted(await keys(truth)) == ["create", "put"]


async def test_an_outage_longer_than_the_patience(proxy: FaultProxy, store: S3Store, truth: S3Store) -> None:
    await store.put("a", [b"x"])
    proxy.down()
    with pytest.raises(Unavailable):
        await store.get("a")
    with pytest.raises(OutcomeUnknown, match="cannot be read back"):
        await store.create("b", [b"x"])
    proxy.up()
    assert await store.get("a") == b"x"
    await store.create("b", [b"x"])


async def test_a_slow_store_is_slow_and_nothing_else(proxy: FaultProxy, store: S3Store) -> None:
    proxy.delay_s = 0.1
    await asyncio.gather(*(store.put(f"slow/{n:02}", [b"x"]) for n in range(64)))
    assert len(await keys(store, "slow/")) == 64
    assert store.retries == 0


# -- large -------------------------------------------------------------------------------------------------------------


async def test_a_multipart_put_survives(proxy: FaultProxy, store: S3Store, truth: S3Store) -> None:
    body = bytes(range(256)) * (256 << 10) + b"tail"
    assert len(body) > 64 << 20
    proxy.plan("multipart_start", "large", "reset_after")
    proxy.plan("multipart_part", "large", "applied_500")
    proxy.plan("multipart_complete", "large", "reset_after")
    await store.put("large", [body])
    assert proxy.faults.total() == store.retries == 3
    assert await truth.get("large") == body


@pytest.mark.parametrize("fault", ["reset_within", "503", "late_503", "applied_409"])
@pytest.mark.parametrize("operation", ["multipart_start", "multipart_part", "multipart_complete"])
async def test_a_multipart_put_is_repeated_whole(
    proxy: FaultProxy, store: S3Store, truth: S3Store, monkeypatch: pytest.MonkeyPatch, operation: str, fault: str
) -> None:
    monkeypatch.setattr(client_module, "MULTIPART_BYTES_MIN", 6 << 20)
    monkeypatch.setattr(client_module, "MULTIPART_CHUNK_BYTES", 5 << 20)
    body = bytes(range(256)) * (28 << 10)
    proxy.plan(operation, "large", fault)
    await store.put("large", [body])
    proxy.land()
    assert proxy.faults.total() == store.retries == 1
    assert await truth.get("large") == body


async def test_a_huge_listing_goes_page_by_page(proxy: FaultProxy, store: S3Store, truth: S3Store) -> None:
    names = [f"wal/{n // 1000}/{n:04}" for n in range(2500)]
    await asyncio.gather(*(truth.put(key, []) for key in names))
    await truth.put("wal-x/1", [])
    found = []
    async for meta in store.list("wal/"):
        found.append(meta.key)
        if len(found) == 1500:
            proxy.plan("list", "", "cut", times=2)
    assert found == names
    assert store.lists == 5, "three pages; one of them three times"
    assert sorted(await keys(store)) == sorted([*names, "wal-x/1"])
    assert await keys(store, "wal/1/1") == names[1000:2000]

    proxy.plan("delete", "", "503", times=2)
    proxy.plan("delete", "", "applied_503", times=2)
    await store.delete(names)
    assert store.deletes == 7, "three batches, four answers that went wrong"
    assert await keys(truth) == ["wal-x/1"]


# -- the proxy ---------------------------------------------------------------------------------------------------------


async def test_random_faults_depend_on_the_seed_and_not_on_the_order(
    proxy: FaultProxy, seaweedfs: SeaweedFS, folder: str
) -> None:
    async def faults_of(seed: int, numbers: list[int]) -> dict[tuple[str, str], int]:
        with FaultProxy(seaweedfs.s3_endpoint, folder) as fresh:
            fresh.random(seed, {"503": 0.3, "500": 0.2})
            store = opened(seaweedfs, fresh.endpoint, folder, attempts=20)
            await asyncio.gather(*(store.put(f"k/{n}", [b"x"]) for n in numbers))
            return dict(fresh.faults)

    once = await faults_of(7, list(range(30)))
    assert once == await faults_of(7, list(range(29, -1, -1)))
    assert once != await faults_of(8, list(range(30)))


@pytest.mark.parametrize("fault", sorted(FAULTS - {"slow", "late_503", "hang", "applied_hang"}))
async def test_each_fault_is_what_it_says(
    proxy: FaultProxy, seaweedfs: SeaweedFS, folder: str, truth: S3Store, fault: str
) -> None:
    store = opened(seaweedfs, proxy.endpoint, folder, attempts=1)
    proxy.plan("put", "a", fault)
    if fault == "cut":
        await store.put("a", [b"x"])  # its answer has no body
    else:
        with pytest.raises(OutcomeUnknown):
            await store.put("a", [b"x"])
    assert await keys(truth) == (["a"] if fault in APPLIED_FAULTS | {"cut"} else [])


def test_a_client_may_ask_before_it_sends_a_body(proxy: FaultProxy, seaweedfs: SeaweedFS, folder: str) -> None:
    """Expect: 100-continue, as Amazon's own library sends it, which PyArrow has in it."""
    properties = {
        "s3.endpoint": proxy.endpoint, "s3.region": seaweedfs.region, "s3.access-key-id": seaweedfs.access_key,
        "s3.secret-access-key": seaweedfs.secret_key,
    }  # fmt: skip
    files = PyArrowFileIO(properties)
    with files.new_output(f"s3://{folder}/f").create(overwrite=True) as stream:
        stream.write(b"x" * 10_000)
    assert files.new_input(f"s3://{folder}/f").open().read() == b"x" * 10_000
    assert proxy.requests["multipart_part"] == 1


async def test_heal_ends_it(proxy: FaultProxy, store: S3Store) -> None:
    proxy.random(1, {"503": 1.0})
    proxy.plan("", "", "500", times=1000)
    proxy.delay_s = 10
    proxy.heal()
    await store.put("a", [b"x"])
    assert (store.retries, proxy.faults.total()) == (0, 0)
