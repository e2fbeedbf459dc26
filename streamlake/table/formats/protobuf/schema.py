"""A message of a Protobuf file → how to decode it, its fields in Iceberg's types, and how to make Arrow of them.

Values are decoded by upb (google.protobuf), with a descriptor that is rewritten to one with the same bytes on the wire:
every field knows whether it was there, text is bytes (Arrow checks UTF-8 a column at a time), enums are ints (unknown
numbers stay), maps are lists of entries in the order of the wire, and messages that become JSON know no field, so that
they keep their bytes. The native kernel reads by a plan of the same.

A field's identity is its number: the segment `#7`. A field with explicit presence, of a oneof, or a message, is null if
it is not there; others have their default. Refused, with Invalid: messages that contain themselves, lists and maps of
empty messages, and messages too wide or too deep. See docs/guides/types.md.
"""

from dataclasses import dataclass
from typing import Any

from google.protobuf import any_pb2, struct_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    PrimitiveType,
    StringType,
    TimestamptzType,
)

from streamlake.core.errors import SHOWN_CHARS_MAX, Invalid, NotFound
from streamlake.registry.avro.types import LEVELS_MAX, TYPES_MAX
from streamlake.registry.protobuf.files import WELL_KNOWN
from streamlake.table.formats.protobuf import columns
from streamlake.table.formats.protobuf.native import Op, Plan, PlanField, Wire, compile_plan
from streamlake.table.formats.source_schema import (
    SourceField,
    SourceList,
    SourceMap,
    SourceStruct,
    SourceType,
    arrow_type,
)
from streamlake.table.formats.twin import Build, Codec, Decode, Undecodable

_F = FieldDescriptor
_OPAQUE = "Opaque"
_UINT64 = DecimalType(20, 0)
TIMESTAMP = "google.protobuf.Timestamp"
JSON_TYPES = {
    "google.protobuf.Struct": struct_pb2.Struct,
    "google.protobuf.Value": struct_pb2.Value,
    "google.protobuf.ListValue": struct_pb2.ListValue,
    "google.protobuf.Any": any_pb2.Any,
}
WRAPPERS = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64")
)


@dataclass(frozen=True, slots=True)
class _Node:
    """`type` and `build` are None for a message without fields: it makes no column."""

    type: SourceType | None
    build: Build | None
    plan: Plan
    levels: int = 1


def _leaf(type: PrimitiveType, op: Op, build: Build | None = None) -> _Node:
    return _Node(type, build or columns.plain(arrow_type(type)), Plan(op, arrow_type(type)))


_INTEGER, _LONG, _UNSIGNED = IntegerType(), LongType(), columns.unsigned(arrow_type(_UINT64))

# How one value is written, and what it is in a table. Of the types with a fixed size only the wire differs.
_SCALARS: dict[int, tuple[Wire, _Node]] = {
    _F.TYPE_BOOL: (Wire.VARINT, _leaf(BooleanType(), Op.BOOL)),
    _F.TYPE_INT32: (Wire.VARINT, _leaf(_INTEGER, Op.INT32)),
    _F.TYPE_SINT32: (Wire.VARINT, _leaf(_INTEGER, Op.SINT32)),
    _F.TYPE_SFIXED32: (Wire.FOUR, _leaf(_INTEGER, Op.INT32)),
    _F.TYPE_UINT32: (Wire.VARINT, _leaf(_LONG, Op.UINT32)),
    _F.TYPE_FIXED32: (Wire.FOUR, _leaf(_LONG, Op.UINT32)),
    _F.TYPE_INT64: (Wire.VARINT, _leaf(_LONG, Op.INT64)),
    _F.TYPE_SINT64: (Wire.VARINT, _leaf(_LONG, Op.SINT64)),
    _F.TYPE_SFIXED64: (Wire.EIGHT, _leaf(_LONG, Op.INT64)),
    _F.TYPE_UINT64: (Wire.VARINT, _leaf(_UINT64, Op.UINT64, _UNSIGNED)),
    _F.TYPE_FIXED64: (Wire.EIGHT, _leaf(_UINT64, Op.UINT64, _UNSIGNED)),
    _F.TYPE_FLOAT: (Wire.FOUR, _leaf(FloatType(), Op.FLOAT)),
    _F.TYPE_DOUBLE: (Wire.EIGHT, _leaf(DoubleType(), Op.DOUBLE)),
    _F.TYPE_BYTES: (Wire.SIZED, _leaf(BinaryType(), Op.BYTES)),
    _F.TYPE_STRING: (Wire.SIZED, _leaf(StringType(), Op.TEXT, columns.text)),
}


