"""New source schemas → the table's next schema, as data: updates and requirements for one catalog commit.

Pure. Every source schema of a round is merged into the table's schema, or refused as a whole; a refused one changes
nothing, its rows become dead letters, and the table goes on. The rules:

- a field is bound to its column by the field map, then by an alias (the column is renamed, its id stays), then to an
  unbound column of that name, else to a new optional column with the next id;
- a missing field keeps its column, null from now on; required columns become optional (any record may be a tombstone);
- int → long, float → double and decimal of more digits widen, in either direction; any other change is incompatible;
- names are unique without regard to case, free of dots, and not those of partition fields: the later field gets `_2`,
  `_3`, ….

See the Iceberg specification, "Schema Evolution".
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import TypeAlias

from pyiceberg.schema import Schema
from pyiceberg.table.update import (
    AddSchemaUpdate,
    AssertCurrentSchemaId,
    AssertLastAssignedFieldId,
    SetCurrentSchemaUpdate,
    SetPropertiesUpdate,
    TableRequirement,
    TableUpdate,
)
from pyiceberg.types import (
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    PrimitiveType,
    StructType,
)

from streamlake.core.errors import Invalid
from streamlake.table.formats.source_schema import (
    ROW,
    SourceColumn,
    SourceField,
    SourceList,
    SourceMap,
    SourceStruct,
    SourceType,
)
from streamlake.table.rows import field_map
from streamlake.table.rows.field_map import FieldMap, key_of
from streamlake.table.rows.hive_types import type_chars

# Names that Spark, Iceberg's own tables or readers give a meaning of their own.
RESERVED_NAMES = frozenset(
    {"_file", "_pos", "_deleted", "_spec_id", "_partition", "_row_id", "_last_updated_sequence_number", "_change_type"}
)

Columns: TypeAlias = tuple[NestedField, ...]
Wanted: TypeAlias = Sequence[tuple[str | int, SourceField]]  # with the parent: a root, or a field id


@dataclass(frozen=True, slots=True)
class CurrentTable:
    """What evolution needs to know of a table's metadata."""

    schemas: Sequence[Schema]
    current_schema_id: int
    last_column_id: int
    fields: FieldMap
    partition_names: frozenset[str] = frozenset()  # folded; new columns at the top get others

    @property
    def schema(self) -> Schema:
        return next(s for s in self.schemas if s.schema_id == self.current_schema_id)


