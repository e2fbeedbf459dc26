"""Records, registries and settings for tests of the table pipeline."""

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import fastavro
import pyarrow as pa

from streamlake.cluster.config.table import PREFIX, TableSettings
from streamlake.core.errors import NotFound
from streamlake.record.arrow import RECORDS_SCHEMA
from streamlake.record.decode import NOT_TEXT
from streamlake.table.formats.port import LatestSchema, WriterSchema


class Registry:
    """Schemas by id; counts how often each was asked for. Set `down` to an error to make every call raise it."""

    def __init__(self, schemas: Mapping[int, Any] = {}) -> None:
        self.schemas = dict(schemas)
        self.asked: list[int] = []
        self.subjects: dict[str, int] = {}
        self.asked_latest: list[str] = []
        self.down: Exception | None = None

    def get(self, schema_id: int) -> WriterSchema:
        self.asked.append(schema_id)
        if self.down:
            raise self.down
        if schema_id not in self.schemas:
            raise NotFound(f"no schema {schema_id}")
        schema = self.schemas[schema_id]
        if isinstance(schema, WriterSchema):
            return schema
        return WriterSchema("AVRO", schema if isinstance(schema, str) else json.dumps(schema))

    def latest(self, subject: str) -> LatestSchema:
        """By `subjects`, which has the ids of each."""
        self.asked_latest.append(subject)
        if self.down:
            raise self.down
        if subject not in self.subjects:
            raise NotFound(f"the schema registry has no subject {subject}")
        return LatestSchema(self.subjects[subject], self.get(self.subjects[subject]))


def record(*fields: tuple[str, Any], name: str = "R") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": f, "type": t} for f, t in fields]}


def wire(schema_id: int, schema: Any, value: Any) -> bytes:
    """A value in Confluent's wire format."""
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(schema))), value)
    return b"\0" + schema_id.to_bytes(4, "big") + out.getvalue()


def records(
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None] | None = None,
    headers: Sequence[list[tuple[str, bytes | None]]] | None = None,
    first_offset: int = 0,
    partition: int = 0,
    timestamps: Sequence[int] | None = None,
) -> Any:
    """A table as record.arrow and the task make it."""
    n = len(values)
    columns = {
        "offset": range(first_offset, first_offset + n),
        "timestamp": timestamps or [1_700_000_000_000 + i for i in range(n)],
        "timestamp_type": [0] * n,
        "key": keys or [None] * n,
        "value": values,
        "headers": [[{"key": k.encode(errors=NOT_TEXT), "value": v} for k, v in h] for h in headers or [[]] * n],
    }
    arrays = [pa.array(list(columns[field.name]), field.type) for field in RECORDS_SCHEMA]
    table = pa.Table.from_arrays(arrays, schema=RECORDS_SCHEMA)
    return table.append_column(pa.field("partition", pa.int32(), nullable=False), pa.array([partition] * n, pa.int32()))


def batch_of(*arguments: Any, **options: Any) -> Any:
    """The same as a pa.RecordBatch."""
    table = records(*arguments, **options)
    return pa.RecordBatch.from_arrays([column.combine_chunks() for column in table.columns], schema=table.schema)


def settings(**changes: str) -> TableSettings:
    """Table settings; `convert_value="raw"` is the config convert.value.type."""
    names = {
        "convert_value": "convert.value.type",
        "convert_key": "convert.key.type",
        "transform_value": "transform.value.type",
    }
    configs = {names.get(key, key.replace("_", ".")): value for key, value in changes.items()}
    return TableSettings.from_configs({PREFIX + key: value for key, value in configs.items()})
