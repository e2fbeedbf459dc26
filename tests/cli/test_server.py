"""`streamlake server` as a command; what it serves is tested elsewhere."""

import json
import resource
import subprocess
import sys

import pytest
from support.server_fixtures import *  # noqa: F403
from support.wait import DEADLINE_S, wait_until


def test_a_wrong_config_file_is_a_clear_error(run, tmp_path):
    file = tmp_path / "x.toml"
    file.write_text("[server]\nprot = 1\n")
    done = run("server", "--config", str(file))
    assert done.returncode == 1
    assert "server.prot" in done.stderr
    assert "port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[tables]\ncatalog = "glue"\n', "tables.catalog is 'glue'"),
        ('[kafka]\n"num.partition" = 1\n', "did you mean num.partitions"),
        ('[storage]\nwal = "tape"\n', "storage.wal"),
    ],
)
def test_mistakes_are_told_before_anything_is_touched(run, tmp_path, text, says):
    file = tmp_path / "x.toml"
    file.write_text(text)
    done = run("server", "--config", str(file), "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and says in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_misspelt_key_costs_little(tmp_path):
    """The broker is not imported for it: half a second of CPU at the most, three times as much as it takes."""
    file = tmp_path / "x.toml"
    file.write_text("[server]\nprot = 1\n")
    tool = [sys.executable, "-m", "streamlake.cli.main", "server", "--config", str(file)]
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert subprocess.run(tool, capture_output=True, timeout=DEADLINE_S).returncode == 1
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) < 0.8, taken


def refused(server) -> str:
    with pytest.raises(RuntimeError, match="exited with 1"):
        server.start()
    return server.log


def test_a_store_that_is_away_names_its_keys(new_server):
    config = "[storage]\nurl = 's3://b/p'\n[s3]\nendpoint = 'http://127.0.0.1:1'\nallow_http = true\n"
    keys = "access_key = 'a'\nsecret_key = 'b'\nregion = 'us-east-1'\n"
    told = refused(new_server(config + keys))
    assert "storage.url = s3://b/p, s3.endpoint = http://127.0.0.1:1: " in told
    assert "Traceback" not in told


def test_a_metadata_store_that_is_away_names_its_key(new_server):
    told = refused(new_server("[storage]\nmetadata_url = 'postgresql://127.0.0.1:1/x'\n"))
    assert "storage.metadata_url: cannot open the metadata store" in told


def test_another_machines_address_names_its_key(new_server):
    told = refused(new_server("[server]\nhost = '192.0.2.7'\n"))
    assert "it is no address of this machine. Give server.host (--host) one that is" in told
    assert "is a server running" not in told


def test_ready_says_what_this_is(lake, run):
    version = run("--version").stdout.split()[1]
    (line,) = (line for line in lake.log.splitlines() if "this is StreamLake" in line)
    for said in (
        f"version={version}",
        "wal=file",
        f"store=file://{lake.data_dir}/objects",
        "metadata=sqlite",
        "catalogs=sql",
    ):
        assert said in line
    assert "kernels='records, batches, requests, flush, avro, json, protobuf'" in line
    assert "kernels are missing" not in lake.log


def test_ready_file_names_the_addresses(lake):
    ready = json.loads((lake.data_dir / "server.json").read_text())
    assert ready["bootstrap"] == lake.bootstrap
    assert ready["http"] == lake.http
    assert ready["pid"] == lake.process.pid


def test_until_stdin_closes(tmp_path):
    """It closes when the program that holds the other end of the pipe ends, however it does."""
    command = [sys.executable, "-m", "streamlake.cli.main", "server", "--data-dir", str(tmp_path)]
    command += ["--port", "0", "--http-port", "0", "--until-stdin-closes"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
    try:
        server.stdin.write(b"what comes is of no interest")
        server.stdin.flush()
        wait_until((tmp_path / "server.json").exists, lambda: (tmp_path / "log").read_text())
        assert server.poll() is None
        server.stdin.close()
        assert server.wait(timeout=DEADLINE_S) == 0
    finally:
        server.kill()
        server.wait(timeout=DEADLINE_S)
    assert not (tmp_path / "server.json").exists(), "it has stopped in order"
