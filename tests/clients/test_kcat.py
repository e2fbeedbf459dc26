"""kcat, where it is installed (CI installs it): produce from a pipe, consume alone and in a group, query metadata."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile

import pytest
from support.wait import DEADLINE_S, wait_until

pytestmark = pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed")


def kcat(server, *arguments, text=None):
    done = subprocess.run(
        ["kcat", "-b", server.bootstrap, *arguments], input=text, capture_output=True, text=True, timeout=DEADLINE_S
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


def test_idempotent(server, topic):
    name = topic()
    kcat(server, "-P", "-t", name, "-X", "enable.idempotence=true", text="a\nb\n")
    assert kcat(server, "-C", "-t", name, "-e", "-q", "-o", "beginning", "-f", "%o:%s\n").splitlines() == ["0:a", "1:b"]


def test_two_members_share_the_partitions(server, topic):
    """The second joins while the first is there; each is told its half (kcat prints assignments on stderr)."""
    name = topic()
    subprocess.run(
        [sys.executable, "-m", "streamlake.cli.main", "topic", "create", name, "-p", "4", "-b", server.bootstrap],
        check=True,
    )
    command = ["kcat", "-b", server.bootstrap, "-G", f"g-{name}", name]
    with contextlib.ExitStack() as stack:
        said = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)]
        members = []
        for file in said:
            members.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file))
            stack.callback(members[-1].kill)

        def halves() -> bool:
            one, other = (last_assignment(file) for file in said)
            return len(one) == len(other) == 2 and not one & other

        wait_until(halves, lambda: [last_assignment(file) for file in said])


def last_assignment(file) -> set[str]:
    file.seek(0)
    assigned = [line for line in file.read().decode().splitlines() if "assigned:" in line]
    return set(re.findall(r"\[(\d+)\]", assigned[-1])) if assigned else set()