@dataclass(frozen=True, slots=True)
class Incompatible:
    """Why one source schema cannot go into this table."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"column {self.path}: {self.why}"


@dataclass(frozen=True, slots=True)
class Evolution:
    """`bindings` has one entry for each source schema: its field map (a subset of `fields`), or why it is refused.
    Nothing is to be committed if `updates` is empty. For a table not yet there `updates` is empty: create it with
    `schema`, load it, and evolve again: then the field map is part of the first data commit."""

    schema: Schema
    fields: FieldMap
    bindings: tuple[FieldMap | Incompatible, ...]
    updates: tuple[TableUpdate, ...] = ()
    requirements: tuple[TableRequirement, ...] = ()


def evolve(
    table: CurrentTable | None, sources: Sequence[Sequence[SourceColumn]], type_chars_max: int | None = None
) -> Evolution:
    """`type_chars_max`: the catalog's limit for a column's type as text. Raises Invalid if the table itself cannot be
    written to."""
    if table and table.schema.identifier_field_ids:
        raise Invalid("the table has identifier fields, and rows may lack any field: drop them to append to this table")
    columns: Columns = _optional(table.schema.as_struct()).fields if table else ()
    fields = _known(table)
    next_id = table.last_column_id + 1 if table else 1
    reserved = RESERVED_NAMES | table.partition_names if table else RESERVED_NAMES
    bindings: list[FieldMap | Incompatible] = []
    for source in sources:
        merge = _Merge(fields, next_id, reserved)
        try:
            merged = merge.columns(columns, source)
        except _Refused as refused:
            bindings.append(refused.incompatible)
            continue
        if type_chars_max is not None and (long := _too_long(merged, type_chars_max)):
            bindings.append(long)
            continue
        columns, next_id = merged, merge.next_id
        fields = {**fields, **merge.binding}
        bindings.append(merge.binding)
    updates, requirements, schema = _changes(table, columns, fields)
    return Evolution(schema, fields, tuple(bindings), updates, requirements)


def _too_long(columns: Columns, chars_max: int) -> Incompatible | None:
    for column in columns:
        if (chars := type_chars(column.field_type)) > chars_max:
            why = f"its type as text has {chars:,} characters, and the catalog takes {chars_max:,} at most"
            return Incompatible(column.name, why)
    return None


def _known(table: CurrentTable | None) -> dict[str, int]:
    """The field map without columns that somebody has dropped."""
    if table is None:
        return {}
    ids = set(table.schema.field_ids)
    return {key: id for key, id in table.fields.items() if id in ids}


def _changes(
    table: CurrentTable | None, columns: Columns, fields: FieldMap
) -> tuple[tuple[TableUpdate, ...], tuple[TableRequirement, ...], Schema]:
    if table is None:
        return (), (), Schema(*columns)
    updates: list[TableUpdate] = []
    known = [table.schema, *(s for s in reversed(table.schemas) if not s.identifier_field_ids)]
    schema = next((s for s in known if s.fields == columns), None)
    if schema is None:
        schema = Schema(*columns, schema_id=max(s.schema_id for s in table.schemas) + 1)
        updates += [AddSchemaUpdate(schema=schema), _set_current(-1)]
    elif schema is not table.schema:  # somebody made an older one current; catalogs do not store equal schemas twice
        updates.append(_set_current(schema.schema_id))
    if fields != table.fields:
        updates.append(SetPropertiesUpdate(updates={field_map.PROPERTY: field_map.encode(fields)}))
    if not updates:
        return (), (), schema
    requirements = (
        AssertCurrentSchemaId.model_validate({"current-schema-id": table.current_schema_id}),
        AssertLastAssignedFieldId.model_validate({"last-assigned-field-id": table.last_column_id}),
    )
    return tuple(updates), requirements, schema


def _set_current(schema_id: int) -> SetCurrentSchemaUpdate:
    return SetCurrentSchemaUpdate.model_validate({"schema-id": schema_id})


class _Refused(Exception):
    def __init__(self, path: Sequence[str], why: str) -> None:
        super().__init__(why)
        self.incompatible = Incompatible(".".join(path), why)


class _Merge:
    """Merges one source schema into the existing columns. `binding` has the column of each of the source's keys."""

    def __init__(self, known: FieldMap, next_id: int, reserved: frozenset[str]) -> None:
        self.binding: dict[str, int] = {}
        self.next_id = next_id
        self._known = known
        self._bound = set(known.values())
        self._reserved = reserved

    def columns(self, existing: Columns, source: Sequence[SourceColumn]) -> Columns:
        ours = {column.field.name.casefold() for column in source if column.root == ROW}
        return self._struct((), existing, [(c.root, c.field) for c in source], self._reserved | ours)

    def _struct(
        self, path: tuple[str, ...], existing: Columns, wanted: Wanted, reserved: frozenset[str] = frozenset()
    ) -> Columns:
        columns = {column.field_id: column for column in existing}
        claims = self._claims(existing, wanted)
        names = _Names({column.name.casefold(): column.field_id for column in existing}, reserved)
        bound = self._bound.union(claims.values())
        places: list[tuple[int, str]] = []
        # All ids of a level before those below it: the order in which catalogs number the columns of a new table.
        for position, (parent, field) in enumerate(wanted):
            id = claims.get(position)
            if id is None:
                name, id = names.place(field.name, parent == ROW, bound)
                if id is None:
                    id = self._new_id()
                else:
                    name = columns[id].name  # in the spelling of the table
            elif key_of(parent, field.segment) in self._known:
                name = columns[id].name
            else:  # found by an alias
                name = names.rename(id, field.name, parent == ROW)
            names.taken[name.casefold()] = id
            bound.add(id)
            self.binding[key_of(parent, field.segment)] = id
            places.append((id, name))
        for (id, name), (_, field) in zip(places, wanted, strict=True):
            current = columns.get(id)
            type = self._typed((*path, name), id, current.field_type if current else None, field.type)
            columns[id] = (
                current.model_copy(update={"name": name, "field_type": type})
                if current
                else NestedField(id, name, type, required=False, doc=field.doc)
            )
        return tuple(columns.values())

    def _claims(self, existing: Columns, wanted: Wanted) -> dict[int, int]:
        """Position in `wanted` → the column it owns already. Two names of one column cannot both own it."""
        there = {column.field_id: column.name for column in existing}
        owner: dict[int, int] = {}
        for position, (parent, field) in enumerate(wanted):
            id = self._known.get(key_of(parent, field.segment))
            if id in there and (id not in owner or field.name == there[id]):
                owner[id] = position
        owners = set(owner.values())
        for position, (parent, field) in enumerate(wanted):
            if position in owners:
                continue
            aliased = (self._known.get(key_of(parent, alias)) for alias in field.aliases)
            id = next((id for id in aliased if id in there and id not in owner), None)
            if id is not None:
                owner[id] = position
        return {position: id for id, position in owner.items()}

    def _typed(self, path: tuple[str, ...], id: int, current: IcebergType | None, source: SourceType) -> IcebergType:
        """The type of column `id`, which holds `current` and is to hold `source` too."""
        match source, current:
            case SourceStruct(fields), StructType() | None:
                existing = current.fields if current else ()
                return StructType(*self._struct(path, existing, [(id, field) for field in fields]))
            case SourceList(element), ListType() | None:
                element_id = current.element_id if current else self._new_id()
                held = current.element_type if current else None
                return ListType(element_id, self._typed((*path, "element"), element_id, held, element), False)
            case SourceMap(key, value), MapType() | None:
                key_id = current.key_id if current else self._new_id()
                value_id = current.value_id if current else self._new_id()
                if current and current.key_type != key:
                    raise _Refused((*path, "key"), f"is {current.key_type}, but the new schema has {key}")
                held = current.value_type if current else None
                return MapType(key_id, key, value_id, self._typed((*path, "value"), value_id, held, value), False)
            case PrimitiveType(), PrimitiveType():
                widest = _widest(current, source)
                if widest is not None:
                    return widest
            case PrimitiveType(), None:
                return source
        raise _Refused(path, f"is {current}, but the new schema has {_described(source)}")

    def _new_id(self) -> int:
        self.next_id += 1
        return self.next_id - 1


