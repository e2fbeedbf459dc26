import asyncio
import json

import httpx
import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext, SerializationError
from support.protobuf import Classes

from streamlake.http.registry import BODY_BYTES_MAX, MEDIA_TYPE


def text(*fields: str) -> str:
    columns = [{"name": f, "type": ["null", "int"], "default": None} for f in fields]
    return json.dumps({"type": "record", "name": "R", "fields": columns})


def avro(*fields: str) -> Schema:
    return Schema(text(*fields), "AVRO")


REQUIRED = Schema('{"type":"record","name":"R","fields":[{"name":"must","type":"int"}]}', "AVRO")


@pytest.fixture
def client(url):
    """Confluent's client without its caches, each call on a thread beside the server's loop."""

    class Client:
        def __getattr__(self, name):
            async def call(*args, **kwargs):
                with SchemaRegistryClient({"url": url, "max.retries": 0}) as fresh:
                    return await asyncio.to_thread(getattr(fresh, name), *args, **kwargs)

            return call

    return Client()


@pytest.fixture
async def http(url):
    async with httpx.AsyncClient(base_url=url) as http:
        yield http


async def refused(code, awaitable) -> None:
    with pytest.raises(SchemaRegistryError) as raised:
        await awaitable
    assert raised.value.error_code == code
    assert str(code).startswith(str(raised.value.http_status_code))


# --- Confluent's own client


async def test_client_registers_and_reads(client):
    schema_id = await client.register_schema("s-value", avro("x"))
    assert await client.register_schema("s-value", avro("x"), normalize_schemas=True) == schema_id
    assert (await client.register_schema_full_response("s-value", avro("x"))).schema_id == schema_id
    read = await client.get_schema(schema_id)
    assert (json.loads(read.schema_str), read.schema_type) == (json.loads(text("x")), "AVRO")
    assert (await client.get_schema(schema_id, subject_name="s-value")).schema_str == read.schema_str
    found = await client.lookup_schema("s-value", avro("x"))
    assert (found.subject, found.version, found.schema_id) == ("s-value", 1, schema_id)
    latest = await client.get_latest_version("s-value")
    assert (latest.version, latest.schema.schema_str) == (1, read.schema_str)
    assert (await client.get_version("s-value", 1)).schema_id == schema_id
    assert await client.get_schema_types() == ["AVRO", "JSON", "PROTOBUF"]
    assert await client.get_subjects_by_schema_id(schema_id) == ["s-value"]
    versions = await client.get_schema_versions(schema_id)
    assert [(v.subject, v.version) for v in versions] == [("s-value", 1)]
    assert await client.get_schema_versions(schema_id, subject_name="other") == []
    assert await client.get_referenced_by("s-value", 1) == []
    assert await client.get_contexts() == ["."]


async def test_client_lists(client):
    for subject in ("a", "ab", "b"):
        await client.register_schema(subject, avro("x"))
    await client.register_schema("a", avro("y"))
    assert await client.get_subjects() == ["a", "ab", "b"]
    assert await client.get_subjects(subject_prefix="a") == ["a", "ab"]
    assert await client.get_subjects(offset=1, limit=1) == ["ab"]
    assert await client.get_versions("a") == [1, 2]
    assert await client.get_versions("a", offset=1) == [2]
    await client.delete_subject("b")
    assert await client.get_subjects() == ["a", "ab"]
    assert await client.get_subjects(deleted=True) == ["a", "ab", "b"]
    assert await client.get_subjects(deleted_only=True) == ["b"]


async def test_client_deletes(client):
    for field in "xyz":
        await client.register_schema("s", avro(field))
    assert await client.delete_version("s", 2) == 2
    assert await client.get_versions("s", deleted_only=True) == [2]
    await refused(40402, client.get_version("s", 2))
    assert (await client.get_version("s", 2, deleted=True)).version == 2
    await refused(40406, client.delete_version("s", 2))
    await refused(40407, client.delete_version("s", 1, permanent=True))
    assert await client.delete_version("s", 2, permanent=True) == 2
    assert await client.delete_subject("s", permanent=False) == [1, 3]
    await refused(40404, client.delete_subject("s"))
    assert await client.delete_subject("s", permanent=True) == [1, 3]
    await refused(40401, client.delete_subject("s"))