def _wire(field: FieldDescriptor) -> Wire:
    """Of one value of a field."""
    if field.type == _F.TYPE_ENUM:
        return Wire.VARINT
    if field.message_type is not None:
        return Wire.GROUP if field.type == _F.TYPE_GROUP else Wire.SIZED
    return _SCALARS[field.type][0]


def compile_message(message: Descriptor, pool: DescriptorPool) -> Codec:
    """Raises Invalid, saying why values of this message cannot go to a table. `pool` has the types that an Any may be
    of."""
    node = _Compiler(pool).message(message)
    if node.levels > LEVELS_MAX:
        raise Invalid(f"message {message.full_name} is nested more than {LEVELS_MAX} levels deep")
    return Codec(node.type, _decoder(message), node.build, compile_plan(node.plan))


def _decoder(message: Descriptor) -> Decode:
    kind = GetMessageClass(_Rewritten(message).descriptor)

    def decode(data: bytes) -> Any:
        try:
            value = kind.FromString(data)
        except DecodeError:
            raise Undecodable(f"the bytes are not a {message.full_name}") from None
        if not value.IsInitialized():
            missing = ", ".join(value.FindInitializationErrors()[:5])
            raise Undecodable(f"a {message.full_name} without the required {missing}")
        return value

    return decode


class _Rewritten:
    """The descriptor that values are decoded with: `f<number>` are its fields."""

    def __init__(self, message: Descriptor) -> None:
        self._file = FileDescriptorProto(name="rewritten", syntax="proto2")
        self._file.message_type.add(name=_OPAQUE)
        self._names: dict[str, str] = {}
        name = self._message(message)
        pool = DescriptorPool()
        pool.Add(self._file)
        self.descriptor = pool.FindMessageTypeByName(name)

    def _message(self, message: Descriptor) -> str:
        """Its name. Recursion ends: _Compiler was here."""
        if _well_known(message) in JSON_TYPES:
            return _OPAQUE
        if message.full_name in self._names:
            return self._names[message.full_name]
        name = self._names[message.full_name] = f"M{len(self._names)}"
        rewritten = self._file.message_type.add(name=name)
        oneofs = {oneof.name: n for n, oneof in enumerate(message.oneofs)}
        for oneof in message.oneofs:
            rewritten.oneof_decl.add(name=oneof.name)
        for field in message.fields:
            label = FieldDescriptorProto.LABEL_REQUIRED if field.is_required else FieldDescriptorProto.LABEL_OPTIONAL
            label = FieldDescriptorProto.LABEL_REPEATED if field.is_repeated else label
            made = rewritten.field.add(name=f"f{field.number}", number=field.number, label=label, type=field.type)
            if field.containing_oneof is not None:
                made.oneof_index = oneofs[field.containing_oneof.name]
            if field.type == _F.TYPE_STRING:
                made.type = FieldDescriptorProto.TYPE_BYTES
            elif field.type == _F.TYPE_ENUM:
                made.type = FieldDescriptorProto.TYPE_INT32  # whose 0 is the default of the enums that need one
            elif field.message_type is not None:
                made.type_name = f".{self._message(field.message_type)}"
        return name


