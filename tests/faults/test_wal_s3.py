"""The object WAL on a real S3 server, and behind a proxy that loses, delays and refuses what it likes."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import pytest
from contracts.wal_contract import WalContract, record, started
from support.fault_proxy import FaultProxy
from support.object_wal_place import Place
from support.seaweedfs import SeaweedFS

from streamlake.core.errors import Closed, Fenced
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor
from streamlake.s3stream.store.bucket import RequestPolicy, S3Store, open_s3
from streamlake.s3stream.store.client import S3Options

WILD = {
    "slow": 0.1, "reset_before": 0.03, "reset_within": 0.03, "reset_after": 0.05, "500": 0.03, "503": 0.05, "409": 0.02,
    "applied_500": 0.03, "applied_503": 0.02, "applied_409": 0.02, "cut": 0.03,
}  # fmt: skip


def opened(seaweedfs: SeaweedFS, endpoint: str, folder: str) -> S3Store:
    options = S3Options(
        endpoint=endpoint, region=seaweedfs.region, access_key=seaweedfs.access_key, secret_key=seaweedfs.secret_key,
        allow_http=True,
    )  # fmt: skip
    policy = RequestPolicy(pause_first_s=0.005, pause_max_s=0.05)
    return open_s3(f"s3://{folder}", Ids(1), InlineExecutor(), options, policy)


@pytest.fixture
def folder(seaweedfs: SeaweedFS) -> str:
    return seaweedfs.folder()


@pytest.fixture
def proxy(seaweedfs: SeaweedFS, folder: str) -> Iterator[FaultProxy]:
    with FaultProxy(seaweedfs.s3_endpoint, folder) as proxy:
        yield proxy


class TestOnSeaweedFS(WalContract):
    @pytest.fixture
    def place(self, seaweedfs: SeaweedFS, folder: str) -> Place:
        return Place(opened(seaweedfs, seaweedfs.s3_endpoint, folder))


class TestThroughFaults(WalContract):
    @pytest.fixture
    def place(self, seaweedfs: SeaweedFS, proxy: FaultProxy, folder: str) -> Place:
        proxy.random(1, WILD)
        return Place(opened(seaweedfs, proxy.endpoint, folder))


@pytest.mark.parametrize("seed", range(3))
async def test_what_was_acknowledged_through_faults_is_replayed_once_in_order(
    seaweedfs: SeaweedFS, proxy: FaultProxy, folder: str, seed: int
) -> None:
    """Its owner goes on as if nothing were: what it is told is replayed, what comes behind the fence is refused."""
    proxy.random(seed, WILD)
    place = Place(opened(seaweedfs, proxy.endpoint, folder))
    wal = place.make(linger_ms=1, object_bytes=4096, uploads_max=8, capacity_bytes=1 << 30)
    _, watcher = await started(wal)

    async def produce() -> None:
        n = 0
        with suppress(Closed):
            while True:
                n += 1
                await wal.reserve(500, timeout_s=60)
                wal.append(record(n, 500))
                await asyncio.sleep(0)

    producing = asyncio.create_task(produce())
    while len(watcher.durable) < 40:
        await watcher.until(wal.durable_position + 1)
    replayed, again, _ = await place.reopen(0)
    assert [found for _, found in replayed] == [record(n, 500) for n in range(1, len(replayed) + 1)]
    await watcher.until_failed()
    await producing
    assert isinstance(watcher.failed[0], Fenced)
    assert watcher.durable[-1] <= replayed[-1][0], "nothing was acknowledged that was not replayed"
    await wal.close()
    await again.close()
