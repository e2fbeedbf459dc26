"""Tables whose schemas are in a registry elsewhere: another server's, behind a proxy that wants credentials and has a
certificate of its own. The registry is away for a while, and no record becomes a dead letter by that."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import lake
from support.avro import Subject, record
from support.protobuf import Classes, Messages
from support.registry_proxy import Certificate, RegistryProxy, certificate
from support.server import Server, serve
from support.wait import wait_until

BASIC = f"Basic {base64.b64encode(b'user:s3cret-word').decode()}"
ROW = record(("id", "long"), ("name", "string"))
OTHER = record(("id", "long"), name="Other")
PROTO = 'syntax = "proto3"; package shop; message First { int64 a = 1; } message Order { int64 n = 1; string s = 2; }'


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("pem"))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(Server(tmp_path_factory.mktemp("registry"), "[tables]\nenabled = false\n"))


@pytest.fixture(scope="module")
def proxy(registry: Server, pem: Certificate) -> Iterator[RegistryProxy]:
    made = RegistryProxy(registry.http, BASIC, pem)
    yield made
    made.close()


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory, proxy: RegistryProxy, pem: Certificate) -> Iterator[Server]:
    config = f'[registry]\nurl = "{proxy.url}"\nusername = "user"\nca_file = "{pem.certificate}"\n'
    directory: Path = tmp_path_factory.mktemp("tables")
    yield from serve(Server(directory, config, {"STREAMLAKE_REGISTRY_PASSWORD": "s3cret-word"}))


def test_schemas_by_id(tables: Server, registry: Server, proxy: RegistryProxy) -> None:
    by_id = lake.create_topic(tables, "by-id", convert_value_type="by_schema_id", transform_value_type="flatten")
    rows = Subject(registry, by_id)  # clients use the other registry, too
    lake.produce(tables, by_id, [rows.value(ROW, {"id": n, "name": "x"}) for n in range(3)])
    tables.wait_for_table(by_id, 3)
    assert proxy.asked and "/schemas/ids/" in proxy.asked[0]


def test_an_outage_makes_tables_wait_and_loses_nothing(tables: Server, registry: Server, proxy: RegistryProxy) -> None:
    name = lake.create_topic(tables, "outage", convert_value_type="by_schema_id", transform_value_type="flatten")
    rows = Subject(registry, name)
    lake.produce(tables, name, [rows.value(ROW, {"id": 0, "name": "x"})])
    tables.wait_for_table(name, 1)
    other = Subject(registry, "outage-2")
    second = lake.create_topic(tables, "outage-2", convert_value_type="by_schema_id")
    # A schema that is known needs no registry; the others wait, whatever stands there instead of the registry.
    for status, body in ((503, b"away"), (404, b"<html>no such page</html>"), (200, b"hello"), (401, b"")):
        proxy.trouble = status, body
        lake.produce(tables, name, [rows.value(ROW, {"id": status, "name": "x"})])
        lake.produce(tables, second, [other.value(OTHER, {"id": status})])
        message = lake.wait_for_state(tables, second, "retrying")
        assert "registry" in message and "s3cret-word" not in message
    tables.wait_for_table(name, 5)
    proxy.trouble = None
    report = tables.wait_for_table(second, 4)
    assert report["dead_letters"] == 0
    assert "s3cret-word" not in tables.log


def test_bare_messages_wait_for_their_subject(tables: Server, registry: Server) -> None:
    name = lake.create_topic(tables, "latest", convert_value_type="by_latest_schema", transform_value_type="flatten")
    classes = Classes({"order.proto": PROTO})
    order = classes["shop.First"](a=7).SerializeToString()
    lake.produce(tables, name, [order, order])
    assert "no subject 'latest-value'" in lake.wait_for_state(tables, name, "retrying")
    Messages(registry, name).value(classes["shop.First"](a=1))  # registers its schema
    tables.wait_for_table(name, 2)
    assert lake.query(tables, f'SELECT a FROM "{name}"') == [(7,), (7,)]


def test_the_message_can_be_named(tables: Server, registry: Server) -> None:
    prefix = lake.TABLE + "convert.value."
    name = lake.create_topic(tables, "named")
    classes = Classes({"order.proto": PROTO})
    Messages(registry, "elsewhere").value(classes["shop.First"](a=1))
    configs = {
        f"{prefix}type": "by_latest_schema", f"{prefix}by_latest_schema.subject": "elsewhere-value",
        f"{prefix}by_latest_schema.message.full.name": "shop.Order", f"{lake.TABLE}enable": "true",
        f"{lake.TABLE}commit.interval.ms": "200",
    }  # fmt: skip
    lake.set_exactly(tables, name, configs)
    lake.produce(tables, name, [classes["shop.Order"](n=5, s="five").SerializeToString()])
    tables.wait_for_table(name, 1)
    assert lake.query(tables, f'SELECT value.n, value.s FROM "{name}"') == [(5, "five")]
    wait_until(lambda: tables.tables()[name]["state"] == "running", lambda: json.dumps(tables.tables()[name]))
