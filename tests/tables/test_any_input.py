"""Whatever is sent and however a topic is configured: the real server and its worker end every record in the table or in
its dead letters, or the topic was refused. The same with more examples, in one process: tests/table/test_any_input.py."""

import json
import random
from collections.abc import Callable

import httpx
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from support import lake
from support.any_input import SEARCH, Source, configs, odd_schemas
from support.avro_random import RandomAvro
from support.raw_kafka import RawClient
from support.server import Server
from support.wait import DEADLINE_S, wait_until

from streamlake.record.encode import encode_batch

KEEP = {"retention.ms": "-1", "message.timestamp.after.max.ms": str(2**63 - 1)}  # any time is good


@pytest.mark.slow
@settings(
    max_examples=12,
    phases=SEARCH,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_every_record_is_a_row_or_a_dead_letter(server: Server, topic: Callable[[], str], data: st.DataObject) -> None:
    name = topic()
    chosen = {**data.draw(configs()), **KEEP, lake.TABLE + "commit.interval.ms": "200"}
    if chosen[lake.TABLE + "name"]:  # a table of its own
        chosen[lake.TABLE + "name"] = (name + chosen[lake.TABLE + "name"])[:249]
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    try:
        admin.create_topics([NewTopic(name, 2, config=chosen)])[name].result(DEADLINE_S)
    except KafkaException as error:
        assert "streamlake.table." in str(error)
        event("refused")
        return
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    avro = RandomAvro(rng)
    schemas = {}
    for number, schema in enumerate(odd_schemas(rng, avro, 3)):
        answer = httpx.post(
            f"{server.http}/subjects/{name}-{number}/versions", json={"schema": json.dumps(schema)}, timeout=DEADLINE_S
        )
        if answer.status_code == 200:
            schemas[answer.json()["id"]] = schema
    source = Source(data.draw, avro, schemas)
    sent = 0
    with RawClient(server.port) as client:
        for _ in range(2):
            for partition, records in source.batches():
                answer = client.produce(name, encode_batch(records), partition)
                assert answer.error_code == 0, answer
                sent += len(records)
            wait_until(lambda sent=sent: accounted(server, name) == sent)
    table = server.tables()[name]
    assert table["state"] == "running", table
    event(f"rows: {table['rows'] > 0}, dead letters: {table['dead_letters'] > 0}")


def accounted(server: Server, name: str) -> int:
    table = server.tables().get(name, {})
    assert table.get("state") not in ("failed", "retrying"), table
    return int(table.get("rows") or 0) + int(table.get("dead_letters") or 0)
