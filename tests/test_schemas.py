"""The example records are valid in each of the three schema languages, and mean the same in each."""

import importlib
import io
import json
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import jsonschema
import pytest
from google.protobuf import json_format
from grpc_tools import protoc

SCHEMAS = Path(__file__).parents[1] / "schemas"
AVRO = json.loads((SCHEMAS / "avro" / "order.avsc").read_text())
JSON = json.loads((SCHEMAS / "json" / "order.json").read_text())
ORDERS = [json.loads(line) for line in (SCHEMAS / "orders.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def protobuf(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The class that protoc makes of the Protobuf schema."""
    out = tmp_path_factory.mktemp("protobuf")
    google = Path(protoc.__file__).parent / "_proto"
    paths = [f"-I{SCHEMAS / 'protobuf'}", f"-I{google}", f"--python_out={out}"]
    assert protoc.main(["protoc", *paths, "order.proto"]) == 0
    sys.path.insert(0, str(out))
    try:
        return importlib.import_module("order_pb2").Order
    finally:
        sys.path.remove(str(out))


def values(order: dict[str, Any]) -> dict[str, Any]:
    """An order in Python's types."""
    times = {"amount": Decimal(order["amount"]), "ts": datetime.fromisoformat(order["ts"])}
    return {**order, **times, "note": order.get("note")}


def test_all_have_the_same_fields(protobuf):
    fields = [field["name"] for field in AVRO["fields"]]
    assert fields == [field.name for field in protobuf.DESCRIPTOR.fields] == list(JSON["properties"])


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: str(order["id"]))
def test_an_order_is_the_same_in_each(order, protobuf):
    jsonschema.Draft7Validator(JSON).validate(order)

    written = io.BytesIO()
    fastavro.schemaless_writer(written, AVRO, values(order))
    written.seek(0)
    assert fastavro.schemaless_reader(written, AVRO, None) == values(order)

    bytes_on_the_wire = json_format.ParseDict(order, protobuf()).SerializeToString()
    message = protobuf.FromString(bytes_on_the_wire)
    assert (message.id, message.customer, Decimal(message.amount)) == (
        order["id"], order["customer"], values(order)["amount"],
    )  # fmt: skip
    assert message.ts.ToDatetime(values(order)["ts"].tzinfo) == values(order)["ts"]
    assert list(message.tags) == order["tags"]
    assert (message.note if message.HasField("note") else None) == order.get("note")


@pytest.mark.parametrize(
    "mistake", [{"amount": 12.5}, {"amount": "12.5"}, {"id": "1"}, {"tags": [1]}, {"unknown": 1}, {"ts": 0}]
)
def test_what_is_no_order_is_refused_by_the_json_schema(mistake):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(JSON).validate({**ORDERS[0], **mistake})


def test_the_registry_takes_the_avro_schema():
    from streamlake.registry.avro.schema import parse_schema

    assert parse_schema((SCHEMAS / "avro" / "order.avsc").read_text())
