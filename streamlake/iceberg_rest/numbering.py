"""Ids of the schemas, partition specs and sort orders that a commit adds.

A client numbers what it adds by the table that it has seen. By the time of the commit the table may have something else
under that number. Iceberg's rule: what the table has already keeps its id, the rest gets the next free one, and -1
means the last one added. pyiceberg takes the client's ids as they are, and would have two schemas with one id.
"""

from collections.abc import Callable, Sequence
from typing import Any

from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import (
    AddPartitionSpecUpdate,
    AddSchemaUpdate,
    AddSortOrderUpdate,
    SetCurrentSchemaUpdate,
    SetDefaultSortOrderUpdate,
    SetDefaultSpecUpdate,
    TableUpdate,
)

LAST_ADDED = -1


def renumbered(updates: Sequence[TableUpdate], metadata: TableMetadata) -> tuple[TableUpdate, ...]:
    """The updates with the ids that they have in this table. What it has already is not added again."""
    schemas = _Kind(metadata.schemas, "schema_id", lambda a, b: a == b)
    specs = _Kind(metadata.partition_specs, "spec_id", lambda a, b: a.compatible_with(b))
    orders = _Kind(metadata.sort_orders, "order_id", lambda a, b: a.fields == b.fields)
    found: list[TableUpdate] = []
    for update in updates:
        match update:
            case AddSchemaUpdate(schema_=schema):
                found += [AddSchemaUpdate(schema=new) for new in schemas.add(schema)]
            case AddPartitionSpecUpdate(spec=spec):
                found += [AddPartitionSpecUpdate(spec=new) for new in specs.add(spec)]
            case AddSortOrderUpdate(sort_order=order):
                found += [AddSortOrderUpdate(sort_order=new) for new in orders.add(order)]  # type: ignore[call-arg]
            case SetCurrentSchemaUpdate(schema_id=id):
                found.append(SetCurrentSchemaUpdate(schema_id=schemas.id_of(id)))  # type: ignore[call-arg]
            case SetDefaultSpecUpdate(spec_id=id):
                found.append(SetDefaultSpecUpdate(spec_id=specs.id_of(id)))  # type: ignore[call-arg]
            case SetDefaultSortOrderUpdate(sort_order_id=id):
                found.append(SetDefaultSortOrderUpdate(sort_order_id=orders.id_of(id)))  # type: ignore[call-arg]
            case _:
                found.append(update)
    return tuple(found)


class _Kind:
    """The schemas of a table, or its specs, or its sort orders. `key` is the field with the id."""

    def __init__(self, there: Sequence[Any], key: str, same: Callable[[Any, Any], bool]) -> None:
        self._there = list(there)
        self._key = key
        self._same = same
        self._ids: dict[int, int] = {}  # from those that the client gave

    def add(self, thing: Any) -> list[Any]:
        """It with its id here; nothing if the table has the same."""
        given = getattr(thing, self._key)
        known = next((one for one in self._there if self._same(one, thing)), None)
        if known is not None:
            new, id = [], getattr(known, self._key)
        else:
            taken = [getattr(one, self._key) for one in self._there]
            id = given if given not in taken and given >= 0 else max(taken) + 1
            new = [thing.model_copy(update={self._key: id})]
            self._there += new
        self._ids[given] = self._ids[LAST_ADDED] = id
        return new

    def id_of(self, given: int) -> int:
        return self._ids.get(given, given)
