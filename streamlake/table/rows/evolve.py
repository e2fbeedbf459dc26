"""New source schemas → the table's next schema, as data: updates and requirements for one catalog commit.

Pure. Every source schema of a round is merged into the table's schema, or refused as a whole; a refused one changes
nothing, its rows become dead letters, and the table goes on. The rules:

- a field is bound to its column by the field map, then by an alias (the column is renamed, its id stays), then to an
  unbound column of that name, else to a new optional column with the next id;
- a field that is known by a number (Protobuf) renames its column if its schema is newer than the one that named it, and
  of the same message: so old writers, and messages of other types, do not rename it back;
- a missing field keeps its column, null from now on; required columns become optional (any record may be a tombstone);
- int → long, float → double and decimal of more digits widen, in either direction;
- a union that comes to the column of one of its types keeps that column for this type, and its other types get columns
  beside it, also in lists and maps (unions.py); a plain value that comes to the column of a union goes to the branch
  of its type;
- any other change is incompatible;
- names are unique without regard to case, free of dots, and not those of partition fields: the later field gets `_2`,
  `_3`, ….

See the Iceberg specification, "Schema Evolution".
"""

import dataclasses
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
    SourceUnion,
)
from streamlake.table.rows import field_map
from streamlake.table.rows.field_map import PLAIN, FieldMap, Namer, Namers, branch_segment, key_of
from streamlake.table.rows.hive_types import type_chars
from streamlake.table.rows.unions import AVRO_NAMES, branch_name, held_by, union_in, with_branch

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
    namers: Namers = dataclasses.field(default_factory=dict)

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
    namers: Namers
    bindings: tuple[FieldMap | Incompatible, ...]
    updates: tuple[TableUpdate, ...] = ()
    requirements: tuple[TableRequirement, ...] = ()


def evolve(
    table: CurrentTable | None,
    sources: Sequence[Sequence[SourceColumn]],
    type_chars_max: int | None = None,
    stored: CurrentTable | None = None,
) -> Evolution:
    """`type_chars_max`: the catalog's limit for a column's type as text. `stored`: the table as the catalog has it, if
    `table` knows more. Raises Invalid if the table itself cannot be written to."""
    if table and table.schema.identifier_field_ids:
        raise Invalid("the table has identifier fields, and rows may lack any field: drop them to append to this table")
    columns: Columns = _optional(table.schema.as_struct()).fields if table else ()
    fields = _known(table)
    namers = dict(table.namers) if table else {}
    next_id = table.last_column_id + 1 if table else 1
    reserved = RESERVED_NAMES | table.partition_names if table else RESERVED_NAMES
    bindings: list[FieldMap | Incompatible] = []
    for source in sources:
        merge = _Merge(fields, namers, next_id, reserved)
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
        namers |= merge.named
        bindings.append(merge.binding)
    updates, requirements, schema = _changes(stored or table, columns, fields, namers)
    return Evolution(schema, fields, namers, tuple(bindings), updates, requirements)


