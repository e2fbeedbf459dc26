import asyncio
import json
from dataclasses import replace

import pytest

from streamlake.cluster.store.schemas import GLOBAL
from streamlake.core.errors import Conflict
from streamlake.core.tasks import InlineExecutor
from streamlake.registry import errors
from streamlake.registry.errors import RegistryError
from streamlake.registry.kinds import KINDS
from streamlake.registry.levels import Level
from streamlake.registry.schema_registry import BLOCKING_WAITING_MAX, FILES_MAX, NewSchema, Reference, SchemaRegistry


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

        async def register(self, subject, row, latest_version):
            if not self.done:
                self.done = True
                other = SchemaRegistry(store, InlineExecutor())
                await other.register(subject, schema("x"))
            return await store.register(subject, row, latest_version)

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
    assert "x" in (await registry.schema(schema_id)).text
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
        NewSchema('"string"', schema_type="THRIFT"),
        NewSchema('"string"', references=(Reference("a", "nobody", 1),)),
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


# --- Protobuf


def proto(text: str, *references: Reference, **options) -> NewSchema:
    return NewSchema(f'syntax = "proto3"; {text}', "PROTOBUF", references, **options)


MONEY = proto("package common; message Money { int64 units = 1; }")
ORDER = 'import "common/money.proto"; message Order { common.Money price = 1; }'
MONEY_V1 = Reference("common/money.proto", "money", 1)


async def test_a_protobuf_schema_is_the_same_in_any_spelling(registry) -> None:
    first = await registry.register("s", proto("package a; message M { int32 x = 1; message N {} N n = 2; }"))
    again = proto("/* as before */ package a;\nmessage M {\n  message N {}\n  int32 x = 1; .a.M.N n = 2; }")
    assert await registry.register("s", again) == first
    assert await registry.register("t", again) == first
    row = await registry.schema(first)
    assert (row.kind, "as before" in row.text) == ("PROTOBUF", False), "the first text stays as it is"
    assert await registry.register("s", proto("package a; message M { int64 x = 1; message N {} N n = 2; }")) != first


async def test_a_schema_may_refer_to_others(registry) -> None:
    money = await registry.register("money", MONEY)
    await refused(errors.INVALID_SCHEMA, registry.register("order", proto(ORDER)))
    order = await registry.register("order", proto(ORDER, MONEY_V1))
    assert order != money
    assert await registry.register("order", proto(ORDER, MONEY_V1._replace(version=-1))) == order
    assert [(one.subject, one.version) for one in (await registry.schema(order)).references] == [("money", 1)]
    assert (await registry.lookup("order", proto(ORDER, MONEY_V1), False)).version == 1
    assert await registry.referring("money", "latest") == [order]
    everything = proto('import "order.proto"; message All { Order order = 1; }', Reference("order.proto", "order", 1))
    await registry.register("all", everything)
    await refused(errors.REFERENCE_EXISTS, registry.delete_subject("money", permanent=False))
    await refused(errors.REFERENCE_EXISTS, registry.delete_version("money", "1", permanent=False))
    assert await registry.versions("money", False, False) == [1]


async def test_references_that_cannot_be(registry) -> None:
    await registry.register("money", MONEY)
    await registry.register("avro", schema("x"))
    await registry.register("other", proto("package common; message Money { string s = 1; }"))
    await registry.register("order", proto(ORDER, MONEY_V1))
    for references in (
        [Reference("common/money.proto", "money", 2)],
        [Reference("common/money.proto", "nobody", 1)],
        [Reference("common/money.proto", "avro", 1)],
        [Reference("../common/money.proto", "money", 1)],
        [Reference("/common/money.proto", "money", 1)],
        [MONEY_V1, MONEY_V1._replace(subject="other")],
        [MONEY_V1._replace(subject="other"), Reference("order.proto", "order", 1)],
        [Reference(f"{n}.proto", "money", 1) for n in range(FILES_MAX + 1)],
    ):
        text = ORDER if len(references) == 1 else "message M {}"
        await refused(errors.INVALID_SCHEMA, registry.register("s", proto(text, *references)))


async def test_protobuf_schemas_are_compared(registry) -> None:
    await registry.register("money", MONEY)
    await registry.register("money", proto("package common; message Money { int64 units = 1; int32 nanos = 2; }"))
    await registry.set_level("money", "NONE")
    await registry.register("money", proto("package common; message Money { string units = 1; }"))
    await registry.register("order", proto(ORDER, MONEY_V1))
    await registry.register("order", proto(ORDER, MONEY_V1._replace(version=2)))
    error = await refused(errors.INCOMPATIBLE, registry.register("order", proto(ORDER, MONEY_V1._replace(version=3))))
    assert "field 1 of Money (units) was integer, and is text or bytes now" in str(error)


async def test_the_kind_of_a_subject_does_not_change(registry) -> None:
    await registry.register("s", schema("x"))
    error = await refused(errors.INCOMPATIBLE, registry.register("s", MONEY))
    assert "the new schema is PROTOBUF, and version 1 is AVRO" in str(error)
    await registry.set_level("s", "NONE")
    await registry.register("s", MONEY)


async def test_normalized_protobuf(registry) -> None:
    one = proto("message M { int32 b = 2; int32 a = 1; }", normalize=True)
    other = proto("message M { int32 a = 1; int32 b = 2; }", normalize=True)
    assert await registry.register("s", one) == await registry.register("s", other)


async def test_many_clients_that_start_together_cost_one_parse(registry, monkeypatch) -> None:
    calls = []
    real = KINDS["PROTOBUF"]
    counting = replace(real, parse=lambda *args: (calls.append(args), real.parse(*args))[1])
    monkeypatch.setitem(KINDS, "PROTOBUF", counting)
    ids = await asyncio.gather(*[registry.register("s", MONEY) for _ in range(BLOCKING_WAITING_MAX)])
    assert (set(ids), len(calls)) == ({1}, 1)


# --- JSON Schema


def json_schema(*references: Reference, normalize: bool = False, **schema: object) -> NewSchema:
    return NewSchema(json.dumps(schema), "JSON", references, normalize)


HOME = json_schema(type="object", properties={"id": {"type": "integer"}})
USES = {"type": "object", "properties": {"home": {"$ref": "home.json"}}}


async def test_json_schemas_refer_to_others_and_are_compared(registry) -> None:
    await registry.register("home", HOME)
    await refused(errors.INVALID_SCHEMA, registry.register("s", json_schema(**USES)))
    first = await registry.register("s", json_schema(Reference("home.json", "home", -1), **USES))
    assert await registry.register("s", json_schema(Reference("home.json", "home", 1), **USES)) == first
    await refused(errors.REFERENCE_EXISTS, registry.delete_subject("home", permanent=False))
    text = json_schema(type="object", properties={"id": {"type": "string"}})
    await refused(errors.INCOMPATIBLE, registry.register("home", text))
    await registry.set_level("home", "NONE")
    await registry.register("home", text)
    error = await refused(
        errors.INCOMPATIBLE, registry.register("s", json_schema(Reference("home.json", "home", 2), **USES))
    )
    assert "/properties/home/properties/id may not be integer any more" in str(error)


async def test_normalized_json_schemas(registry) -> None:
    one, other = json_schema(title="x", type="string"), json_schema(type="string", title="x")
    assert await registry.register("s", one) != await registry.register("s", other)
    again = [replace(each, normalize=True) for each in (one, other)]
    assert await registry.register("t", again[0]) == await registry.register("t", again[1])
