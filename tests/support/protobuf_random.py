"""Protobuf files of any shape, as protoc would describe them, and messages of them."""

import random
import struct
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    Edition,
    EnumDescriptorProto,
    FeatureSet,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from streamlake.registry.protobuf.files import default_json_name

F = FieldDescriptorProto
SCALARS = [
    F.TYPE_DOUBLE, F.TYPE_FLOAT, F.TYPE_INT64, F.TYPE_UINT64, F.TYPE_INT32, F.TYPE_FIXED64, F.TYPE_FIXED32, F.TYPE_BOOL,
    F.TYPE_STRING, F.TYPE_BYTES, F.TYPE_UINT32, F.TYPE_SFIXED32, F.TYPE_SFIXED64, F.TYPE_SINT32, F.TYPE_SINT64,
]  # fmt: skip
KEYS = [kind for kind in SCALARS if kind not in (F.TYPE_DOUBLE, F.TYPE_FLOAT, F.TYPE_BYTES)]
WELL_KNOWN = {
    "google/protobuf/any.proto": ["Any"],
    "google/protobuf/duration.proto": ["Duration"],
    "google/protobuf/empty.proto": ["Empty"],
    "google/protobuf/field_mask.proto": ["FieldMask"],
    "google/protobuf/struct.proto": ["Struct", "Value", "ListValue"],
    "google/protobuf/timestamp.proto": ["Timestamp"],
    "google/protobuf/wrappers.proto": ["BoolValue", "BytesValue", "DoubleValue", "FloatValue", "Int32Value",
                                       "Int64Value", "StringValue", "UInt32Value", "UInt64Value"],
}  # fmt: skip
DEFAULTS = {
    F.TYPE_DOUBLE: ["1.5", "inf", "-inf", "nan", "-0"],
    F.TYPE_FLOAT: ["0.25", "inf"],
    F.TYPE_BOOL: ["true", "false"],
    F.TYPE_STRING: ['a"b\n\\', "", "ünï", "'"],
    F.TYPE_BYTES: ["\\000\\377x", "", '\\"'],
}


