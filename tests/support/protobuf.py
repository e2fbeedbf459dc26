"""Protobuf as producers write it: classes of .proto files, and Confluent's serializer against the server's registry."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from support.server import Server

from streamlake.registry.port import File
from streamlake.registry.protobuf.files import pool_of, with_imports
from streamlake.registry.protobuf.parse import parse


def compiled(text: str, files: Mapping[str, File] | None = None) -> bytes:
    """By protoc, in this process: for texts that we know."""
    with tempfile.TemporaryDirectory() as folder:
        found = parse(text, files or {}, False, Path(folder)).compiled
    assert found is not None
    return found


class Classes:
    """Of the messages of .proto files, of which each may import those before it: as a client has them."""

    def __init__(self, files: Mapping[str, str]) -> None:
        found: dict[str, File] = {}
        for name, text in files.items():
            found[name] = File(text, compiled(text, found))
        self.pool: DescriptorPool = pool_of(list(with_imports(found[name].compiled or b"", found)))

    def __getitem__(self, full_name: str) -> Any:
        return GetMessageClass(self.pool.FindMessageTypeByName(full_name))


class Messages:
    """Serializes messages of one topic; each schema is registered when it is first used."""

    def __init__(self, server: Server, topic: str) -> None:
        self._topic = topic
        self._client = SchemaRegistryClient({"url": server.http})
        self._serializers: dict[Any, ProtobufSerializer] = {}

    def value(self, message: Any) -> bytes:
        kind = type(message)
        if kind not in self._serializers:
            self._serializers[kind] = ProtobufSerializer(kind, self._client)
        data = self._serializers[kind](message, SerializationContext(self._topic, MessageField.VALUE))
        assert data is not None
        return data
