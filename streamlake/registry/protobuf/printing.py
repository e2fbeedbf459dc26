"""A FileDescriptorProto → the text of a .proto file that means the same.

For clients that register descriptors (confluent-kafka for Python does) while others read text; and as what equal texts
have in common. Fields and nested types keep their order: the wire format numbers messages by it. `normalize` also sorts
imports, options, what is reserved, and fields by number, where this does not renumber messages.

The grammar: https://protobuf.dev/reference/protobuf/proto3-spec/, proto2-spec and edition-2023-spec.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    Edition,
    EnumDescriptorProto,
    EnumValueDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    OneofDescriptorProto,
    ServiceDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.text_encoding import CEscape

from streamlake.registry.protobuf.files import default_json_name

FIELD_NUMBER_MAX = 2**29 - 1
ENUM_NUMBER_MAX = 2**31 - 1

_INTEGERS = ("int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "sfixed32", "sfixed64")
_SCALARS = {
    getattr(FieldDescriptorProto, f"TYPE_{name.upper()}"): name
    for name in (*_INTEGERS, "double", "float", "bool", "string", "bytes")
}


def proto_text(file: FileDescriptorProto, pool: DescriptorPool, normalize: bool = False) -> str:
    """`pool` has the options that the file uses. The file must be sound (protoc or a pool has taken it)."""
    return "\n".join(_Printer(file, pool, normalize).lines()) + "\n"


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


def _block(head: str, lines: Iterable[str]) -> Iterator[str]:
    yield f"{head} {{"
    yield from _indented(lines)
    yield "}"


def _quoted(data: bytes) -> str:
    return f'"{CEscape(data, as_utf8=False)}"'


class _Printer:
    def __init__(self, file: FileDescriptorProto, pool: DescriptorPool, normalize: bool) -> None:
        self._file = file
        self._pool = pool
        self._normalize = normalize
        self._proto3 = file.syntax == "proto3"
        self._proto2 = file.syntax in ("", "proto2")

    def lines(self) -> Iterator[str]:
        file = self._file
        if file.syntax == "editions":
            yield f'edition = "{Edition.Name(file.edition).removeprefix("EDITION_")}";'
        else:
            yield f'syntax = "{file.syntax or "proto2"}";'
        if file.package:
            yield f"package {file.package};"
        yield from self._imports()
        yield from self._option_lines(file.options, "FileOptions")
        nested = _Nested(file.message_type, file.extension, file.package)
        yield from self._extensions(file.extension, nested, file.package)
        yield from self._messages(nested.rest(), file.package)
        for enum in file.enum_type:
            yield from self._enum(enum)
        for service in file.service:
            yield from self._service(service)

    def _imports(self) -> list[str]:
        file = self._file
        kinds = dict.fromkeys(file.public_dependency, "public ") | dict.fromkeys(file.weak_dependency, "weak ")
        found = [f"import {kinds.get(n, '')}{_quoted(name.encode())};" for n, name in enumerate(file.dependency)]
        return sorted(found) if self._normalize else found

    # --- messages

    def _messages(self, messages: Iterable[DescriptorProto], scope: str) -> Iterator[str]:
        for message in messages:
            yield from _block(f"message {message.name}", self._body(message, _inside(scope, message.name)))

    def _body(self, message: DescriptorProto, scope: str) -> Iterator[str]:
        yield from self._option_lines(message.options, "MessageOptions")
        nested = _Nested(message.nested_type, [*message.field, *message.extension], scope)
        for field in self._ordered(message, nested):
            yield from self._field_or_oneof(field, message, nested, scope)
        yield from self._extensions(message.extension, nested, scope)
        yield from self._messages(nested.rest(), scope)
        for enum in message.enum_type:
            yield from self._enum(enum)
        for extensions in message.extension_range:
            options = self._options(extensions.options, "ExtensionRangeOptions")
            yield f"extensions {_range(extensions.start, extensions.end - 1, FIELD_NUMBER_MAX)}{_bracketed(options)};"
        ranges = [(reserved.start, reserved.end - 1) for reserved in message.reserved_range]
        yield from self._reserved(ranges, message.reserved_name, FIELD_NUMBER_MAX)

    def _ordered(self, message: DescriptorProto, nested: "_Nested") -> Sequence[FieldDescriptorProto]:
        """Fields, of a oneof only the first, which stands for it."""
        fields = list(message.field)
        if self._normalize and not nested.numbered_by_fields:
            fields.sort(key=lambda field: field.number)
        seen: set[int] = set()
        found = []
        for field in fields:
            if _in_oneof(field):
                if field.oneof_index in seen:
                    continue
                seen.add(field.oneof_index)
            found.append(field)
        return found

    def _field_or_oneof(
        self, field: FieldDescriptorProto, message: DescriptorProto, nested: "_Nested", scope: str
    ) -> Iterator[str]:
        if not _in_oneof(field):
            yield from self._messages(nested.before(field), scope)
            yield from self._field(field, nested, scope)
            return
        oneof = message.oneof_decl[field.oneof_index]
        members = [f for f in message.field if _in_oneof(f) and f.oneof_index == field.oneof_index]
        if self._normalize and not nested.numbered_by_fields:
            members.sort(key=lambda member: member.number)
        for member in members:
            yield from self._messages(nested.before(member), scope)
        yield from _block(f"oneof {oneof.name}", self._oneof(oneof, members, nested, scope))

    def _oneof(
        self, oneof: OneofDescriptorProto, members: list[FieldDescriptorProto], nested: "_Nested", scope: str
    ) -> Iterator[str]:
        yield from self._option_lines(oneof.options, "OneofOptions")
        for member in members:
            yield from self._field(member, nested, scope)

    def _field(self, field: FieldDescriptorProto, nested: "_Nested", scope: str) -> Iterator[str]:
        options = _bracketed(self._field_options(field))
        entry = nested.inline(field)
        if entry is not None and entry.options.map_entry:
            key, value = entry.field
            yield f"map<{_type(key)}, {_type(value)}> {field.name} = {field.number}{options};"
            return
        label = self._label(field)
        if entry is not None:
            head = f"{label}group {entry.name} = {field.number}{options}"
            yield from _block(head, self._body(entry, _inside(scope, entry.name)))
            return
        yield f"{label}{_type(field)} {field.name} = {field.number}{options};"

    def _label(self, field: FieldDescriptorProto) -> str:
        if field.label == FieldDescriptorProto.LABEL_REPEATED:
            return "repeated "
        if _in_oneof(field):
            return ""
        if self._proto2:
            return "required " if field.label == FieldDescriptorProto.LABEL_REQUIRED else "optional "
        return "optional " if field.proto3_optional else ""

    def _field_options(self, field: FieldDescriptorProto) -> list[str]:
        own = []
        if field.HasField("default_value"):
            own.append(f"default = {_default(field)}")
        if field.json_name and field.json_name != default_json_name(field.name):
            own.append(f"json_name = {_quoted(field.json_name.encode())}")
        return [*own, *self._options(field.options, "FieldOptions")]

    def _extensions(self, extensions: Iterable[FieldDescriptorProto], nested: "_Nested", scope: str) -> Iterator[str]:
        for field in extensions:
            yield from self._messages(nested.before(field), scope)
            yield from _block(f"extend {field.extendee}", self._field(field, nested, scope))

    # --- enums, services

    def _enum(self, enum: EnumDescriptorProto) -> Iterator[str]:
        yield from _block(f"enum {enum.name}", self._enum_body(enum))

    def _enum_body(self, enum: EnumDescriptorProto) -> Iterator[str]:
        yield from self._option_lines(enum.options, "EnumOptions")
        for value in self._enum_values(enum):
            yield f"{value.name} = {value.number}{_bracketed(self._options(value.options, 'EnumValueOptions'))};"
        ranges = [(reserved.start, reserved.end) for reserved in enum.reserved_range]
        yield from self._reserved(ranges, enum.reserved_name, ENUM_NUMBER_MAX)

    def _enum_values(self, enum: EnumDescriptorProto) -> list[EnumValueDescriptorProto]:
        """The first is the default, so it stays the first."""
        first, *others = enum.value
        return [first, *(sorted(others, key=lambda value: value.number) if self._normalize else others)]

    def _service(self, service: ServiceDescriptorProto) -> Iterator[str]:
        yield from _block(f"service {service.name}", self._methods(service))

    def _methods(self, service: ServiceDescriptorProto) -> Iterator[str]:
        yield from self._option_lines(service.options, "ServiceOptions")
        for method in service.method:
            takes = f"{'stream ' if method.client_streaming else ''}{method.input_type}"
            gives = f"{'stream ' if method.server_streaming else ''}{method.output_type}"
            head = f"rpc {method.name} ({takes}) returns ({gives})"
            options = list(self._option_lines(method.options, "MethodOptions"))
            yield from _block(head, options) if options else [f"{head};"]

    def _reserved(self, ranges: list[tuple[int, int]], names: Iterable[str], most: int) -> Iterator[str]:
        listed = list(names)
        if self._normalize:
            ranges, listed = sorted(ranges), sorted(listed)
        if ranges:
            yield f"reserved {', '.join(_range(first, last, most) for first, last in ranges)};"
        if listed:
            bare = self._file.syntax == "editions"
            yield f"reserved {', '.join(name if bare else _quoted(name.encode()) for name in listed)};"

    # --- options

    def _option_lines(self, options: Any, kind: str) -> Iterator[str]:
        return (f"option {option};" for option in self._options(options, kind))

    def _options(self, options: Any, kind: str) -> list[str]:
        """`name = value` for each option that is set. They are read again with the schema's own pool: it has the
        extensions that the schema uses."""
        data = options.SerializeToString()
        if not data:
            return []
        known = GetMessageClass(self._pool.FindMessageTypeByName(f"google.protobuf.{kind}")).FromString(data)
        found = []
        for field, value in known.ListFields():
            if field.full_name == "google.protobuf.MessageOptions.map_entry":
                continue
            name = f"({field.full_name})" if field.is_extension else field.name
            values = value if field.is_repeated else [value]
            found += [f"{name} = {_option_value(field, one)}" for one in values]
        return sorted(found) if self._normalize else found


class _Nested:
    """The types of a scope, in the order that numbers them. Those of groups and maps are written where their field is:
    what comes before them must be written before it."""

    def __init__(self, types: Iterable[DescriptorProto], fields: Iterable[FieldDescriptorProto], scope: str) -> None:
        self._types = list(types)
        groups = {f.type_name for f in fields if f.type == FieldDescriptorProto.TYPE_GROUP}
        names = {f".{_inside(scope, nested.name)}": n for n, nested in enumerate(self._types)}
        self._inline = {name: n for name, n in names.items() if name in groups or self._types[n].options.map_entry}
        self._next = 0
        maps_alone = not groups and len(self._inline) == len(self._types)
        self.numbered_by_fields = bool(self._inline) and not maps_alone

    def inline(self, field: FieldDescriptorProto) -> DescriptorProto | None:
        """The type that is written with the field."""
        number = self._inline.get(field.type_name)
        if number is None:
            return None
        of_a_map = self._types[number].options.map_entry
        return self._types[number] if of_a_map or field.type == FieldDescriptorProto.TYPE_GROUP else None

    def before(self, field: FieldDescriptorProto) -> list[DescriptorProto]:
        """The types to write before the field, which were not given out yet."""
        return self._take(self._inline.get(field.type_name, 0))

    def rest(self) -> list[DescriptorProto]:
        return self._take(len(self._types))

    def _take(self, end: int) -> list[DescriptorProto]:
        inline = self._inline.values()
        taken = [self._types[n] for n in range(self._next, end) if n not in inline]
        self._next = max(self._next, end)
        return taken


def _inside(scope: str, name: str) -> str:
    return f"{scope}.{name}" if scope else name


def _in_oneof(field: FieldDescriptorProto) -> bool:
    """An `optional` of proto3 has a oneof that nobody wrote."""
    return bool(field.HasField("oneof_index") and not field.proto3_optional)


def _type(field: FieldDescriptorProto) -> str:
    return str(_SCALARS.get(field.type) or field.type_name)


def _range(first: int, last: int, most: int) -> str:
    return str(first) if first == last else f"{first} to {'max' if last == most else last}"


def _bracketed(options: Sequence[str]) -> str:
    return f" [{', '.join(options)}]" if options else ""


def _default(field: FieldDescriptorProto) -> str:
    if field.type == FieldDescriptorProto.TYPE_STRING:
        return _quoted(field.default_value.encode())
    if field.type == FieldDescriptorProto.TYPE_BYTES:
        return f'"{field.default_value}"'  # escaped already
    return str(field.default_value)


def _option_value(field: FieldDescriptor, value: Any) -> str:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_MESSAGE:
            return f"{{ {text_format.MessageToString(value, as_one_line=True)} }}"
        case FieldDescriptor.CPPTYPE_ENUM:
            return str(field.enum_type.values_by_number[value].name)
        case FieldDescriptor.CPPTYPE_STRING:
            return _quoted(value if isinstance(value, bytes) else value.encode())
        case FieldDescriptor.CPPTYPE_BOOL:
            return "true" if value else "false"
    return str(value)
