"""A cache that forgets nothing it may not forget."""

import pytest
from support.table_records import Registry

from streamlake.core.errors import Invalid, NotFound, Unavailable
from streamlake.table.formats.resolve import RoundSchemas, SchemaCache


def test_a_schema_is_fetched_and_compiled_once() -> None:
    registry = Registry({7: '"int"'})
    cache = SchemaCache(registry)
    assert cache.get(7) is cache.get(7)
    assert registry.asked == [7]


def test_a_refused_schema_is_remembered_too() -> None:
    registry = Registry({7: "{}"})
    cache = SchemaCache(registry)
    for _ in range(2):
        with pytest.raises(Invalid, match="not an Avro schema"):
            cache.get(7)
    assert registry.asked == [7]


def test_unknown_and_unavailable_are_asked_again() -> None:
    registry = Registry()
    cache = SchemaCache(registry)
    with pytest.raises(NotFound):
        cache.get(7)
    registry.schemas[7] = '"int"'
    registry.down = Unavailable("registry is down")
    with pytest.raises(Unavailable):
        cache.get(7)
    registry.down = None
    assert cache.get(7) is cache.get(7)


def test_a_round_asks_for_an_unknown_schema_once_and_the_next_round_again() -> None:
    registry = Registry()
    cache = SchemaCache(registry)
    now, next = RoundSchemas(cache), RoundSchemas(cache)
    for _ in range(2):
        with pytest.raises(NotFound, match="no schema 7"):
            now.get(7)
    assert registry.asked == [7]
    registry.schemas[7] = '"int"'
    with pytest.raises(NotFound):
        now.get(7)
    assert next.get(7) is cache.get(7)


def test_the_cache_is_bounded_and_drops_the_least_recently_used() -> None:
    registry = Registry(dict.fromkeys(range(4), '"int"'))
    cache = SchemaCache(registry, schemas_max=2)
    for id in (0, 1, 0, 2, 0, 1):
        cache.get(id)
    assert registry.asked == [0, 1, 2, 1]
