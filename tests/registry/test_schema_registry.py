import asyncio
import json

import pytest

from streamlake.cluster.store.schemas import GLOBAL
from streamlake.core.errors import Conflict
from streamlake.core.tasks import InlineExecutor
from streamlake.registry import errors
from streamlake.registry.avro.compatibility import Level
from streamlake.registry.errors import RegistryError
from streamlake.registry.schema_registry import BLOCKING_WAITING_MAX, NewSchema, SchemaRegistry


def schema(*fields: str, **options) -> NewSchema:
    """Nullable fields: any of these may follow any other."""
    columns = [{"name": f, "type": ["null", "int"], "default": None} for f in fields]
    return NewSchema(json.dumps({"type": "record", "name": "R", "fields": columns}), **options)


REQUIRED = NewSchema('{"type":"record","name":"R","fields":[{"name":"must","type":"int"}]}')


async def refused(code, awaitable) -> RegistryError:
    with pytest.raises(RegistryError) as raised:
        await awaitable
    assert raised.value.code == code
    return raised.value


async def test_versions_count_by_subject_ids_by_schema(registry):
    first = await registry.register("a", schema("x"))
    assert await registry.register("a", schema("x")) == first
    second = await registry.register("a", schema("y"))
    assert await registry.register("b", schema("y")) == second != first
    assert await registry.versions("a", deleted=False, deleted_only=False) == [1, 2]
    assert await registry.versions("b", deleted=False, deleted_only=False) == [1]
    assert [(r.subject, r.version) for r in await registry.versions_of_schema(second, False)] == [("a", 2), ("b", 1)]


async def test_identical_registrations_at_once_give_one_id(registry):
    ids = await asyncio.gather(*[registry.register(f"s{n % 2}", schema("x")) for n in range(20)])
    assert len(set(ids)) == 1
    assert await registry.versions("s0", False, False) == await registry.versions("s1", False, False) == [1]


async def test_two_brokers_at_once_give_one_id_and_no_version_twice(store):
    brokers = [SchemaRegistry(store, InlineExecutor()) for _ in range(2)]
    same = await asyncio.gather(*[b.register("s", schema("x")) for b in brokers])
    assert len(set(same)) == 1
    other = await asyncio.gather(*[b.register("s", schema(f"y{n}")) for n, b in enumerate(brokers)])
    assert len(set(other)) == 2
    assert await brokers[0].versions("s", False, False) == [1, 2, 3]


async def test_compatibility_is_checked_again_after_a_conflict(store):
    class Meanwhile:
        """Another broker registers between our check and our write."""

        done = False

        def __getattr__(self, name):
            return getattr(store, name)

        async def register(self, subject, text, latest_version):
            if not self.done:
                self.done = True
                other = SchemaRegistry(store, InlineExecutor())
                await other.register(subject, schema("x"))
            return await store.register(subject, text, latest_version)

    registry = SchemaRegistry(Meanwhile(), InlineExecutor())
    await refused(errors.INCOMPATIBLE, registry.register("s", REQUIRED))


async def test_endless_conflicts_end(store):
    class Conflicts:
        def __getattr__(self, name):
            return getattr(store, name)

        async def register(self, *_):
            raise Conflict("always")

    await refused(errors.STORE_FAILED, SchemaRegistry(Conflicts(), InlineExecutor()).register("s", schema("x")))


async def test_an_id_is_durable_before_it_is_told(store):
    class Failing:
        def __getattr__(self, name):
            return getattr(store, name)

        async def register(self, *args):
            await store.register(*args)
            raise Conflict("the answer says otherwise")

    registry = SchemaRegistry(Failing(), InlineExecutor())
    assert await registry.register("s", schema("x")) == 1, "found again in the next round"
    assert await SchemaRegistry(store, InlineExecutor()).lookup("s", schema("x"), False)


async def test_an_incompatible_schema_is_refused(registry):
    await registry.register("s", schema("x"))
    error = await refused(errors.INCOMPATIBLE, registry.register("s", REQUIRED))
    assert "must" in str(error)
    await registry.set_level("s", "none")
    await registry.register("s", REQUIRED)


async def test_soft_deleted_versions_do_not_count_for_compatibility(registry):
    await registry.register("s", schema("x"))
    await registry.delete_subject("s", permanent=False)
    await registry.register("s", REQUIRED)
    assert await registry.versions("s", False, False) == [2]


async def test_deleting_and_registering_again(registry):
    schema_id = await registry.register("s", schema("x"))
    assert await registry.delete_subject("s", permanent=False) == [1]
    await refused(errors.SUBJECT_NOT_FOUND, registry.versions("s", False, False))
    assert await registry.versions("s", True, False) == [1]
    assert await registry.versions("s", False, True) == [1]
    assert await registry.subjects("", False, False) == []
    assert await registry.subjects("", False, True) == await registry.subjects("", True, False) == ["s"]
    await refused(errors.SUBJECT_NOT_FOUND, registry.lookup("s", schema("x"), deleted=False))
    assert (await registry.lookup("s", schema("x"), deleted=True)).version == 1
    assert await registry.register("s", schema("x")) == schema_id
    assert (await registry.version("s", "latest", False)).version == 2