async def test_client_compatibility(client):
    await client.register_schema("s", avro("x"))
    assert await client.test_compatibility("s", avro("x", "y"))
    assert not await client.test_compatibility("s", REQUIRED)
    assert not await client.test_compatibility("s", REQUIRED, version=1, verbose=True)
    assert not await client.test_compatibility_all_versions("s", REQUIRED)
    assert await client.test_compatibility_all_versions("new", REQUIRED)
    await refused(409, client.register_schema("s", REQUIRED))


async def test_client_configuration(client):
    assert await client.get_compatibility() == "BACKWARD"
    await client.set_compatibility(level="FULL")
    assert await client.get_compatibility() == "FULL"
    await refused(40408, client.get_compatibility("s"))
    assert (await client.set_compatibility("s", "none"))["compatibility"] == "NONE"
    assert await client.get_compatibility("s") == "NONE"
    assert (await client.get_config("s")).compatibility_level == "NONE"
    assert (await client.delete_config("s")).compatibility_level == "NONE"
    await refused(40408, client.delete_config("s"))
    await client.delete_config()
    assert await client.get_compatibility() == "BACKWARD"
    await refused(42203, client.set_compatibility(level="SIDEWAYS"))


async def test_client_mode(client):
    assert await client.get_global_mode() == await client.get_mode("s") == "READWRITE"
    assert await client.update_global_mode("READWRITE") == "READWRITE"
    assert await client.update_mode("s", "READWRITE") == "READWRITE"
    assert await client.delete_mode("s") == "READWRITE"
    await refused(42205, client.update_mode("s", "READONLY"))
    await refused(42204, client.update_global_mode("SIDEWAYS"))


MONEY = 'syntax = "proto3"; package common; message Money { int64 units = 1; }'
ORDER = """
syntax = "proto3"; import "common/money.proto"; import "google/protobuf/timestamp.proto";
message Header { message Id { string id = 1; } }
message Order { common.Money price = 1; google.protobuf.Timestamp at = 2; map<string, int32> counts = 3; }
"""


async def test_client_registers_protobuf_with_references(client, http):
    money = await client.register_schema("common/money.proto", Schema(MONEY, "PROTOBUF"))
    reference = SchemaReference("common/money.proto", "common/money.proto", 1)
    order = await client.register_schema("orders-value", Schema(ORDER, "PROTOBUF", [reference]))
    read = await client.get_schema(order)
    assert (read.schema_str, read.schema_type, read.references) == (ORDER, "PROTOBUF", [reference])
    found = await client.lookup_schema("orders-value", Schema(ORDER, "PROTOBUF", [reference]))
    assert (found.version, found.schema_id, found.schema.references) == (1, order, [reference])
    assert await client.get_referenced_by("common/money.proto", 1) == [order]
    await refused(42206, client.delete_subject("common/money.proto"))
    await refused(42201, client.register_schema("s", Schema(ORDER, "PROTOBUF")))
    assert await client.test_compatibility("common/money.proto", Schema(MONEY.replace("int64", "int32"), "PROTOBUF"))
    texts = Schema(MONEY.replace("int64", "string"), "PROTOBUF")
    assert not await client.test_compatibility("common/money.proto", texts)
    await refused(409, client.register_schema("common/money.proto", texts))
    assert (await http.get(f"/schemas/ids/{money}/schema")).text == MONEY
    serialized = (await http.get(f"/schemas/ids/{money}", params={"format": "serialized"})).json()["schema"]
    again = await client.register_schema("again", Schema(serialized, "PROTOBUF"))
    assert again == money, "a descriptor is the same schema as its text"


HOME = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"], "additionalProperties": False}
VISIT = {"title": "Visit", "type": "object", "properties": {"home": {"$ref": "home.json"}, "at": {"type": "string"}}}


