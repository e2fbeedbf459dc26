"""What every ObjectStore does. A test class inherits this and gives `store`, empty."""

import asyncio

import pytest

from streamlake.core.errors import Corrupt, Exists, NotFound
from streamlake.s3stream.store.port import ObjectStore


async def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [meta.key async for meta in store.list(prefix)]


class ObjectStoreContract:
    async def test_put_then_get(self, store: ObjectStore) -> None:
        await store.put("a/b", [b"one", memoryview(b"xtwox")[1:4], b""])
        assert await store.get("a/b") == b"onetwo"
        assert isinstance(await store.get("a/b"), bytes)
        await store.put("a/b", [b"new"])
        assert await store.get("a/b") == b"new"

    async def test_an_object_may_be_empty_or_large(self, store: ObjectStore) -> None:
        await store.put("empty", [])
        assert await store.get("empty") == b""
        large = [bytes([i]) * 700_000 for i in range(8)]
        await store.put("large", large)
        assert await store.get("large") == b"".join(large)

    async def test_what_is_not_there_is_not_found(self, store: ObjectStore) -> None:
        await store.put("a/b", [b"x"])
        for key in ("none", "a", "a/b/c", "a/none"):
            with pytest.raises(NotFound):
                await store.get(key)
            with pytest.raises(NotFound):
                await store.get_range(key, 0, 1)

    async def test_ranges_are_exact(self, store: ObjectStore) -> None:
        await store.put("a", [bytes(range(100))])
        assert await store.get_range("a", 10, 5) == bytes(range(10, 15))
        assert await store.get_range("a", 0, 100) == bytes(range(100))
        assert await store.get_range("a", 99, 1) == bytes([99])
        assert await store.get_range("a", 5, 0) == b""

    @pytest.mark.parametrize(("start", "length"), [(99, 2), (0, 101), (100, 1), (500, 10)])
    async def test_a_range_beyond_the_end_is_corrupt(self, store: ObjectStore, start: int, length: int) -> None:
        await store.put("a", [bytes(100)])
        with pytest.raises(Corrupt):
            await store.get_range("a", start, length)

    async def test_create_makes_only_what_is_not_there(self, store: ObjectStore) -> None:
        await store.create("wal/1", [b"mine", b"!"])
        assert await store.get("wal/1") == b"mine!"
        with pytest.raises(Exists):
            await store.create("wal/1", [b"yours"])
        assert await store.get("wal/1") == b"mine!"
        await store.delete(["wal/1"])
        await store.create("wal/1", [b"again"])
        assert await store.get("wal/1") == b"again"

    async def test_of_many_who_create_one_wins(self, store: ObjectStore) -> None:
        results = await asyncio.gather(*(store.create("fence", [b"%d" % n]) for n in range(4)), return_exceptions=True)
        winners = [n for n, result in enumerate(results) if result is None]
        assert len(winners) == 1
        assert all(isinstance(result, Exists) for result in results if result is not None)
        assert await store.get("fence") == b"%d" % winners[0]

    async def test_delete_is_idempotent(self, store: ObjectStore) -> None:
        for key in ("a/1", "a/2", "b"):
            await store.put(key, [b"x"])
        await store.delete(["a/1", "none", "a/none/at/all", "b"])
        await store.delete(["a/1"])
        await store.delete([])
        assert await keys(store) == ["a/2"]

    async def test_list_gives_keys_with_the_prefix(self, store: ObjectStore) -> None:
        names = ["a-b/c", "a.b", "a/b", "a/b2/c", "a/z", "ab", "b/1", "b/10", "b/2"]
        for n, key in enumerate(reversed(names)):
            await store.put(key, [bytes(n)])
        found = [(m.key, m.size) async for m in store.list("")]
        assert sorted(found) == [(key, 8 - n) for n, key in enumerate(names)]
        for prefix, wanted in (
            ("a/", ["a/b", "a/b2/c", "a/z"]),
            ("a/b", ["a/b", "a/b2/c"]),
            ("a", [key for key in names if key.startswith("a")]),
            ("b/1", ["b/1", "b/10"]),
            ("none/", []),
            ("a/b2/c", ["a/b2/c"]),
        ):
            assert sorted(await keys(store, prefix)) == wanted

    async def test_list_keeps_each_folder_in_key_order(self, store: ObjectStore) -> None:
        names = [f"wal/{epoch}/{n:03}" for epoch in range(3) for n in range(8)]
        await asyncio.gather(*(store.put(key, [b"x"]) for key in [*names[::-1], "wal-old/1", "wal/1-x/1", "wal/2/0-1"]))
        assert await keys(store, "wal/1/") == names[8:16]
        for prefix in ("", "wal/"):
            found = await keys(store, prefix)
            for epoch in range(2):
                folder = [key for key in found if key.startswith(f"wal/{epoch}/")]
                assert folder == names[epoch * 8 : epoch * 8 + 8]
                first = found.index(folder[0])
                assert found[first : first + 8] == folder, "without others in between"

    async def test_many_calls_at_once(self, store: ObjectStore) -> None:
        await asyncio.gather(*(store.put(f"many/{n:03}", [b"%d" % n]) for n in range(60)))
        assert await asyncio.gather(*(store.get(f"many/{n:03}") for n in range(60))) == [b"%d" % n for n in range(60)]
        assert len(await keys(store, "many/")) == 60
