import asyncio

import pytest

from streamlake.cluster.store.schemas import GLOBAL, ReferenceRow, SchemaRow, SchemaStore, VersionRow
from streamlake.core.errors import Conflict, Fenced, Invalid

A, B = SchemaRow('"string"'), SchemaRow('"long"')
INT = SchemaRow('"int"')


@pytest.fixture
def store(cluster) -> SchemaStore:
    return SchemaStore(cluster.database, cluster.identity)


async def test_equal_schemas_share_an_id(store) -> None:
    first = await store.register("x-value", A, 0)
    second = await store.register("x-value", B, 1)
    again = await store.register("y-value", A, 0)
    assert first == VersionRow("x-value", 1, 1, deleted=False)
    assert second == VersionRow("x-value", 2, 2, deleted=False)
    assert again == VersionRow("y-value", 1, 1, deleted=False)
    assert await store.versions("x-value") == [first, second]
    assert await store.versions_of_schema(1) == [first, again]
    assert await store.schemas([1, 2, 3]) == {1: A, 2: B}
    assert (await store.schema_id(A), await store.schema_id(B), await store.schema_id(INT)) == (1, 2, None)
    assert await store.subjects() == [("x-value", False), ("y-value", False)]


async def test_two_at_once_give_one_version(store) -> None:
    """The second was checked against a history that is no longer true: it must check again."""
    outcomes = await asyncio.gather(store.register("x", A, 0), store.register("x", B, 0), return_exceptions=True)
    assert isinstance(outcomes[0], VersionRow)
    assert isinstance(outcomes[1], Conflict)
    assert len(await store.versions("x")) == 1
    assert await store.schema_id(B) is None
    with pytest.raises(Conflict, match="is at version 1, not 2"):
        await store.register("x", B, 2)


async def test_deleted_versions_keep_their_number_and_schema(store) -> None:
    await store.register("x", A, 0)
    await store.register("x", B, 1)
    await store.soft_delete("x", [1, 2, 9])
    assert [row.deleted for row in await store.versions("x")] == [True, True]
    assert await store.subjects() == [("x", True)]
    with pytest.raises(Conflict):
        await store.register("x", A, 0)
    assert await store.register("x", A, 2) == VersionRow("x", 3, 1, deleted=False)
    assert await store.subjects() == [("x", False)]


async def test_purged_versions_leave_the_schemas(store) -> None:
    await store.register("x", A, 0)
    await store.register("x", B, 1)
    await store.purge("x", [1, 2, 9])
    assert await store.versions("x") == []
    assert await store.subjects() == []
    assert await store.schemas([1, 2]) == {1: A, 2: B}
    assert (await store.register("x", B, 0)).schema_id == 2
    assert (await store.register("x", INT, 1)).schema_id == 3


def referring(text: str, *references: ReferenceRow) -> SchemaRow:
    return SchemaRow(text, "PROTOBUF", references, b"compiled", f"PROTOBUF {references} {text}")


async def test_a_schema_with_references(store) -> None:
    first = await store.register("a", A, 0)
    row = referring("x", ReferenceRow("a.proto", "a", 1, first.schema_id))
    found = await store.register("x", row, 0)
    assert await store.schemas([found.schema_id]) == {2: SchemaRow("x", "PROTOBUF", row.references, b"compiled")}
    assert await store.register("y", row, 0) == VersionRow("y", 1, found.schema_id, deleted=False)
    assert await store.schema_id(row) == found.schema_id
    assert await store.schema_id(referring("x")) is None, "other references, another schema"
    assert (await store.referring("a", 1), await store.referring("a", 2)) == ([2], [])


async def test_versions_that_are_referred_to_stay(store) -> None:
    """A schema is read by its id for ever, and cannot be read without what it refers to."""
    first = await store.register("a", A, 0)
    await store.register("x", referring("x", ReferenceRow("a.proto", "a", 1, first.schema_id)), 0)
    with pytest.raises(Invalid, match="references exist to version 1 of subject 'a'"):
        await store.soft_delete("a", [1])
    await store.soft_delete("x", [1])
    await store.soft_delete("a", [1])
    await store.purge("x", [1])
    with pytest.raises(Invalid, match="references exist to version 1 of subject 'a'"):
        await store.purge("a", [1])
    assert await store.versions("a") == [VersionRow("a", 1, 1, deleted=True)]


async def test_nothing_refers_to_a_version_that_is_gone(store) -> None:
    first = await store.register("a", A, 0)
    await store.soft_delete("a", [1])
    for version in (1, 2):
        with pytest.raises(Conflict, match=f"version {version} of subject 'a' is gone"):
            await store.register("x", referring("x", ReferenceRow("a.proto", "a", version, first.schema_id)), 0)
    assert await store.versions("x") == []


async def test_levels(store) -> None:
    assert await store.levels([GLOBAL, "x"]) == {}
    await store.set_level(GLOBAL, "FULL")
    await store.set_level("x", "NONE")
    await store.set_level("x", "BACKWARD")
    assert await store.levels([GLOBAL, "x", "y"]) == {GLOBAL: "FULL", "x": "BACKWARD"}
    await store.set_level("x", None)
    await store.set_level("y", None)
    assert await store.levels([GLOBAL, "x"]) == {GLOBAL: "FULL"}


async def test_a_zombie_changes_nothing(store, cluster) -> None:
    await store.register("x", A, 0)
    await cluster.register()
    before = await cluster.dump()
    for attempt in (
        lambda: store.register("x", B, 1),
        lambda: store.soft_delete("x", [1]),
        lambda: store.purge("x", [1]),
        lambda: store.set_level("x", "NONE"),
        lambda: store.set_level("x", None),
    ):
        with pytest.raises(Fenced):
            await attempt()
    assert await cluster.dump() == before
