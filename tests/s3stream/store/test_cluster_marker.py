import pytest
from support.memory_store import MemoryStore

from streamlake.core.errors import Corrupt, Invalid, Unavailable
from streamlake.s3stream.store import cluster_marker
from streamlake.s3stream.store.cluster_marker import KEY, claim


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_marker, "PAUSE_S", 0)


async def test_the_first_cluster_takes_it_and_keeps_it() -> None:
    store = MemoryStore()
    await claim(store, "one", "s3://b", used_before=False)
    assert store.objects == {KEY: b"one"}
    await claim(store, "one", "s3://b", used_before=True)
    for used_before in (True, False):
        with pytest.raises(Invalid, match="s3://b belongs to cluster one, this is two"):
            await claim(store, "two", "s3://b", used_before=used_before)
    assert store.objects == {KEY: b"one"}


async def test_an_empty_store_is_not_the_one_that_was_used() -> None:
    store = MemoryStore()
    with pytest.raises(Corrupt, match="is not the store that this cluster has used"):
        await claim(store, "one", "s3://b", used_before=True)
    assert store.objects == {}


@pytest.mark.parametrize("fault", ["unavailable", "unknown", "applied_then_unknown"])
async def test_unclear_answers_are_read_back(fault: str) -> None:
    store = MemoryStore()
    store.fail("create", fault, times=2)  # type: ignore[arg-type]
    await claim(store, "one", "s3://b", used_before=False)
    assert store.objects == {KEY: b"one"}


async def test_a_store_that_takes_nothing() -> None:
    store = MemoryStore()
    store.fail("create", "unavailable", times=100)
    with pytest.raises(Unavailable, match="can be written to"):
        await claim(store, "one", "s3://b", used_before=False)