class _Names:
    """Column names of one struct: unique without regard to case, as many engines read them."""

    def __init__(self, taken: dict[str, int], reserved: frozenset[str]) -> None:
        self.taken = taken
        self._reserved = reserved

    def place(self, wish: str, ours: bool, bound: Collection[int]) -> tuple[str, int | None]:
        """A name for a field without a column, and the unbound column of that name, if there is one."""
        for name in self._candidates(wish, ours):
            id = self.taken.get(name.casefold())
            if id is None or id not in bound:
                return name, id
        raise AssertionError("candidates never end")

    def rename(self, id: int, wish: str, ours: bool) -> str:
        return next(n for n in self._candidates(wish, ours) if self.taken.get(n.casefold(), id) == id)

    def _candidates(self, wish: str, ours: bool) -> Iterator[str]:
        clean = re.sub(r"\W", "_", wish) or "_"
        for name in chain([clean], (f"{clean}_{n}" for n in count(2))):
            if ours or name.casefold() not in self._reserved:
                yield name


def _widest(held: PrimitiveType, source: PrimitiveType) -> PrimitiveType | None:
    """The type that holds both without loss, by Iceberg's promotions; None if there is none."""
    match held, source:
        case (IntegerType() | LongType(), IntegerType() | LongType()):
            return held if held == source else LongType()
        case (FloatType() | DoubleType(), FloatType() | DoubleType()):
            return held if held == source else DoubleType()
        case (DecimalType(), DecimalType()) if held.scale == source.scale:
            return DecimalType(max(held.precision, source.precision), held.scale)
    return held if held == source else None


def _described(source: SourceType) -> str:
    match source:
        case SourceStruct():
            return "a record"
        case SourceList():
            return "a list"
        case SourceMap():
            return "a map"
    return str(source)


def _optional(struct: StructType) -> StructType:
    return StructType(
        *(f.model_copy(update={"required": False, "field_type": _relaxed(f.field_type)}) for f in struct.fields)
    )


def _relaxed(type: IcebergType) -> IcebergType:
    match type:
        case StructType():
            return _optional(type)
        case ListType():
            return ListType(type.element_id, _relaxed(type.element_type), False)
        case MapType():
            return MapType(type.key_id, type.key_type, type.value_id, _relaxed(type.value_type), False)
    return type
