"""A data directory that is in use, damaged or somebody else's: one clear line, exit code 1, and nothing is touched."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import lake
from support.log_check import Ledger
from support.raw_kafka import RawClient
from support.server import Server
from support.wait import DEADLINE_S

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, fetch

NOT_DATA = ("lock", "server.json", "server.log", "test.toml")
NewServer = Callable[..., Server]
CONFIG = """
[tables]
enabled = false
[storage]
wal_segment_bytes = 262144
wal_capacity_bytes = 8388608
upload_interval_s = 1000
"""  # nothing is uploaded before a clean stop


def content(folder: Path) -> dict[str, str]:
    """Every file and its bytes, but for what says who runs."""
    files = (f for f in sorted(folder.rglob("*")) if f.is_file() and f.name not in NOT_DATA)
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def refused(server: Server) -> str:
    """What it prints when it will not start."""
    done = subprocess.run(server.command(), capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    assert " ready " not in done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ledger]:
    """The directory of a server that was killed, with data in objects and, in several segments, in the WAL."""
    server = Server(tmp_path_factory.mktemp("template") / "data", CONFIG).start()
    lake.create_topic(server, "t", 2)
    ledger = Ledger(server, "t", 2)
    for end in (server.stop, server.kill):
        for _ in range(13):
            ledger.produce(50, b"x" * 1000)
            ledger.settle()  # one group in the WAL at least
        end()
        if end == server.stop:
            server.start()
    return server.data_dir, ledger


@pytest.fixture
def filled(template: tuple[Path, Ledger], new_server: NewServer, tmp_path: Path) -> tuple[Server, Ledger]:
    """A copy of it, and what must be in it."""
    data_dir, ledger = template
    shutil.copytree(data_dir, tmp_path / "data")
    return new_server(CONFIG), ledger


def test_a_second_server_on_the_same_directory(new_server: NewServer) -> None:
    first = new_server(CONFIG).start()
    lake.create_topic(first, "t")
    ledger = Ledger(first, "t")
    ledger.produce(100)
    ledger.settle()
    before = content(first.data_dir)
    second = Server.__new__(Server)
    second.__dict__ = {**first.__dict__, "port": 0, "http_port": 0, "process": None}
    said = refused(second)
    assert f"another server uses {first.data_dir}" in said and "--data-dir" in said
    assert {name for name in content(first.data_dir) if "wal" not in name} == {n for n in before if "wal" not in n}
    ledger.produce(100)
    ledger.settle()
    assert len(ledger.check(first)) == 200
    assert (first.data_dir / "server.json").exists()
    assert first.stop() == 0


def test_a_port_in_use_is_told_before_anything_is_recovered(filled: tuple[Server, Ledger], server: Server) -> None:
    ours, _ = filled
    before = content(ours.data_dir)
    ours.port = server.port
    assert "--port" in refused(ours)
    ours.port, ours.http_port = 0, server.http_port
    assert "--http-port" in refused(ours)
    assert content(ours.data_dir) == before


def garbage(file: Path) -> None:
    file.write_bytes(os.urandom(20_000))


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize("damage", [garbage, cut], ids=lambda d: d.__name__)
def test_a_damaged_metadata_store(filled: tuple[Server, Ledger], damage: Callable[[Path], None]) -> None:
    server, _ = filled
    file = server.data_dir / "metadata.db"
    server.start()
    assert server.stop() == 0  # what SQLite had in its own log is in the file now
    damage(file)
    before = content(server.data_dir)
    said = refused(server)
    assert "metadata.db is not a usable" in said and "backup" in said, said
    after = content(server.data_dir)
    assert {name: after.get(name) for name in before if "metadata.db-" not in name} == {
        name: digest for name, digest in before.items() if "metadata.db-" not in name
    }


@pytest.mark.parametrize("lose", ["metadata.db", "wal", "objects"])
def test_a_part_of_the_directory_is_lost(filled: tuple[Server, Ledger], lose: str, tmp_path: Path) -> None:
    """Never an empty server in place of a full one."""
    server, ledger = filled
    lost = sorted(server.data_dir.glob(f"{lose}*"))
    for path in lost:
        path.rename(tmp_path / path.name)
    before = content(server.data_dir)
    assert f"{server.data_dir / lose} is missing" in refused(server)
    assert content(server.data_dir) == before
    for path in lost:  # found again
        (tmp_path / path.name).rename(path)
    server.start()
    ledger.check(server)
    assert server.stop() == 0


def used_segments(server: Server) -> list[Path]:
    """In order of use: the first record has the generation that stands in the header (docs/formats/wal.md)."""
    found = {f.read_bytes()[8:16]: f for f in (server.data_dir / "wal").glob("*.wal")}
    return [f for generation, f in sorted(found.items()) if f.read_bytes()[4096 + 16 :].startswith(generation)]


@pytest.mark.parametrize("which", [0, -1], ids=["first", "last"])
def test_damage_in_what_the_wal_had_acknowledged(filled: tuple[Server, Ledger], which: int) -> None:
    """A torn tail is what a crash leaves. Damage with records after it that were written later is not."""
    server, ledger = filled
    files = used_segments(server)
    assert len(files) > 1
    damaged = files[which]
    sound = damaged.read_bytes()
    at = 4096 + (len(sound.rstrip(b"\0")) - 4096) // 3
    damaged.write_bytes(sound[:at] + bytes(b ^ 0xFF for b in sound[at : at + 64]) + sound[at + 64 :])
    before = content(server.data_dir / "wal")
    said = refused(server)
    assert damaged.name in said and "restore" in said, said
    assert content(server.data_dir / "wal") == before
    damaged.write_bytes(sound)
    server.start()
    ledger.check(server)
    assert server.stop() == 0


def test_foreign_files_are_left_alone(filled: tuple[Server, Ledger]) -> None:
    server, ledger = filled
    foreign = [server.data_dir / "notes.txt"]
    foreign += [server.data_dir / part / "notes.txt" for part in ("wal", "objects")]
    foreign += [server.data_dir / "wal" / "00000000000000000099.tmp.bak", server.data_dir / "objects" / ".DS_Store"]
    for file in foreign:
        file.write_text("keep me")
    server.start()
    ledger.check(server)
    assert server.stop() == 0
    server.start()
    assert server.stop() == 0
    assert all(file.read_text() == "keep me" for file in foreign)


def test_a_directory_that_cannot_be_made_or_is_a_file(new_server: NewServer, tmp_path: Path) -> None:
    server = new_server(CONFIG)
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        server.data_dir = target
        assert str(target) in refused(server)


def test_damaged_objects_are_an_error_for_who_reads_them_and_nobody_else(filled: tuple[Server, Ledger]) -> None:
    server, _ = filled
    objects = [f for f in (server.data_dir / "objects").rglob("*") if f.is_file() and f.name != "cluster"]
    for file in objects:
        data = bytearray(file.read_bytes())
        data[len(data) // 3 : len(data) // 3 + 16] = bytes(16)
        file.write_bytes(data)
    server.start()
    lake.create_topic(server, "other")
    other = Ledger(server, "other")
    other.produce(10)
    other.settle()
    assert len(other.check(server)) == 10
    with RawClient(server.port) as client:
        wanted = fetch.FetchTopic(topic="t", partitions=(fetch.FetchPartition(partition=0, fetch_offset=0),))
        request = fetch.FetchRequest(replica_id=-1, max_wait_ms=100, max_bytes=1 << 20, topics=(wanted,))
        answers = [client.call(ApiKey.FETCH, 12, request).responses[0].partitions[0] for _ in range(3)]
    assert [a.error_code for a in answers] == [ErrorCode.KAFKA_STORAGE_ERROR] * 3
    assert [a.records for a in answers] == [b""] * 3, "librdkafka cannot parse null"
    assert server.log.count("a committed object is damaged") == 1
    assert server.process.poll() is None
