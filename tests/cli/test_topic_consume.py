"""Records of a topic on stdout."""

import base64
import subprocess
import sys
import time

import pytest
from confluent_kafka import Producer
from support.wait import DEADLINE_S

from streamlake.cli.console import Usage
from streamlake.cli.topic_consume import AtTime, read_offset

NOW_MS = int(time.time()) * 1000 - 3_600_000  # retention and the rule against the future let it be


@pytest.fixture(scope="module")
def filled(lake):
    """Two partitions: 0 has nothing but text, 1 what terminals must not obey; all codecs."""
    from streamlake.cli.topic import create

    create("cli-consume", partitions=2, config=[], bootstrap=lake.bootstrap)
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        producer = Producer({"bootstrap.servers": lake.bootstrap, "compression.codec": codec})
        for n in range(4):
            producer.produce("cli-consume", f"{codec}-{n}", key=codec, partition=0, timestamp=NOW_MS + n)
        assert producer.flush(DEADLINE_S) == 0
    producer = Producer({"bootstrap.servers": lake.bootstrap})
    producer.produce(
        "cli-consume", b"\x1b[31m\xff[red]", key=None, partition=1, headers=[("h", b"1")], timestamp=NOW_MS
    )
    producer.produce("cli-consume", None, key=b"gone", partition=1, timestamp=NOW_MS + 5000)
    assert producer.flush(DEADLINE_S) == 0
    return "cli-consume"


def test_from_start_to_end(run, filled):
    done = run("topic", "consume", filled, "-p", "0")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{codec}-{n}" for codec in ("none", "gzip", "snappy", "lz4", "zstd") for n in range(4)
    ]
    assert len(run("topic", "consume", filled, "-f", r"%o\n").stdout.split()) == 22


@pytest.mark.parametrize(
    ("arguments", "offsets"),
    [
        (["-o", "17"], "17 18 19"),
        (["-o", "-2"], "18 19"),
        (["-o", "-99", "-n", "2"], "0 1"),
        (["-o", "end", "--no-follow"], ""),
        (["-n", "3"], "0 1 2"),
        (["-n", "0"], ""),
        (["-o", "20"], ""),
        (["-o", f"@{NOW_MS + 3}", "-n", "1"], "3"),
        (["-o", "@2000-01-01", "-n", "1"], "0"),
        (["-o", "@2099-01-01T00:00Z"], ""),
    ],
)
def test_where_to_begin_and_how_many(run, filled, arguments, offsets):
    done = run("topic", "consume", filled, "-p", "0", "-f", "%o ", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == offsets


def test_what_is_no_text_is_shown_safely(run, filled):
    done = run("topic", "consume", filled, "-p", "1", "-f", r"%p %o %d [%k] %K %v %V %h\n")
    assert done.stdout == (f"1 0 {NOW_MS} [] -1 \\x1b[31m\\xff[red] 11 h=1\n1 1 {NOW_MS + 5000} [gone] 4  -1 \n")
    coded = run("topic", "consume", filled, "-p", "1", "-n", "1", "-f", "%v{base64}").stdout
    assert base64.b64decode(coded) == b"\x1b[31m\xff[red]"


def test_mistakes_say_what_to_do(run, filled):
    for arguments, code, says in [
        (["cli-none"], 1, "topic cli-none does not exist"),
        ([filled, "-p", "5"], 1, "has no partition 5: it has 0 to 1"),
        ([filled, "-o", "21"], 1, "partition 0 holds 0 to 20"),
        ([filled, "-o", "middle"], 2, "start, end"),
        ([filled, "-o", "@noon"], 2, "2026-01-31"),
        ([filled, "-f", "%z"], 2, "no field %z"),
        ([filled, "-b", "127.0.0.1:1"], 3, "no Kafka broker answers"),
    ]:
        done = run("topic", "consume", *arguments)
        assert (done.returncode, done.stdout) == (code, ""), (arguments, done.stderr)
        assert says in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


def test_follow_waits_for_more(run, lake):
    run("topic", "create", "cli-follow")
    run("topic", "produce", "cli-follow", text="before\n")
    tool = [sys.executable, "-m", "streamlake.cli.main", "topic", "consume", "cli-follow", "-b", lake.bootstrap]
    with subprocess.Popen([*tool, "--follow", "-n", "2"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "before\n"
        run("topic", "produce", "cli-follow", text="after\n")
        assert process.stdout.readline() == "after\n"
        assert process.wait(timeout=DEADLINE_S) == 0
    with subprocess.Popen([*tool, "-o", "end", "-n", "1"], stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:  # until it stands at the end, and then one more
            run("topic", "produce", "cli-follow", text="again\n")
            time.sleep(0.2)
        assert (process.stdout.read(), process.returncode) == ("again\n", 0)


def test_what_produce_wrote_consume_reads(run):
    run("topic", "create", "cli-round", "-p", "3")
    lines = [f"{n}:{'v' * (n % 100)}" for n in range(20_000)]
    assert run("topic", "produce", "cli-round", "-K", ":", text="\n".join(lines)).returncode == 0
    assert sorted(run("topic", "consume", "cli-round", "-f", r"%k:%v\n").stdout.split()) == sorted(lines)


def test_offsets_are_texts_with_a_meaning():
    assert [read_offset(text, NOW_MS)(10, 20) for text in ("start", "end", "5", "15", "-3", "-30")] == [
        10,
        20,
        10,
        15,
        17,
        10,
    ]
    for text, ms in [
        ("@1700000000", 1_700_000_000_000),
        ("@1700000000000", 1_700_000_000_000),
        ("@-10m", NOW_MS - 600_000),
    ]:
        assert read_offset(text, NOW_MS) == AtTime(ms)
    assert (
        read_offset("@2026-01-31", NOW_MS)
        == read_offset("@2026-01-31T01:00+01:00", NOW_MS)
        == AtTime(1_769_817_600_000)
    )
    for text in ("", "x", "@", "@-5y", "1.5", "--1"):
        with pytest.raises(Usage):
            read_offset(text, NOW_MS)