class _Compiler:
    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool
        self._open: list[str] = []  # the messages around this one, to see recursion
        self._types = 0

    def message(self, message: Descriptor) -> _Node:
        known = _well_known(message)
        if known == TIMESTAMP:
            return self._leaf(_leaf(TimestamptzType(), Op.TIMESTAMP, columns.timestamps))
        if known in WRAPPERS:
            value = message.fields_by_name["value"]
            inner = self._single(value)
            assert inner.build is not None
            plan = Plan(Op.WRAPPER, inner.plan.type, inner.plan, _wire(value))
            return _Node(inner.type, columns.wrappers(inner.build), plan)
        if known in JSON_TYPES:
            return self._leaf(_leaf(StringType(), Op.OPAQUE, columns.json_texts(JSON_TYPES[known], self._pool)))
        return self._struct(message)

    def _struct(self, message: Descriptor) -> _Node:
        name = message.full_name
        if name in self._open:
            raise Invalid(f"message {name} contains itself: a table cannot have recursive types")
        self._open.append(name)
        self._count()
        fields, names, builds, plans, levels = [], [], [], [], 0
        oneofs = {oneof.name: n for n, oneof in enumerate(message.oneofs)}
        for field in message.fields:
            node = self._field(field)
            oneof = -1 if field.containing_oneof is None else oneofs[field.containing_oneof.name]
            plans.append(PlanField(field.number, _wire(field), node.plan, field.has_presence, field.is_required, oneof))
            if node.type is not None and node.build is not None:
                fields.append(SourceField(f"#{field.number}", field.name, node.type, message=name))
                names.append((f"f{field.number}", field.has_presence))
                builds.append(node.build)
                levels = max(levels, node.levels)
        self._open.pop()
        if not fields:
            return _Node(None, None, Plan(Op.MESSAGE, fields=tuple(plans)))
        type = SourceStruct(tuple(fields))
        plan = Plan(Op.MESSAGE, arrow_type(type), fields=tuple(plans))
        return _Node(type, columns.structs(plan.type, names, builds), plan, levels + 1)

    def _field(self, field: FieldDescriptor) -> _Node:
        if not field.is_repeated:
            return self._single(field)
        self._count()
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return self._map(field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"])
        node = self._single(field)
        if node.type is None or node.build is None:
            raise Invalid(f"{field.full_name}: a list of messages without fields has no column type")
        type = SourceList(node.type)
        plan = Plan(Op.LIST, arrow_type(type), node.plan, _wire(field))
        return _Node(type, columns.lists(plan.type, node.build), plan, node.levels + 2)

    def _map(self, key: FieldDescriptor, value: FieldDescriptor) -> _Node:
        of_key, node = self._single(key), self._single(value)
        if node.type is None or node.build is None:
            raise Invalid(f"{value.full_name}: a map to messages without fields has no column type")
        assert isinstance(of_key.type, PrimitiveType) and of_key.build is not None
        type = SourceMap(of_key.type, node.type)
        # An entry that lacks one of them has its default.
        fields = (PlanField(1, _wire(key), of_key.plan), PlanField(2, _wire(value), node.plan))
        plan = Plan(Op.MAP, arrow_type(type), Plan(Op.ENTRY, arrow_type(type), fields=fields))
        return _Node(type, columns.maps(plan.type, of_key.build, node.build), plan, node.levels + 2)

    def _single(self, field: FieldDescriptor) -> _Node:
        """Of one value of a field."""
        if field.message_type is not None:
            return self.message(field.message_type)
        if field.type == _F.TYPE_ENUM:
            names: dict[int, str] = {}
            for value in field.enum_type.values:
                names.setdefault(value.number, value.name)
            self._count()
            plan = Plan(Op.ENUM, arrow_type(StringType()), names=columns.enum_names(names))
            return _Node(StringType(), columns.enums(names), plan)
        return self._leaf(_SCALARS[field.type][1])

    def _leaf(self, leaf: _Node) -> _Node:
        self._count()
        return leaf

    def _count(self) -> None:
        self._types += 1
        if self._types > TYPES_MAX:
            raise Invalid(f"the message has more than {TYPES_MAX:,} types when its names are written out")


def _well_known(message: Descriptor) -> str:
    """The name of one of Google's types, "" for all others."""
    return message.full_name if message.file.name in WELL_KNOWN else ""


def message_named(file: Any, name: str) -> tuple[int, ...]:
    """The path of a message of a file by its full name; of the first if there is no name. Raises NotFound."""
    if not name:
        return (0,)
    prefix = f"{file.package}." if file.package else ""
    path: list[int] = []
    messages = list(file.message_types_by_name.values())
    for part in name.removeprefix(prefix).split("."):
        found = next((index for index, message in enumerate(messages) if message.name == part), None)
        if found is None:
            known = ", ".join(message.full_name for message in file.message_types_by_name.values())
            raise NotFound(f"there is no message {name[:SHOWN_CHARS_MAX]} in it, but {known[:SHOWN_CHARS_MAX]}")
        path.append(found)
        messages = list(messages[found].nested_types)
    return tuple(path)


def message_at(file: Any, path: tuple[int, ...]) -> Descriptor:
    """The message of a file that the wire format numbers. Raises NotFound."""
    messages = list(file.message_types_by_name.values())
    found = None
    for index in path:
        if index >= len(messages):
            where = "the schema" if found is None else f"message {found.full_name}"
            raise NotFound(f"message index {index}: {where} has {len(messages)} messages")
        found = messages[index]
        messages = list(found.nested_types)
    if found is None or found.GetOptions().map_entry:
        raise NotFound("the message index names the entry of a map")
    return found