async def test_confluents_json_serializers_work_unmodified(url, http):
    visit = {"home": {"id": 7}, "at": "noon"}

    def both_ways():
        with SchemaRegistryClient({"url": url, "max.retries": 0}) as client:
            client.register_schema("home.json", Schema(json.dumps(HOME), "JSON"))
            schema = Schema(json.dumps(VISIT), "JSON", [SchemaReference("home.json", "home.json", 1)])
            context = SerializationContext("visits", MessageField.VALUE)
            serialize = JSONSerializer(schema, client, conf={"normalize.schemas": True})
            data = serialize(visit, context)
            assert JSONDeserializer(None, schema_registry_client=client)(data, context) == visit
            with pytest.raises(SerializationError):
                serialize({"home": {"id": "x"}}, context)
            return data

    data = await asyncio.to_thread(both_ways)
    assert data[:5] == b"\0\0\0\0\x02"
    assert (await http.get("/subjects")).json() == ["home.json", "visits-value"]
    shown = (await http.get("/schemas/ids/2")).json()
    assert (shown["schemaType"], json.loads(shown["schema"])) == ("JSON", VISIT)
    assert shown["references"] == [{"name": "home.json", "subject": "home.json", "version": 1}]


async def test_confluents_protobuf_serializers_work_unmodified(url, http):
    classes = Classes({"common/money.proto": MONEY, "order.proto": ORDER})
    order = classes["Order"](price={"units": 5}, counts={"a": 1})
    order.at.seconds = 7
    header = classes["Header.Id"](id="x")

    def both_ways(message, topic):
        with SchemaRegistryClient({"url": url, "max.retries": 0}) as client:
            context = SerializationContext(topic, MessageField.VALUE)
            data = ProtobufSerializer(type(message), client)(message, context)
            assert ProtobufDeserializer(type(message), {}, client)(data, context) == message
            return data

    assert (await asyncio.to_thread(both_ways, order, "orders"))[:7] == b"\0\0\0\0\x02\x02\x02", "message 1"
    assert (await asyncio.to_thread(both_ways, header, "headers"))[:8] == b"\0\0\0\0\x02\x04\0\0", "message 0, in it 0"
    assert (await http.get("/subjects")).json() == ["common/money.proto", "headers-value", "orders-value"]
    text = (await http.get("/schemas/ids/2")).json()
    assert text["schema"].startswith('syntax = "proto3";\nimport "common/money.proto";')
    assert text["references"] == [{"name": "common/money.proto", "subject": "common/money.proto", "version": 1}]


async def test_client_errors(client):
    await refused(40401, client.get_latest_version("none"))
    await refused(40403, client.get_schema(99))
    await refused(42201, client.register_schema("s", Schema("{", "AVRO")))
    await refused(42201, client.register_schema("s", Schema("{}", "THRIFT")))
    await refused(42202, client.get_version("s", "sideways"))


async def test_any_name_is_a_subject(client):
    names = ["...", ":.ctx:s", "a/b", "a/versions", "a/versions/1", "ä b%+?#"]
    for name in names:
        await client.register_schema(name, avro("x"))
    assert await client.get_subjects() == names
    for name in names:
        assert await client.get_versions(name) == [1]
        assert (await client.get_latest_version(name)).subject == name
        assert await client.delete_subject(name) == [1]
    assert await client.get_subjects() == []


async def test_confluents_serializers_round_trip(url):
    def round_trip():
        with SchemaRegistryClient({"url": url}) as registry:
            context = SerializationContext("t", MessageField.VALUE)
            written = AvroSerializer(registry, text("x", "y"))({"x": 1, "y": None}, context)
            return written, AvroDeserializer(registry)(written, context)

    written, read = await asyncio.to_thread(round_trip)
    assert written[:5] == b"\0\0\0\0\1"
    assert read == {"x": 1, "y": None}


# --- HTTP as it is


async def test_answers_have_the_registrys_content_type(http):
    answer = await http.get("/subjects")
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert (await http.get("/schemas/ids/1")).headers["content-type"] == MEDIA_TYPE


