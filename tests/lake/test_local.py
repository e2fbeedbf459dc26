"""`streamlake.local()` as its users meet it: a real server, real clients, and nothing left at the end."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from support.lake import create_topic, produce
from support.server import is_running
from support.wait import DEADLINE_S

import streamlake
from streamlake.core.errors import Closed, Invalid, NotFound, Unavailable


@pytest.fixture
def rows(lake, topic):
    """A topic of text with three rows in its table."""
    name = create_topic(lake, topic(), convert_value_type="string")
    produce(lake, name, [b"a", b"b", b"c"])
    lake.wait_for(name, 3, timeout_s=DEADLINE_S)
    return name


def test_the_first_minute():
    with streamlake.local() as lake:
        create_topic(lake, "orders", convert_value_type="string")
        produce(lake, "orders", [b"one", b"two"])
        lake.wait_for("orders", 2, timeout_s=DEADLINE_S)
        assert lake.sql("SELECT value FROM orders ORDER BY value").fetchall() == [("one",), ("two",)]
        assert lake.table("orders").scan().to_arrow()["value"].to_pylist() == ["one", "two"]
        pid, directory = lake._server.pid, lake.data_dir
        assert is_running(pid) and directory.is_dir()
    assert not is_running(pid) and not directory.exists()
    assert repr(lake).endswith("stopped>")
    for use in (lambda: lake.sql("SELECT 1"), lambda: lake.table("orders"), lambda: lake.wait_for("orders")):
        with pytest.raises(Closed, match=r"stopped: streamlake\.local\(\) starts another"):
            use()


def test_a_directory_of_ones_own_keeps_everything(tmp_path):
    lake = streamlake.local(tmp_path / "lake")
    try:
        create_topic(lake, "kept", convert_value_type="string")
        produce(lake, "kept", [b"x"])
        lake.wait_for("kept", timeout_s=DEADLINE_S)
    finally:
        lake.stop()
    lake.stop()  # once more does nothing
    with streamlake.local(str(tmp_path / "lake")) as again:
        produce(again, "kept", [b"y"])
        again.wait_for("kept", 2, timeout_s=DEADLINE_S)
        assert again.sql("SELECT count(*) FROM kept").fetchone() == (2,)
    assert (tmp_path / "lake" / "server.log").exists()


def test_a_relation_is_of_the_newest_rows(lake, rows):
    relation = lake.sql(f'SELECT count(*) AS n FROM "{rows}"')
    assert relation.fetchone() == (3,)
    produce(lake, rows, [b"d"])
    lake.wait_for(rows, timeout_s=DEADLINE_S)
    assert lake.sql(f'SELECT count(*) FROM "{rows}"').fetchone() == (4,)
    assert relation.columns == ["n"]


def test_mistakes_in_sql_say_what_there_is(lake, rows, topic):
    with pytest.raises(Invalid, match=f'Tables with a commit: .*"{rows}"'):
        lake.sql("SELECT * FROM nowhere")
    empty = create_topic(lake, topic(), convert_value_type="string")
    with pytest.raises(Invalid, match=r"has no commit yet \(\w+, its topic has no records yet\).*wait_for"):
        lake.sql(f'SELECT * FROM "{empty}"')
    with pytest.raises(Invalid, match=rf"default\.{empty} has no commit yet .*: wait_for\('{empty}'\) waits"):
        lake.table(empty)


def test_tables_by_topic_by_name_and_of_dead_letters(lake, topic):
    name = create_topic(lake, topic(), convert_value_type="string", namespace="shop")
    produce(lake, name, [b"ok", b"\xff"])
    lake.wait_for(name, timeout_s=DEADLINE_S)
    for asked in (name, f"shop.{name}"):
        assert lake.table(asked).scan().to_arrow()["value"].to_pylist() == ["ok"]
    assert lake.table(f"{name}__dlq").scan().to_arrow()["value"].to_pylist() == [b"\xff"]
    with pytest.raises(NotFound, match=r"no topic has a table shop: .*table\.enable=true"):
        lake.table("shop")


def test_waiting_has_an_end_and_says_how_far_the_table_is(lake, rows):
    with pytest.raises(
        Unavailable,
        match=rf"^after 0.2 s table default.{rows} does not yet hold 4 rows: running, 0 records .*Log: .*server\.log",
    ):
        lake.wait_for(rows, 4, timeout_s=0.2)
    with pytest.raises(NotFound, match=r"nothing is no table topic: .*table\.enable=true"):
        lake.wait_for("nothing")


def test_a_table_that_failed_is_not_waited_for(lake, topic):
    name = create_topic(lake, topic(), convert_value_type="string", errors_tolerance="none")
    produce(lake, name, [b"\xff"])
    with pytest.raises(Invalid, match=rf"table default.{name} is failed: .*UTF-8"):
        lake.wait_for(name, 1, timeout_s=DEADLINE_S)


def test_broker_configs_are_kafkas():
    with streamlake.local(kafka={"auto.create.topics.enable": False, "num.partitions": 3}) as lake:
        consumer = Consumer({"bootstrap.servers": lake.bootstrap, "group.id": "x"})
        produce_to_missing = consumer.list_topics("missing", timeout=DEADLINE_S).topics["missing"]
        consumer.close()
        assert "UNKNOWN_TOPIC" in str(produce_to_missing.error)


def test_the_environment_configures_other_servers(monkeypatch, tmp_path):
    monkeypatch.setenv("STREAMLAKE_STORAGE_URL", "s3://production")
    monkeypatch.setenv("STREAMLAKE_STORAGE_DATA_DIR", str(tmp_path / "other"))
    monkeypatch.setenv("STREAMLAKE_NO_SUCH", "setting")
    with streamlake.local() as lake:
        assert (lake.data_dir / "objects").is_dir()
    assert not (tmp_path / "other").exists()


def test_the_example_of_the_guide(tmp_path):
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "python.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", guide.partition("## An example")[2].partition("\n## ")[0], re.S)
    done = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, timeout=DEADLINE_S, cwd=tmp_path
    )
    assert done.stdout == "[('hello', 0)]\n", done.stderr


NO_SERVER_MODULES = """
import json, sys, typing
before = set(sys.modules)
import streamlake
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_importing_streamlake_imports_nothing_else():
    done = subprocess.run(
        [sys.executable, "-c", NO_SERVER_MODULES], capture_output=True, text=True, timeout=DEADLINE_S, check=True
    )
    assert set(json.loads(done.stdout)) == {"streamlake"}
