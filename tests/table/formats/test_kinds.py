"""The two lists of formats, the worker's and the server's, are of the same names."""

import pytest

from streamlake.cluster.config import formats
from streamlake.core.errors import Invalid
from streamlake.table.formats import kinds
from streamlake.table.formats.port import Reference, WriterSchema


def test_every_convert_type_can_be_configured_and_read() -> None:
    assert list(kinds.CONVERT_TYPES) == list(formats.CONVERT_TYPES)


def test_a_schema_by_its_kind() -> None:
    assert kinds.compile_reader(WriterSchema("AVRO", '"int"'))
    assert kinds.compile_reader(WriterSchema("PROTOBUF", 'syntax = "proto3"; message M {}'))
    assert kinds.compile_reader(WriterSchema("JSON", "{}"))
    with pytest.raises(Invalid, match="its type is THRIFT: only AVRO, JSON, PROTOBUF can be a table yet"):
        kinds.compile_reader(WriterSchema("THRIFT", "{}"))


def test_references_are_refused() -> None:
    with pytest.raises(Invalid, match="refers to other schemas"):
        kinds.compile_reader(WriterSchema("AVRO", '"int"', (Reference("com.Other", "other", 1),)))
