"""Lines of stdin become records that any client reads."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from support.server import Server, heed_interrupts
from support.server_fixtures import *  # noqa: F403
from support.wait import DEADLINE_S

from streamlake.cli import topic_produce
from streamlake.cli.partitioner import partition_of
from streamlake.core.errors import Invalid


def records(lake: Server, topic: str, partitions: int = 1) -> list[list[tuple]]:
    """(key, value, headers) of each partition, as librdkafka reads them."""
    consumer = Consumer({"bootstrap.servers": lake.bootstrap, "group.id": "cli-produce", "enable.auto.commit": False})
    found = []
    for partition in range(partitions):
        place = TopicPartition(topic, partition, 0)
        _, end = consumer.get_watermark_offsets(place, 20)
        consumer.assign([place])
        messages: list = []
        while len(messages) < end:
            messages += consumer.consume(end - len(messages), 20)
        found.append([(m.key(), m.value(), m.headers()) for m in messages])
    consumer.close()
    return found


def test_each_line_is_a_record(run, lake):
    run("topic", "create", "cli-lines")
    done = run("topic", "produce", "cli-lines", text='{"n": 1}\n\n[red]\tö\r\nlast')
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "4 records acknowledged by topic cli-lines\n")
    assert [value for _, value, _ in records(lake, "cli-lines")[0]] == [b'{"n": 1}', b"", b"[red]\t\xc3\xb6\r", b"last"]


def test_keys_headers_and_tombstones(run, lake):
    run("topic", "create", "cli-keys", "-p", "4")
    done = run(
        "topic", "produce", "cli-keys", "-K", r"\t", "-H", "a=1=2", "-H", "b=", "-Z", text="k1\tx\ty\nk2\t\n\tz\n"
    )
    assert done.returncode == 0, done.stderr
    found = records(lake, "cli-keys", 4)
    headers = [("a", b"1=2"), ("b", b"")]
    for key, value in [(b"k1", b"x\ty"), (b"k2", None), (b"", b"z")]:
        assert (key or None, value, headers) in [(k or None, v, h) for k, v, h in found[partition_of(key, 4)]]


def test_a_partition_may_be_chosen(run, lake):
    run("topic", "create", "cli-chosen", "-p", "2")
    assert run("topic", "produce", "cli-chosen", "-p", "1", text="a\nb\n").returncode == 0
    assert [len(p) for p in records(lake, "cli-chosen", 2)] == [0, 2]


def test_many_lines_keep_their_order_and_large_ones_fit(run, lake):
    run("topic", "create", "cli-many", "-c", "max.message.bytes=100000")
    lines = [f"{n:09d}" + "x" * (n % 50) for n in range(60_000)] + ["y" * 90_000] * 3
    done = run("topic", "produce", "cli-many", text="\n".join(lines) + "\n")
    assert done.stderr == "60,003 records acknowledged by topic cli-many\n"
    assert [value.decode() for _, value, _ in records(lake, "cli-many")[0]] == lines


def test_nothing_is_nothing(run):
    run("topic", "create", "cli-nothing")
    done = run("topic", "produce", "cli-nothing", text="")
    assert (done.returncode, done.stderr) == (0, "0 records acknowledged by topic cli-nothing\n")


def test_mistakes_say_what_to_do(run):
    run("topic", "create", "cli-wrong", "-c", "max.message.bytes=1000")
    for arguments, code, says in [
        (["cli-none"], 1, "topic cli-none does not exist"),
        (["cli-wrong", "-p", "7"], 1, "has no partition 7"),
        (["cli-wrong", "-K", ":"], 1, "line 1 has no key"),
        (["cli-wrong", "-K", ""], 2, "must not be empty"),
        (["cli-wrong", "-H", "x"], 2, "KEY=VALUE"),
        (["cli-wrong", "-b", "127.0.0.1:1"], 3, "no Kafka broker answers"),
    ]:
        done = run("topic", "produce", *arguments, text="x\n")
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), (arguments, done.stderr)
        assert says in done.stderr, (arguments, done.stderr)
    done = run("topic", "produce", "cli-wrong", text="ok\n" + "z" * 2000 + "\nok\n")
    assert done.returncode == 1
    assert "line 2: " in done.stderr and "1 record acknowledged" in done.stderr


def test_a_line_has_a_limit(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(topic_produce, "LINE_BYTES_MAX", 1000)
    monkeypatch.setattr(topic_produce, "READ_BYTES", 100)
    file = tmp_path / "lines"
    for text, good in [(b"x" * 900 + b"\ny", True), (b"x" * 5000, False)]:
        file.write_bytes(text)
        descriptor = os.open(file, os.O_RDONLY)
        if good:
            assert [line for lines in topic_produce.read_lines(descriptor) for line in lines] == [b"x" * 900, b"y"]
        else:
            with pytest.raises(Invalid, match="longer than 1000 bytes"):
                list(topic_produce.read_lines(descriptor))
        os.close(descriptor)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def typed(new_server):
    """A server, and a `topic produce` of it into which lines can be typed."""
    server = new_server(config="[tables]\nenabled = false\n").start()
    tool = [sys.executable, "-m", "streamlake.cli.main"]
    subprocess.run([*tool, "topic", "create", "typed", "-b", server.bootstrap], check=True, timeout=DEADLINE_S)
    process = subprocess.Popen(
        [*tool, "topic", "produce", "typed", "-b", server.bootstrap],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heed_interrupts,
    )

    def wait_for(count: int) -> list[bytes]:
        while len(found := records(server, "typed")[0]) < count:
            assert process.poll() is None, process.stderr.read()
        return [value for _, value, _ in found]

    yield server, process, wait_for
    if process.poll() is None:
        process.kill()
        process.wait(timeout=DEADLINE_S)


def type_line(process, line: bytes) -> None:
    process.stdin.write(line + b"\n")
    process.stdin.flush()


def test_typed_lines_go_out_at_once_and_a_restart_of_the_broker_is_survived(typed):
    server, process, wait_for = typed
    type_line(process, b"one")
    assert wait_for(1) == [b"one"]
    assert server.stop() == 0
    server.start()
    type_line(process, b"two")
    assert wait_for(2) == [b"one", b"two"]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=DEADLINE_S) == 130
    assert process.stderr.read() == b"2 records acknowledged by topic typed\n"


def test_a_broker_that_goes_away_is_unreachable(typed):
    server, process, wait_for = typed
    type_line(process, b"one")
    wait_for(1)
    server.kill()
    type_line(process, b"two")
    _, told = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 3
    assert b"line 2 may or may not be in the topic" in told and b"1 record acknowledged" in told
