"""A data directory that is in use, damaged or somebody else's: one clear line, exit code 1, and nothing is touched."""

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import lake
from support.log_check import Ledger
from support.server import Server

NewServer = Callable[..., Server]
CONFIG = """
[tables]
enabled = false
[storage]
wal_segment_bytes = 65536
wal_capacity_bytes = 1048576
upload_bytes = 65536
upload_interval_s = 0.5
"""


def content(folder: Path) -> dict[str, str]:
    """Every file and its bytes, but for what says who runs."""
    files = (f for f in sorted(folder.rglob("*")) if f.is_file() and f.name not in ("server.log", "lock", "test.toml"))
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def refused(server: Server) -> str:
    """What it prints when it will not start."""
    done = subprocess.run(server.command(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    assert "ready" not in done.stderr
    return done.stderr


@pytest.fixture
def filled(new_server: NewServer) -> tuple[Server, Ledger]:
    """A server, killed, with data in objects and in the WAL."""
    server = new_server(CONFIG).start()
    lake.create_topic(server, "t", 2)
    ledger = Ledger(server, "t", 2)
    ledger.produce(400, b"x" * 1000)
    assert ledger.flush() == 0
    server.kill()
    return server, ledger


def test_a_second_server_on_the_same_directory(new_server: NewServer) -> None:
    first = new_server(CONFIG).start()
    lake.create_topic(first, "t")
    ledger = Ledger(first, "t")
    ledger.produce(100)
    before = content(first.data_dir / "wal")
    second = Server.__new__(Server)
    second.__dict__ = {**first.__dict__, "port": 0, "http_port": 0, "process": None}
    said = refused(second)
    assert f"another server uses {first.data_dir}" in said and "--data-dir" in said
    assert content(first.data_dir / "wal").keys() == before.keys()
    ledger.produce(100)
    assert ledger.flush() == 0 and not ledger.failed
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
    assert "metadata.db" in said and "restore" in said, said
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
    said = refused(server)
    assert lose.removesuffix(".db") in said, said
    kept = content(server.data_dir)
    assert {name: kept.get(name) for name in before} == before
    for path in lost:  # found again
        if path.is_dir():
            subprocess.run(["rm", "-r", str(path)], check=True)
        (tmp_path / path.name).rename(path)
    server.start()
    ledger.check(server)
    assert server.stop() == 0


def segments(server: Server) -> list[Path]:
    return sorted(f for f in (server.data_dir / "wal").rglob("*") if f.is_file() and f.stat().st_size > 0)


def test_a_damaged_record_in_the_middle_of_the_wal_stops_the_start(filled: tuple[Server, Ledger]) -> None:
    """A torn tail is what a crash leaves. Damage with whole records after it is not: they were acknowledged."""
    server, ledger = filled
    files = segments(server)
    assert files
    newest = max(files, key=lambda f: f.stat().st_mtime_ns)
    data = bytearray(newest.read_bytes())
    used = len(bytes(data).rstrip(b"\0"))
    middle = used // 2
    damaged = bytearray(data)
    damaged[middle : middle + 64] = bytes(b ^ 0xFF for b in damaged[middle : middle + 64])
    newest.write_bytes(damaged)
    before = content(server.data_dir)
    said = refused(server)
    assert newest.name in said, said
    assert (
        content(server.data_dir)[str(newest.relative_to(server.data_dir))]
        == before[str(newest.relative_to(server.data_dir))]
    )
    newest.write_bytes(data)
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


def test_one_damaged_object_spoils_no_other_data(filled: tuple[Server, Ledger]) -> None:
    server, ledger = filled
    server.start()
    lake.create_topic(server, "other")
    other = Ledger(server, "other")
    assert server.stop() == 0  # all is in objects
    objects = [f for f in (server.data_dir / "objects").rglob("*") if f.is_file()]
    for file in objects:
        data = bytearray(file.read_bytes())
        data[len(data) // 3 : len(data) // 3 + 16] = bytes(16)
        file.write_bytes(data)
    server.start()
    other.produce(10)
    assert other.flush() == 0 and len(other.check(server)) == 10
    with pytest.raises(AssertionError):
        ledger.check(server)
    assert server.process.poll() is None
    assert "orrupt" in server.log or "CRC" in server.log
    assert server.stop() == 0
