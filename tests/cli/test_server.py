"""`streamlake server` as a command; what it serves is tested elsewhere."""

import json


def test_a_wrong_config_file_is_a_clear_error(run, tmp_path):
    file = tmp_path / "x.toml"
    file.write_text("[server]\nprot = 1\n")
    done = run("server", "--config", str(file))
    assert done.returncode == 1
    assert "server.prot" in done.stderr
    assert "port" in done.stderr
    assert "Traceback" not in done.stderr


def test_ready_file_names_the_addresses(lake):
    ready = json.loads((lake.data_dir / "server.json").read_text())
    assert ready["bootstrap"] == lake.bootstrap
    assert ready["http"] == lake.http
    assert ready["pid"] == lake.process.pid
