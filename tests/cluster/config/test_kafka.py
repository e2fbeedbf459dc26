"""The generated facts can be used as they are; `tools/gen_kafka_configs.py --check` compares them with Kafka's jars."""

import importlib.util
import re
from pathlib import Path

import pytest

from streamlake.cluster.config import kafka as kafka_configs
from streamlake.cluster.config.definition import ConfigDef, from_fact
from streamlake.cluster.config.kafka import BROKER, CLIENT_METRICS, GROUP, QUOTA, SYNONYMS, TOPIC, Fact

TOOL = Path(__file__).parents[3] / "tools" / "gen_kafka_configs.py"
ALL = (BROKER, CLIENT_METRICS, GROUP, QUOTA, TOPIC)


def test_each_list_is_complete_and_sorted() -> None:
    assert [len(facts) for facts in ALL] == [340, 3, 17, 3, 33]
    for facts in ALL:
        names = [fact.name for fact in facts]
        assert names == sorted(set(names))


@pytest.mark.parametrize("fact", [fact for facts in ALL for fact in facts], ids=lambda fact: fact.name)
def test_a_default_is_a_value(fact: Fact) -> None:
    definition = from_fact(fact, "Doc.")
    assert isinstance(definition, ConfigDef)
    if fact.default is not None:
        definition.parse(fact.default)


def test_synonyms_are_configs() -> None:
    topics, brokers = ({fact.name for fact in facts} for facts in (TOPIC, BROKER))
    assert {topic for topic, _ in SYNONYMS} <= topics
    assert {broker for _, broker in SYNONYMS} <= brokers


def test_the_tool_writes_this_form() -> None:
    """From the facts that we have, written as the Java program prints them, the very same file."""
    spec = importlib.util.spec_from_file_location("gen_kafka_configs", TOOL)
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    lists = {"topic": TOPIC, "broker": BROKER, "quota": QUOTA, "group": GROUP, "metrics": CLIENT_METRICS}
    lines = [printed(resource, fact) for resource, facts in lists.items() for fact in facts]
    lines += [f"synonym\t{topic}\t{broker}" for topic, broker in SYNONYMS]
    text = Path(kafka_configs.__file__).read_text()
    (version,) = re.findall(r"Apache Kafka ([\d.]+),", text)
    assert tool.generate(lines, version) == text


def printed(resource: str, fact: Fact) -> str:
    default = "" if fact.default is None else f"={fact.default}"
    rule = f"[{', '.join(fact.choices)}]" if fact.choices else ""
    if fact.low is not None:
        most = "" if fact.high is None else f",{fact.high}"
        rule = f"[{fact.low},...{most}]" + ("" if fact.also is None else f" or {fact.also}")
    return "\t".join([resource, fact.name, fact.type.upper(), default, "dynamic" if fact.dynamic else "static", rule])