def renumbered(made: Evolution, schema: Schema) -> tuple[FieldMap, Namers]:
    """What `made` says of a new table, by the ids that its catalog has given to the columns. Without it fields that
    were renamed before the table was there would be bound by their first names again."""
    ids: dict[int, int] = {}
    for id in made.schema.field_ids:
        name = made.schema.find_column_name(id)
        found = schema.find_field(name) if name in schema.column_names else None
        if found is not None:
            ids[id] = found.field_id
    fields: dict[str, int] = {}
    for key, id in made.fields.items():
        parent, _, segment = key.partition("/")
        above = ids.get(int(parent)) if parent.isdigit() else parent
        if id in ids and above is not None:
            fields[key_of(above, segment)] = ids[id]
    return fields, {ids[id]: namer for id, namer in made.namers.items() if id in ids}


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
    table: CurrentTable | None, columns: Columns, fields: FieldMap, namers: Namers
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
    if (fields, namers) != (table.fields, table.namers):
        updates.append(SetPropertiesUpdate(updates={field_map.PROPERTY: field_map.encode(fields, namers)}))
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

    def __init__(self, known: FieldMap, namers: Namers, next_id: int, reserved: frozenset[str]) -> None:
        self.binding: dict[str, int] = {}
        self.named: dict[int, Namer] = {}  # by this source
        self.next_id = next_id
        self._known = known
        self._namers = namers
        self._schema_id = 0  # of the column that is looked at
        self._schema_ids: dict[str, int] = {}  # of the columns at the top
        self._bound = set(known.values())
        self._beside: dict[str, str] = {}  # of a union's branch: the key by which all names of the union find it
        self._reserved = reserved

    def columns(self, existing: Columns, source: Sequence[SourceColumn]) -> Columns:
        ours = {column.field.name.casefold() for column in source if column.root == ROW}
        self._schema_ids = {key_of(c.root, c.field.segment): c.schema_id for c in source}
        return self._struct((), existing, [(c.root, c.field) for c in source], self._reserved | ours)

    def _struct(
        self, path: tuple[str, ...], existing: Columns, wanted: Wanted, reserved: frozenset[str] = frozenset()
    ) -> Columns:
        columns = {column.field_id: column for column in existing}
        wanted = [part for parent, field in wanted for part in self._parts(columns, parent, field)]
        claims = self._claims(existing, wanted)
        names = _Names({column.name.casefold(): column.field_id for column in existing}, reserved)
        bound = self._bound.union(claims.values())
        places: list[tuple[int, str]] = []
        # All ids of a level before those below it: the order in which catalogs number the columns of a new table.
        for position, (parent, field) in enumerate(wanted):
            id = claims.get(position)
            key = key_of(parent, field.segment)
            namer = Namer(self._schema_ids.get(key, self._schema_id), field.message)
            if id is None:
                name, id = names.place(field.name, parent == ROW, bound)
                if id is None:
                    id = self._new_id()
                else:
                    name = columns[id].name  # in the spelling of the table
                self._name(id, namer)
            elif key in self._known:
                name = columns[id].name
                if self._renames(id, namer):
                    name = names.rename(id, field.name, parent == ROW)
                    if name != columns[id].name:
                        self._name(id, namer)
                elif id not in self._namers and name == field.name:  # it was made before names were accounted for
                    self._name(id, namer)
            else:  # found by an alias
                name = names.rename(id, field.name, parent == ROW)
            names.taken[name.casefold()] = id
            bound.add(id)
            self.binding[key] = id
            if key in self._beside:
                self.binding[self._beside[key]] = id
            places.append((id, name))
        above = self._schema_id
        for (id, name), (parent, field) in zip(places, wanted, strict=True):
            current = columns.get(id)
            self._schema_id = self._schema_ids.get(key_of(parent, field.segment), above)
            type = self._typed((*path, name), id, current.field_type if current else None, field.type)
            columns[id] = (
                current.model_copy(update={"name": name, "field_type": type})
                if current
                else NestedField(id, name, type, required=False, doc=field.doc)
            )
        self._schema_id = above
        return tuple(columns.values())

    def _name(self, id: int, namer: Namer) -> None:
        if namer.schema_id and namer.message:
            self.named[id] = namer

    def _renames(self, id: int, namer: Namer) -> bool:
        """Whether a field that is known by its number may change the name of its column."""
        before = self._namers.get(id)
        return before is not None and before.message == namer.message and before.schema_id < namer.schema_id

    def _parts(
        self, columns: dict[int, NestedField], parent: str | int, field: SourceField
    ) -> list[tuple[str | int, SourceField]]:
        """The field; or its branches, if a union is in it and its column was made for one of them."""
        union = union_in(field.type)
        if union is None:
            return [(parent, field)]
        former = (field.segment, *field.aliases)
        id = next((id for s in former if (id := self._known.get(key_of(parent, s))) in columns), None)
        home = self._home(columns[id], parent, field, union) if id is not None else None
        if home is None:
            return [(parent, field)]
        assert id is not None, "the branch of a column"
        # Under this name the column is known: its branches are where they are, and no name is to be changed.
        settled = self._known.get(key_of(parent, field.segment)) == id
        parts: list[tuple[str | int, SourceField]] = []
        for branch in union.fields:
            is_home, name = branch is home, branch_name(field.type, branch.segment)
            segment = branch_segment(field.segment, name)
            aliases = tuple(branch_segment(alias, name) for alias in field.aliases)
            beside = key_of(id, branch_segment("", name))  # whatever the field is called
            there = id if is_home else self._known.get(beside)
            if settled and there is not None:
                self._known = {**self._known, key_of(parent, segment): there}
            type = with_branch(field.type, branch.type)
            if is_home:
                part = SourceField(segment, field.name, type, (*field.aliases, *aliases), field.doc)
            else:
                part = SourceField(segment, f"{field.name}_{branch.name}", type, aliases, field.doc)
                self._beside[key_of(parent, segment)] = beside
            parts.append((parent, part))
        return parts

    def _home(
        self, column: NestedField, parent: str | int, field: SourceField, union: SourceUnion
    ) -> SourceField | None:
        """The branch of a union whose values its column holds; None if the column is the union's own, or of no
        branch."""
        branches = union.fields
        for branch in branches:
            name = branch_name(field.type, branch.segment)
            keys = (branch_segment(segment, name) for segment in (field.segment, *field.aliases))
            if any(self._known.get(key_of(parent, key)) == column.field_id for key in keys):
                return branch
        found = held_by(field.type, column.field_id, column.field_type)
        if found is None:
            return None
        id, held = found
        match held:
            case StructType():
                if any(key_of(id, branch.segment) in self._known for branch in branches):
                    return None
                fitting = [b for b in branches if isinstance(b.type, SourceStruct)]
            case ListType():
                fitting = [b for b in branches if isinstance(b.type, SourceList)]
            case MapType():
                fitting = [b for b in branches if isinstance(b.type, SourceMap)]
            case PrimitiveType():
                fitting = [b for b in branches if isinstance(b.type, PrimitiveType) and _widest(held, b.type)]
                fitting = [b for b in fitting if b.type == held] or fitting
        return fitting[0] if len(fitting) == 1 else None

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
            case PrimitiveType(), StructType() if (branch := self._branch(id, current, source)) is not None:
                self.binding[key_of(id, PLAIN)] = branch.field_id
                return StructType(*(branch if f.field_id == branch.field_id else f for f in current.fields))
        raise _Refused(path, f"is {current}, but the new schema has {_described(source)}")

    def _branch(self, id: int, union: StructType, source: PrimitiveType) -> NestedField | None:
        """The branch of a union's column that takes plain values, as wide as they need it; None if there is none, or it
        is the column of a record."""
        for name in AVRO_NAMES.get(type(source), ()):
            for field in union.fields:
                held, bound = field.field_type, self._known.get(key_of(id, name)) == field.field_id
                widest = _widest(held, source) if bound and isinstance(held, PrimitiveType) else None
                if widest is not None:
                    return field.model_copy(update={"field_type": widest})
        return None

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
