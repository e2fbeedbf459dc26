"""May this Protobuf schema follow those? Rules over descriptors, of what is on the wire.

A reader knows a field by its number. It understands what a writer wrote if the field is not there in one of the two, or
has types of one group on both sides, and labels that may change into each other. Names of fields and of enum values do
not matter, nor which message comes first: ids name the schema that counts messages. As Confluent's registry has it,
the package may change, a message may not go or be replaced by one of another name, and required fields may neither come
nor go. https://protobuf.dev/programming-guides/proto3/#updating
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

from streamlake.core.errors import Invalid
from streamlake.registry import levels
from streamlake.registry.levels import Level
from streamlake.registry.port import Document
from streamlake.registry.protobuf.files import with_imports

FAULTS_MAX = 20  # of one comparison; more would not be read

_F = FieldDescriptorProto

# Types whose values are read as each other's. https://protobuf.dev/programming-guides/encoding/#structure
GROUPS: dict[int, str] = {
    **dict.fromkeys((_F.TYPE_INT32, _F.TYPE_INT64, _F.TYPE_UINT32, _F.TYPE_UINT64, _F.TYPE_BOOL), "integer"),
    _F.TYPE_ENUM: "integer",
    **dict.fromkeys((_F.TYPE_SINT32, _F.TYPE_SINT64), "zigzag integer"),
    **dict.fromkeys((_F.TYPE_FIXED32, _F.TYPE_SFIXED32), "four bytes"),
    **dict.fromkeys((_F.TYPE_FIXED64, _F.TYPE_SFIXED64), "eight bytes"),
    _F.TYPE_FLOAT: "float",
    _F.TYPE_DOUBLE: "double",
    **dict.fromkeys((_F.TYPE_STRING, _F.TYPE_BYTES), "text or bytes"),
    _F.TYPE_MESSAGE: "message",
    _F.TYPE_GROUP: "group",
}
# A reader takes the last of several, and merges messages; numbers of a list are packed into one value.
LABELS_MAY_CHANGE = frozenset({"text or bytes", "message", "group"})


def incompatibilities(level: Level, new: Document, earlier: Sequence[tuple[int, Document]]) -> list[str]:
    """What speaks against `new`, as registry.levels says. Raises Invalid."""
    if level is Level.NONE or not earlier:
        return []
    compared = earlier if level.transitive else earlier[-1:]
    return levels.incompatibilities(level, _Types(new), [(n, _Types(old)) for n, old in compared], _cannot_read)


@dataclass(frozen=True, slots=True)
class _Message:
    """`name` without the package: that may change."""

    name: str
    proto: DescriptorProto

    def fields(self) -> dict[int, FieldDescriptorProto]:
        return {field.number: field for field in self.proto.field}

    def oneofs(self) -> dict[str, set[int]]:
        """Numbers of the fields of each oneof that somebody wrote."""
        found: dict[str, set[int]] = {}
        for field in self.proto.field:
            if field.HasField("oneof_index") and not field.proto3_optional:
                found.setdefault(self.proto.oneof_decl[field.oneof_index].name, set()).add(field.number)
        return found

    @property
    def is_entry(self) -> bool:
        return bool(self.proto.options.map_entry)


class _Types:
    """The messages of a schema and of all that it imports."""

    def __init__(self, document: Document) -> None:
        if document.compiled is None:
            raise Invalid("the schema was never compiled: register it again")
        self.own: dict[str, _Message] = {}  # by name without the package
        self._by_full_name: dict[str, _Message] = {}
        files = list(with_imports(document.compiled, document.files))
        for file in files:
            prefix = f".{file.package}" if file.package else ""
            for name, proto in _messages(file.message_type, ""):
                message = self._by_full_name[f"{prefix}.{name}"] = _Message(name, proto)
                if file is files[-1]:
                    self.own[name] = message

    def message(self, field: FieldDescriptorProto) -> _Message:
        return self._by_full_name[field.type_name]


def _messages(protos: Any, scope: str) -> Iterator[tuple[str, DescriptorProto]]:
    for proto in protos:
        name = f"{scope}.{proto.name}" if scope else proto.name
        yield name, proto
        yield from _messages(proto.nested_type, name)


def _cannot_read(reader: _Types, writer: _Types) -> str:
    comparison = _Comparison(reader, writer)
    for name, old in writer.own.items():
        if name in reader.own:
            comparison.messages(reader.own[name], old)
        elif not old.is_entry:
            comparison.fault(f"message {name} is not there any more")
    return "; ".join(comparison.faults)


class _Comparison:
    """Without recursion over fields: messages that are met are compared once, one after the other."""

    def __init__(self, reader: _Types, writer: _Types) -> None:
        self.faults: list[str] = []
        self._reader = reader
        self._writer = writer
        self._seen: set[tuple[int, int]] = set()

    def fault(self, message: str) -> None:
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(message)

    def messages(self, new: _Message, old: _Message) -> None:
        waiting = [(new, old)]
        while waiting:
            one, other = waiting.pop()
            if (id(one.proto), id(other.proto)) not in self._seen:
                self._seen.add((id(one.proto), id(other.proto)))
                waiting += self._message(one, other)

    def _message(self, new: _Message, old: _Message) -> list[tuple[_Message, _Message]]:
        """Compares fields; the messages inside, to be compared next."""
        before, after = old.fields(), new.fields()
        inside = []
        for number in sorted(before.keys() | after.keys()):
            one, other = after.get(number), before.get(number)
            where = f"field {number} of {new.name}"
            if one is None or other is None:
                self._alone(one or other, where, came=other is None)
            else:
                inside += self._field(one, other, where)
        self._oneofs(new, old, set(before))
        return inside

    def _alone(self, field: FieldDescriptorProto | None, where: str, came: bool) -> None:
        assert field is not None
        if field.label == _F.LABEL_REQUIRED:
            self.fault(f"{where} ({field.name}) is required and {'was not there before' if came else 'has gone'}")

    def _field(
        self, new: FieldDescriptorProto, old: FieldDescriptorProto, where: str
    ) -> list[tuple[_Message, _Message]]:
        group, other = GROUPS[new.type], GROUPS[old.type]
        where = f"{where} ({new.name})"
        if group != other:
            self.fault(f"{where} was {other}, and is {group} now")
            return []
        if (new.label == _F.LABEL_REPEATED) != (old.label == _F.LABEL_REPEATED) and group not in LABELS_MAY_CHANGE:
            self.fault(f"{where} is a list in one schema only")
        if new.label == _F.LABEL_REQUIRED != old.label:
            self.fault(f"{where} is required now")
        if group not in ("message", "group"):
            return []
        one, another = self._reader.message(new), self._writer.message(old)
        if one.is_entry != another.is_entry:
            self.fault(f"{where} is a map in one schema only")
        elif not one.is_entry and one.name != another.name:
            self.fault(f"{where} was a {another.name}, and is a {one.name} now")
        else:
            return [(one, another)]
        return []

    def _oneofs(self, new: _Message, old: _Message, numbers: set[int]) -> None:
        before, after = old.oneofs(), new.oneofs()
        outside = numbers - set().union(*before.values())
        for name, members in after.items():
            moved = sorted(members & outside)
            if len(moved) > 1:
                self.fault(f"fields {', '.join(map(str, moved))} of {new.name} moved into oneof {name}")
            gone = sorted(before.get(name, set()) - members - set(new.fields()))
            if gone:
                self.fault(f"oneof {name} of {new.name} lost its field {', '.join(map(str, gone))}")