async def test_schema_texts(http):
    await http.post("/subjects/s/versions", json={"schema": ' {"type" : "string"} '})
    assert (await http.get("/subjects/s/versions/latest/schema")).text == '"string"'
    assert (await http.get("/schemas/ids/1/schema")).text == '"string"'
    assert (await http.get("/subjects/s/versions/-1")).json() == {
        "subject": "s",
        "version": 1,
        "id": 1,
        "schema": '"string"',
    }


async def test_verbose_compatibility_says_why(http):
    await http.post("/subjects/s/versions", json={"schema": text("x")})
    path = "/compatibility/subjects/s/versions/latest"
    quiet = (await http.post(path, json={"schema": REQUIRED.schema_str})).json()
    verbose = (await http.post(path + "?verbose=true", json={"schema": REQUIRED.schema_str})).json()
    assert quiet == {"is_compatible": False}
    assert "must" in verbose["messages"][0]


HOSTILE_BODIES = [
    (b"", 400),
    (b"{", 400),
    (b"\xff", 400),
    (b"[" * 100_000, 42201),
    (b"{}", 42201),
    (b'{"schema":5}', 42201),
    (b'{"schema":"\\"string\\"","schemaType":5}', 42201),
    (b'{"schema":"\\"string\\"","references":[{"name":"a","subject":"b","version":1}]}', 42201),
    (b'{"schema":"\\"string\\"","references":[{"name":"a","subject":"b","version":-2}]}', 42201),
    (b'{"schema":"message M {","schemaType":"PROTOBUF"}', 42201),
    (b'{"schema":"AAAA","schemaType":"PROTOBUF"}', 42201),
    (b'{"schema":"{","schemaType":"JSON"}', 42201),
    (b'{"schema":"{\\"$ref\\":\\"http://127.0.0.1:1/x\\"}","schemaType":"JSON"}', 42201),
    (b'{"x":' + b"[" * 100_000, 400),
    (b'{"schema":"' + b"[" * 100_000 + b'"}', 42201),
    (b'{"schema":"' + b"x" * BODY_BYTES_MAX + b'"}', 413),
]


async def test_hostile_bodies(http):
    for body, code in HOSTILE_BODIES:
        answer = await http.post("/subjects/s/versions", content=body)
        assert answer.json()["error_code"] == code, body[:50]
        assert answer.json()["message"]
        assert str(code).startswith(str(answer.status_code))
    assert (await http.get("/subjects")).json() == []


REFUSED = [
    ("PUT", "/config", b"{", 400),
    ("PUT", "/config", b"{}", 42203),
    ("PUT", "/config", b'{"compatibility":"FULL","normalize":true}', 42203),
    ("PUT", "/mode", b"5", 42204),
    ("GET", "/schemas/ids/x", b"", 40403),
    ("GET", "/schemas/ids/99999999999999999999", b"", 40403),
    ("GET", "/subjects?offset=x", b"", 400),
    ("GET", "/subjects/s/versions/0", b"", 42202),
    ("POST", "/subjects/a%0Ab/versions", b'{"schema":"\\"string\\""}', 42208),
]


async def test_refused_requests(http):
    for method, path, body, code in REFUSED:
        answer = await http.request(method, path, content=body)
        assert answer.json()["error_code"] == code, path


async def test_a_body_without_end_is_cut_off(http):
    async def endless():
        while True:
            yield b"x" * 65_536

    try:
        answer = await http.post("/subjects/s/versions", content=endless())
    except httpx.TransportError:  # the connection was closed while we still wrote
        return
    assert answer.status_code == 413


async def test_a_broken_store_is_an_answer(http, store):
    await store._database.close()
    answer = await http.get("/subjects")
    assert (answer.status_code, answer.json()["error_code"]) == (500, 50001)


async def test_a_bug_is_an_answer(http, registry, monkeypatch):
    monkeypatch.setattr(registry, "subjects", None)
    answer = await http.get("/subjects")
    assert (answer.status_code, answer.json()["error_code"]) == (500, 500)


async def test_other_methods_and_paths(http):
    assert (await http.patch("/subjects")).status_code == 405
    assert (await http.get("/nothing")).status_code == 404
