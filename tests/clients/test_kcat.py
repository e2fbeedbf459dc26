"""kcat, where it is installed (CI installs it): produce from a pipe, consume alone and in a group, query metadata."""

import json
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed")


def kcat(server, *arguments, text=None):
    done = subprocess.run(
        ["kcat", "-b", server.bootstrap, *arguments], input=text, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_produce_and_consume(server, topic, codec):
    name = topic()
    lines = [f"line {i}" for i in range(200)]
    kcat(server, "-P", "-t", name, "-z", codec, text="\n".join(lines) + "\n")
    assert kcat(server, "-C", "-t", name, "-e", "-q", "-o", "beginning").splitlines() == lines


def test_group(server, topic):
    name = topic()
    kcat(server, "-P", "-t", name, text="a\nb\nc\n")
    out = kcat(server, "-G", f"g-{name}", "-e", "-q", "-X", "auto.offset.reset=earliest", name)
    assert out.splitlines() == ["a", "b", "c"]


def test_metadata(server, topic):
    name = topic()
    kcat(server, "-P", "-t", name, text="a\n")
    listed = json.loads(kcat(server, "-L", "-J", "-t", name))
    assert [b["id"] for b in listed["brokers"]] == [0]
    assert listed["topics"][0]["partitions"][0]["leader"] == 0