async def test_schemas_stay_readable_for_ever(registry):
    schema_id = await registry.register("s", schema("x"))
    await registry.delete_subject("s", permanent=False)
    assert await registry.delete_subject("s", permanent=True) == [1]
    assert "x" in await registry.schema(schema_id)
    assert await registry.versions_of_schema(schema_id, True) == []
    assert await registry.register("other", schema("x")) == schema_id


async def test_deleting_versions(registry):
    for field in "xyz":
        await registry.register("s", schema(field))
    assert await registry.delete_version("s", "2", permanent=False) == 2
    assert await registry.versions("s", False, False) == [1, 3]
    assert await registry.delete_version("s", "latest", permanent=False) == 3
    assert await registry.delete_version("s", "3", permanent=True) == 3
    assert await registry.versions("s", True, False) == [1, 2]


async def test_levels(registry):
    assert await registry.level(GLOBAL) is Level.BACKWARD
    await refused(errors.NO_SUBJECT_LEVEL, registry.level("s", default_to_global=False))
    await registry.set_level(GLOBAL, "full")
    assert await registry.level("s") is Level.FULL
    await registry.set_level("s", "FORWARD_TRANSITIVE")
    assert await registry.level("s", default_to_global=False) is Level.FORWARD_TRANSITIVE
    await refused(errors.INVALID_LEVEL, registry.set_level("s", "sideways"))
    await refused(errors.INVALID_SUBJECT, registry.set_level("a\nb", "FULL"))
    assert await registry.delete_level("s") is Level.FORWARD_TRANSITIVE
    assert await registry.delete_level(GLOBAL) is Level.FULL
    assert await registry.level("s") is Level.BACKWARD


async def test_a_deleted_subject_loses_its_level(registry):
    await registry.register("s", schema("x"))
    await registry.set_level("s", "NONE")
    await registry.delete_subject("s", permanent=False)
    await refused(errors.NO_SUBJECT_LEVEL, registry.level("s", default_to_global=False))


async def test_check(registry):
    assert await registry.check("none", REQUIRED, None) == []
    assert await registry.check("none", REQUIRED, "latest") == []
    await refused(errors.SUBJECT_NOT_FOUND, registry.check("none", REQUIRED, "1"))
    await registry.set_level("s", "NONE")
    await registry.register("s", schema("x"))
    await registry.register("s", REQUIRED)
    await registry.set_level("s", "BACKWARD")
    assert await registry.check("s", REQUIRED, "latest") == []
    assert len(await registry.check("s", REQUIRED, "1")) == 1
    assert await registry.check("s", REQUIRED, None) == []
    await registry.set_level("s", "BACKWARD_TRANSITIVE")
    assert len(await registry.check("s", REQUIRED, None)) == 1
    await refused(errors.VERSION_NOT_FOUND, registry.check("s", REQUIRED, "9"))


async def test_what_is_no_schema_here(registry):
    for bad in [
        NewSchema("{"),
        NewSchema('"string"', schema_type="PROTOBUF"),
        NewSchema('"string"', schema_type="JSON"),
        NewSchema('"string"', has_references=True),
    ]:
        await refused(errors.INVALID_SCHEMA, registry.register("s", bad))


async def test_unknown_things(registry):
    await refused(errors.SCHEMA_NOT_FOUND, registry.schema(1))
    await refused(errors.SCHEMA_NOT_FOUND, registry.versions_of_schema(1, False))
    await refused(errors.SUBJECT_NOT_FOUND, registry.lookup("s", schema("x"), False))
    await registry.register("s", schema("x"))
    await refused(errors.SCHEMA_NOT_FOUND, registry.lookup("s", schema("y"), False))
    await refused(errors.VERSION_NOT_FOUND, registry.version("s", "2", False))


async def test_normalizing(registry):
    a = NewSchema('{"type":"int","z":1,"a":2}', normalize=True)
    b = NewSchema('{"type":"int","a":2,"z":1}', normalize=True)
    assert await registry.register("s", a) == await registry.register("s", b)


async def test_too_many_schemas_at_once_are_pushed_back(registry):
    results = await asyncio.gather(
        *[registry.register("s", schema("x")) for _ in range(BLOCKING_WAITING_MAX + 5)], return_exceptions=True
    )
    refusals = [r for r in results if isinstance(r, RegistryError)]
    assert {r.code for r in refusals} == {errors.TOO_MANY_REQUESTS}
    assert len(refusals) == 5
