"""aiokafka with default settings."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from support.wait import DEADLINE_S, until


@pytest.mark.parametrize("compression", [None, "gzip", "snappy", "lz4", "zstd"])
async def test_produce_and_consume(server, topic, compression):
    name = topic()
    async with AIOKafkaProducer(bootstrap_servers=server.bootstrap, compression_type=compression) as producer:
        await asyncio.gather(
            *[await producer.send(name, f"v{i}".encode(), key=b"k", headers=[("h", b"x")]) for i in range(300)]
        )
    async with AIOKafkaConsumer(name, bootstrap_servers=server.bootstrap, auto_offset_reset="earliest") as consumer:
        got = [await asyncio.wait_for(consumer.getone(), DEADLINE_S) for _ in range(300)]
    assert [m.value for m in got] == [f"v{i}".encode() for i in range(300)]
    assert got[0].headers == (("h", b"x"),)


async def test_idempotent(server, topic):
    name = topic()
    async with AIOKafkaProducer(bootstrap_servers=server.bootstrap, enable_idempotence=True) as producer:
        results = [await producer.send_and_wait(name, b"v") for _ in range(20)]
    assert [r.offset for r in results] == list(range(20))


async def test_group_commits_and_goes_on(server, topic):
    name = topic()
    async with AIOKafkaProducer(bootstrap_servers=server.bootstrap) as producer:
        for i in range(40):
            await producer.send_and_wait(name, str(i).encode())
    got = []
    for _ in range(2):
        async with AIOKafkaConsumer(
            name,
            bootstrap_servers=server.bootstrap,
            group_id=f"g-{name}",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_poll_records=20,
        ) as consumer:
            for _ in range(20):
                got.append((await asyncio.wait_for(consumer.getone(), DEADLINE_S)).offset)
            await consumer.commit()
    assert got == list(range(40))


async def test_two_members_rebalance(server, topic):
    name = topic()
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=server.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 4, 1)])
    await admin.close()

    def consumer():
        return AIOKafkaConsumer(
            name, bootstrap_servers=server.bootstrap, group_id=f"g-{name}", auto_offset_reset="earliest"
        )

    first = consumer()
    await first.start()
    await until(lambda: len(first.assignment()) == 4, 0.1)
    second = consumer()
    await second.start()
    await until(lambda: len(first.assignment()) == len(second.assignment()) == 2, 0.1)
    assert not first.assignment() & second.assignment()
    await second.stop()
    await until(lambda: len(first.assignment()) == 4, 0.1)
    await first.stop()
