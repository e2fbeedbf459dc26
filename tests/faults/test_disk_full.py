"""The disk is full, to the last byte, log file included: a clear error for each, and nothing acknowledged is lost."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from support import lake
from support.log_check import Ledger
from support.raw_kafka import RawClient, batch
from support.server import Server
from support.wait import DEADLINE_S

from streamlake.protocol.errors import ErrorCode

MIB = 1 << 20
DISK_BYTES = 32 * MIB
CONFIG = """
[storage]
wal_segment_bytes = 1048576
wal_capacity_bytes = 8388608
upload_bytes = 2097152
upload_interval_s = 1.0
gc_interval_s = 1.0
gc_grace_s = 1.0
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(path: Path) -> None:
    """Take what is left, to the last byte."""
    with path.open("wb", buffering=0) as file:
        for size in (65_536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_the_disk_fills_up(
    small_disk: Path, new_server: Callable[..., Server]
) -> None:
    server = new_server(CONFIG, small_disk / "data").start()
    lake.create_topic(server, "t", 2, convert_value_type="raw")
    timeouts = {"request.timeout.ms": 1500, "message.timeout.ms": 4000}
    ledger = Ledger(server, "t", 2, **timeouts)
    padding = os.urandom(20_000)
    while not ledger.failed:
        ledger.produce(20, padding)
        ledger.flush(0.2)
    fill(small_disk / "fill")
    assert server.process.poll() is None, server.log[-3000:]

    with RawClient(server.port) as client:
        for _ in range(60):  # each is a line in a log that cannot be written
            with RawClient(server.port) as stranger:
                stranger.send(b"\xff\xff\xff\xff")
                assert stranger.is_closed_by_server()
        answer = client.produce("t", batch([bytes(900_000)]), timeout_ms=1000)
        while "no room" not in (answer.error_message or ""):  # on a busy machine the ledger may have failed before
            answer = client.produce("t", batch([bytes(900_000)]), timeout_ms=1000)
        assert answer.error_code == ErrorCode.REQUEST_TIMED_OUT  # producers try again
        # Which of the two says it depends on whether the segment being filled still has room.
        assert "No space left" in answer.error_message or "uploads do not keep up" in answer.error_message
    with pytest.raises(KafkaException, match="full: free some space"):
        lake.create_topic(server, "another")
    assert server.process.poll() is None

    (small_disk / "fill").unlink()
    subprocess.run(["mount", "-o", f"remount,size={8 * DISK_BYTES}", str(small_disk)], check=True)
    ledger.produce(200, padding)
    assert ledger.flush() == 0
    log = ledger.check(server)
    assert len(ledger.acked) > 500
    server.wait_for_table("t", len(log))
    assert server.stop() == 0
    server.start()
    ledger.check(server)
    assert server.stop() == 0


@pytest.mark.slow
def test_a_server_that_starts_on_a_full_disk_says_so(small_disk: Path, new_server: Callable[..., Server]) -> None:
    server = new_server(CONFIG, small_disk / "data")
    fill(small_disk / "fill")
    with pytest.raises(RuntimeError, match="exited with 1"):
        server.start()
    # The log is on that disk too; what a terminal shows:
    done = subprocess.run(server.command(), capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 1
    assert "full" in done.stderr or "No space left" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    (small_disk / "fill").unlink()
    server.start()
    lake.create_topic(server, "t")
    assert server.stop() == 0
