"""The wire format's header, and a cache that forgets nothing it may not forget."""

import pytest
from support.table_records import Registry

from streamlake.core.errors import Invalid, NotFound, Unavailable
from streamlake.table.formats.resolve import RoundSchemas, SchemaCache, schema_id


def test_header() -> None:
    assert schema_id(b"\0\0\0\1\2") == 258
    with pytest.raises(Invalid, match="too short"):
        schema_id(b"\0\0\0\1")
    with pytest.raises(Invalid, match="0x7b"):
        schema_id(b'{"a":')


def test_a_schema_is_fetched_and_compiled_once() -> None:
    registry = Registry({7: '"int"'})
    cache = SchemaCache(registry)
    assert cache.avro(7) is cache.avro(7)
    assert registry.asked == [7]


def test_a_refused_schema_is_remembered_too() -> None:
    registry = Registry({7: "{}"})
    cache = SchemaCache(registry)
    for _ in range(2):
        with pytest.raises(Invalid, match="not an Avro schema"):
            cache.avro(7)
    assert registry.asked == [7]


def test_unknown_and_unavailable_are_asked_again() -> None:
    registry = Registry()
    cache = SchemaCache(registry)
    with pytest.raises(NotFound):
        cache.avro(7)
    registry.schemas[7] = '"int"'
    registry.down = Unavailable("registry is down")
    with pytest.raises(Unavailable):
        cache.avro(7)
    registry.down = None
    assert cache.avro(7).type is not None


def test_a_round_asks_for_an_unknown_schema_once_and_the_next_round_again() -> None:
    registry = Registry()
    cache = SchemaCache(registry)
    now, next = RoundSchemas(cache), RoundSchemas(cache)
    for _ in range(2):
        with pytest.raises(NotFound, match="no schema 7"):
            now.avro(7)
    assert registry.asked == [7]
    registry.schemas[7] = '"int"'
    with pytest.raises(NotFound):
        now.avro(7)
    assert next.avro(7) is cache.avro(7)


def test_the_cache_is_bounded_and_drops_the_least_recently_used() -> None:
    registry = Registry(dict.fromkeys(range(4), '"int"'))
    cache = SchemaCache(registry, schemas_max=2)
    for id in (0, 1, 0, 2, 0, 1):
        cache.avro(id)
    assert registry.asked == [0, 1, 2, 1]