class RandomProtobuf:
    def __init__(self, source: random.Random) -> None:
        self._random = source
        self._names = 0
        self._known: list[str] = []  # full names of messages that are whole
        self._enums: dict[str, EnumDescriptorProto] = {}
        self._imports: dict[str, None] = {}

    def file(self) -> FileDescriptorProto:
        r = self._random
        self._syntax = r.choice(["proto2", "proto3", "proto3", "editions"])
        file = FileDescriptorProto(package=r.choice([None, "p", "a.b_c"]))
        if self._syntax != "proto2":
            file.syntax = self._syntax
        if self._syntax == "editions":
            file.edition = Edition.EDITION_2023
            if r.random() < 0.3:
                file.options.features.field_presence = FeatureSet.IMPLICIT
        self._implicit = file.options.features.field_presence == FeatureSet.IMPLICIT
        scope = f".{file.package}" if file.package else ""
        for _ in range(r.randint(0, 2)):
            self._enum(file.enum_type.add(), scope)
        for _ in range(r.randint(1, 3)):
            self._message(file.message_type.add(), scope, 0)
        file.dependency.extend(self._imports)
        return file

    def _name(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}{self._random.choice(['', '_x', '_Y', '__z'])}{self._names}"

    def _enum(self, enum: EnumDescriptorProto, scope: str) -> None:
        r = self._random
        enum.name = self._name("E")
        numbers = [0, *r.sample([1, 2, 5, -1, 2**31 - 1, -(2**31), 128, 300], r.randint(0, 4))]
        for number in numbers:
            enum.value.add(name=self._name("V"), number=number)
        if r.random() < 0.2:
            enum.options.allow_alias = True
            enum.value.add(name=self._name("V"), number=numbers[-1])
        if r.random() < 0.2:
            enum.reserved_range.add(start=1000, end=r.choice([1000, 1005]))
            enum.reserved_name.append("OLD")
        self._enums[f"{scope}.{enum.name}"] = enum

    def _message(self, message: DescriptorProto, scope: str, level: int, name: str = "") -> None:
        r = self._random
        message.name = name or self._name("M")
        inside = f"{scope}.{message.name}"
        numbers = iter(r.sample([*range(1, 40), 127, 2047, 2048, 18_999, 20_000, 2**29 - 1], 30))
        for _ in range(r.randint(0, 7 if level else 10)):
            kind = r.random()
            if kind < 0.12 and level < 2:
                self._message(message.nested_type.add(), inside, level + 1)
            elif kind < 0.18:
                self._enum(message.enum_type.add(), inside)
            elif kind < 0.28:
                self._map(message, inside, next(numbers))
            elif kind < 0.34 and self._syntax == "proto2" and level < 2:
                self._group(message, inside, next(numbers), level)
            elif kind < 0.44:
                self._oneof(message, numbers)
            else:
                self._field(message.field.add(), next(numbers))
        self._optional_oneofs(message)
        if r.random() < 0.1:
            message.reserved_range.add(start=40, end=r.choice([41, 44]))
            message.reserved_name.extend(["gone", "lost"])
        if self._syntax != "proto3" and r.random() < 0.1:
            message.extension_range.add(start=100, end=r.choice([101, 120]))
        if r.random() < 0.1:
            message.options.deprecated = True
        self._known.append(inside)

    def _optional_oneofs(self, message: DescriptorProto) -> None:
        """protoc puts those that nobody wrote last."""
        for field in message.field:
            if field.proto3_optional:
                field.oneof_index = len(message.oneof_decl)
                message.oneof_decl.add(name=f"_{field.name}")

    def _oneof(self, message: DescriptorProto, numbers: Iterator[int]) -> None:
        index = len(message.oneof_decl)
        message.oneof_decl.add(name=self._name("o"))
        for _ in range(self._random.randint(1, 4)):
            self._field(message.field.add(), next(numbers), oneof=index)

    def _map(self, message: DescriptorProto, scope: str, number: int) -> None:
        name = self._name("m")
        camel = default_json_name(f"_{name}")
        entry = message.nested_type.add(name=f"{camel}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=F.LABEL_OPTIONAL, type=self._random.choice(KEYS))
        self._type(entry.field.add(name="value", number=2, label=F.LABEL_OPTIONAL))
        message.field.add(
            name=name, number=number, label=F.LABEL_REPEATED, type=F.TYPE_MESSAGE, type_name=f"{scope}.{entry.name}"
        )

    def _group(self, message: DescriptorProto, scope: str, number: int, level: int) -> None:
        name = self._name("G")
        self._message(message.nested_type.add(), scope, level + 1, name)
        label = self._random.choice([F.LABEL_OPTIONAL, F.LABEL_REPEATED])
        message.field.add(name=name.lower(), number=number, label=label, type=F.TYPE_GROUP, type_name=f"{scope}.{name}")

    def _field(self, field: FieldDescriptorProto, number: int, oneof: int | None = None) -> None:
        r = self._random
        field.name, field.number, field.label = self._name("f"), number, F.LABEL_OPTIONAL
        self._type(field)
        if oneof is not None:
            field.oneof_index = oneof
        elif r.random() < 0.25:
            field.label = F.LABEL_REPEATED
            packable = field.type in SCALARS and field.type not in (F.TYPE_STRING, F.TYPE_BYTES)
            if packable and self._syntax != "editions" and r.random() < 0.3:
                field.options.packed = r.random() < 0.5
        elif self._syntax == "proto2" and r.random() < 0.1:
            field.label = F.LABEL_REQUIRED
        elif self._syntax == "proto3" and r.random() < 0.3:
            field.proto3_optional = True
        self._dress(field)

    def _dress(self, field: FieldDescriptorProto) -> None:
        r = self._random
        if self._syntax == "proto2" and field.label != F.LABEL_REPEATED and field.type in SCALARS and r.random() < 0.3:
            signed = field.type not in (F.TYPE_UINT32, F.TYPE_UINT64, F.TYPE_FIXED32, F.TYPE_FIXED64)
            field.default_value = r.choice(DEFAULTS.get(field.type, ["0", "7", "-7" if signed else "8"]))
        if r.random() < 0.1:
            field.json_name = f"json{self._names}"
        if r.random() < 0.1:
            field.options.deprecated = True

    def _type(self, field: FieldDescriptorProto) -> None:
        r = self._random
        kind = r.random()
        if kind < 0.1 and self._known:
            field.type, field.type_name = F.TYPE_MESSAGE, r.choice(self._known)
        elif kind < 0.2 and self._enums:
            field.type, field.type_name = F.TYPE_ENUM, r.choice(list(self._enums))
        elif kind < 0.3:
            path = r.choice(list(WELL_KNOWN))
            self._imports[path] = None
            field.type, field.type_name = F.TYPE_MESSAGE, f".google.protobuf.{r.choice(WELL_KNOWN[path])}"
        else:
            field.type = r.choice(SCALARS)


TEXTS = ["", "a", "ünï ☃", "x" * 300, "\0"]
C = FieldDescriptor


def fill(message: Any, r: random.Random, level: int = 0) -> Any:
    """Sets fields of a message at random."""
    for field in message.DESCRIPTOR.fields:
        if r.random() < (0.3 if level else 0.15) and not field.is_required:
            continue
        if field.message_type and field.message_type.GetOptions().map_entry:
            _fill_map(getattr(message, field.name), field.message_type, r, level)
        elif field.is_repeated:
            for _ in range(r.choice([0, 1, 2, 20]) if level < 2 else 1):
                if field.message_type:
                    fill(getattr(message, field.name).add(), r, level + 1)
                else:
                    getattr(message, field.name).append(scalar(field, r))
        elif field.message_type:
            if level < 6 or field.is_required:
                getattr(message, field.name).SetInParent()
                fill(getattr(message, field.name), r, level + 1)
        else:
            setattr(message, field.name, scalar(field, r))
    return message


def _fill_map(values: Any, entry: Any, r: random.Random, level: int) -> None:
    key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
    for _ in range(r.choice([0, 1, 3, 12]) if level < 2 else 1):
        if value.message_type:
            fill(values[scalar(key, r)], r, level + 1)
        else:
            values[scalar(key, r)] = scalar(value, r)


def scalar(field: Any, r: random.Random) -> Any:
    match field.cpp_type:
        case C.CPPTYPE_BOOL:
            return r.random() < 0.5
        case C.CPPTYPE_DOUBLE:
            return r.choice([0.0, -0.0, 1.5, float("inf"), float("nan"), r.random()])
        case C.CPPTYPE_FLOAT:
            return struct.unpack("f", struct.pack("f", r.choice([0.0, 0.25, float("-inf"), r.random()])))[0]
        case C.CPPTYPE_STRING:
            return r.choice(TEXTS) if field.type == C.TYPE_STRING else r.randbytes(r.choice([0, 1, 5, 200]))
        case C.CPPTYPE_ENUM:
            closed = field.enum_type.is_closed
            known = [value.number for value in field.enum_type.values]
            return r.choice(known if closed else [*known, 77, -(2**31)])
    bits = 32 if field.cpp_type in (C.CPPTYPE_INT32, C.CPPTYPE_UINT32) else 64
    if field.cpp_type in (C.CPPTYPE_UINT32, C.CPPTYPE_UINT64):
        return r.choice([0, 1, 127, 128, 2**bits - 1, r.getrandbits(bits)])
    return r.choice([0, 1, -1, 127, -128, 2 ** (bits - 1) - 1, -(2 ** (bits - 1)), r.getrandbits(bits - 1)])
