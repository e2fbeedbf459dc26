"""Files of a table deleted by somebody else's tool, under a real server: the table says so, takes nothing more, and goes
on by itself when the file is back."""

import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from support import lake
from support.server import Server
from support.wait import DEADLINE_S, wait_until

RECORDS = 5


def head_files(server: Server, topic: str) -> dict[str, Path]:
    table = lake.load_table(server, topic)
    head = table.current_snapshot()
    assert head is not None
    locations = {
        "metadata": table.metadata_location,
        "list": head.manifest_list,
        "manifest": head.manifests(table.io)[-1].manifest_path,
    }
    return {kind: Path(location.removeprefix("file://")) for kind, location in locations.items()}


def away(path: Path) -> Path:
    return path.rename(path.with_suffix(".away"))


def metrics(server: Server) -> str:
    with urllib.request.urlopen(server.http + "/metrics", timeout=DEADLINE_S) as response:
        return str(response.read().decode())


def assert_whole(server: Server, topic: str) -> None:
    """Every record is a row, once."""
    end = sum(p["log_end"] for p in server.tables()[topic]["partitions"])
    server.wait_for_table(topic, end)
    assert server.tables()[topic]["state"] == "running"
    found = lake.query(server, f'SELECT _kafka."offset" FROM {topic} ORDER BY 1')
    assert found == [(offset,) for offset in range(end)]


@pytest.fixture
def server(new_server: Callable[..., Server]) -> Server:
    server = new_server().start()
    for kind in ("metadata", "list", "manifest"):
        topic = lake.create_topic(server, f"t_{kind}", convert_value_type="string")
        for n in range(RECORDS):
            lake.produce(server, topic, [b"%d" % n])
            server.wait_for_table(topic, n + 1)
    return server


@pytest.mark.slow
def test_files_that_vanish_under_a_running_table(server: Server) -> None:
    kept = {kind: away(head_files(server, f"t_{kind}")[kind]) for kind in ("metadata", "manifest")}

    def missed(topic: str) -> bool:
        """Until the next look, twice a minute, commits may land beside the manifest that is gone; none on top of it."""
        lake.produce(server, topic, [b"more"])
        return bool(server.tables()[topic]["state"] == "unreadable")

    for kind, path in kept.items():
        topic = f"t_{kind}"
        wait_until(lambda topic=topic: missed(topic))  # type: ignore[misc]
        table = server.tables()[topic]
        assert path.stem in table["message"]
        assert "Restore the file" in table["message"]
        assert f'streamlake_table_unreadable{{table="default.{topic}",topic="{topic}"}} 1.0' in metrics(server)
        lake.produce(server, topic, [b"after"] * 100)
        assert server.tables()[topic]["commits"] == table["commits"]
    for kind, path in kept.items():
        path.rename(path.with_suffix({"metadata": ".json", "manifest": ".avro"}[kind]))
    for kind in kept:
        assert_whole(server, f"t_{kind}")
    assert server.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["metadata", "list", "manifest"])
def test_a_table_whose_files_are_gone_is_not_taken_over(server: Server, kind: str) -> None:
    path = head_files(server, f"t_{kind}")[kind]
    assert server.stop() == 0
    kept = away(path)
    server.start()
    assert str(path) in lake.wait_for_state(server, f"t_{kind}", "unreadable")
    lake.produce(server, f"t_{kind}", [b"after"] * 10)
    assert server.tables()[f"t_{kind}"]["commits"] == 0
    kept.rename(path)
    for topic in ("t_metadata", "t_list", "t_manifest"):
        assert_whole(server, topic)
    assert server.stop() == 0
