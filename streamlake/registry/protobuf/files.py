"""What a Protobuf schema is here: one .proto file, as its FileDescriptorProto, and the files that it imports.

A schema that refers to others imports them by the names of the references. Google's well-known types need none.
"""

from collections.abc import Iterator, Mapping

from google.protobuf import (
    any_pb2,
    api_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    source_context_pb2,
    struct_pb2,
    timestamp_pb2,
    type_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message

from streamlake.core.errors import Invalid
from streamlake.registry.port import File

# In the order of their imports.
WELL_KNOWN: Mapping[str, bytes] = {
    module.DESCRIPTOR.name: module.DESCRIPTOR.serialized_pb
    for module in (
        any_pb2,
        source_context_pb2,
        type_pb2,
        api_pb2,
        descriptor_pb2,
        duration_pb2,
        empty_pb2,
        field_mask_pb2,
        struct_pb2,
        timestamp_pb2,
        wrappers_pb2,
    )
}

_ENTRY = [(name, number, FieldDescriptorProto.LABEL_OPTIONAL) for number, name in enumerate(("key", "value"), 1)]


def main_name(files: Mapping[str, File]) -> str:
    """A name for the schema itself, which has none: not that of a file it may import."""
    name = "schema.proto"
    while name in files:
        name = f"_{name}"
    return name


def read_file(compiled: bytes, name: str) -> FileDescriptorProto:
    """Raises Invalid."""
    file = FileDescriptorProto()
    try:
        file.ParseFromString(compiled)
    except DecodeError as error:
        raise Invalid(f"not a FileDescriptorProto: {error}") from None
    file.name = name
    return file


def read_foreign(data: bytes) -> FileDescriptorProto:
    """A file that is not of our making. Raises Invalid, also for names and texts that are not UTF-8: what reads them
    takes them for text."""
    file = read_file(data, "")
    waiting: list[Message] = [file]
    while waiting:
        for field, value in waiting.pop().ListFields():
            values = value if field.is_repeated else [value]
            if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
                waiting += values
            elif field.type == FieldDescriptor.TYPE_STRING and any(isinstance(one, bytes) for one in values):
                raise Invalid(f"not a FileDescriptorProto: a {field.full_name} is not UTF-8")
    return file


def with_imports(compiled: bytes, files: Mapping[str, File]) -> Iterator[FileDescriptorProto]:
    """All files that `compiled` needs, each after those that it imports; the last is its own. Raises Invalid."""
    found: dict[str, FileDescriptorProto] = {}
    open_: list[str] = []

    def visit(file: FileDescriptorProto) -> Iterator[FileDescriptorProto]:
        if file.name in open_:
            raise Invalid(f"{file.name} imports itself: {' imports '.join([*open_, file.name])}")
        open_.append(file.name)
        for name in file.dependency:
            if name not in found:
                yield from visit(imported(name))
        open_.pop()
        found[file.name] = file
        yield file

    def imported(name: str) -> FileDescriptorProto:
        if name in WELL_KNOWN:
            return read_file(WELL_KNOWN[name], name)
        known = files[name].compiled if name in files else None
        if known is None:
            raise Invalid(f"it imports {name}, which is neither a reference of the schema nor a well-known type")
        return read_file(known, name)

    yield from visit(read_file(compiled, main_name(files)))


def pool_of(found: list[FileDescriptorProto]) -> DescriptorPool:
    """A pool with these files, and with the options that descriptor.proto defines. Raises Invalid."""
    pool = DescriptorPool()
    pool.AddSerializedFile(WELL_KNOWN["google/protobuf/descriptor.proto"])
    for file in found:
        if file.name != "google/protobuf/descriptor.proto":
            _check_maps(file)
            try:
                pool.Add(file)
            except (TypeError, ValueError) as error:
                raise Invalid(f"{file.name} is not sound: {error}") from None
    return pool


def default_json_name(name: str) -> str:
    """protoc's: an underscore is dropped, and the letter after it made a capital."""
    head, *parts = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in parts)


def plain(file: FileDescriptorProto) -> bytes:
    """The file without what says nothing: its name, where its parts stood in the text, JSON names as they are by
    default, braces around no options. Files are the same if this is."""
    copy = FileDescriptorProto()
    copy.CopyFrom(file)
    copy.ClearField("name")
    copy.ClearField("source_code_info")
    if copy.syntax == "proto2":
        copy.ClearField("syntax")
    for service in copy.service:
        for method in service.method:
            if not method.options.ByteSize():
                method.ClearField("options")
    for field in _fields(copy):
        if field.json_name == default_json_name(field.name):
            field.ClearField("json_name")
    return bytes(copy.SerializeToString(deterministic=True))


def _check_maps(file: FileDescriptorProto) -> None:
    """What a pool does not check. Raises Invalid."""
    for message in _messages(file):
        if message.options.map_entry and [(f.name, f.number, f.label) for f in message.field] != _ENTRY:
            raise Invalid(f"{file.name} is not sound: {message.name} is not the entry of a map")


def _messages(file: FileDescriptorProto) -> Iterator[DescriptorProto]:
    waiting = list(file.message_type)
    while waiting:
        message: DescriptorProto = waiting.pop()
        yield message
        waiting += message.nested_type


def _fields(file: FileDescriptorProto) -> Iterator[FieldDescriptorProto]:
    yield from file.extension
    for message in _messages(file):
        yield from message.field
        yield from message.extension
