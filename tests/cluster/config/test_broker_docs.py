import pytest

from streamlake.broker.services import kafka_values
from streamlake.cluster.broker_configs import BROKER_CONFIGS
from streamlake.cluster.config.broker_docs import FAMILIES, HONOURED, OWN, family
from streamlake.cluster.config.kafka import BROKER, SYNONYMS
from streamlake.config import Config

NAMES = {fact.name for fact in BROKER}
OTHERS = NAMES - HONOURED.keys() - OWN.keys() - {broker for _, broker in SYNONYMS}


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_every_other_config_is_of_a_family(name: str) -> None:
    assert family(name).doc.startswith(("Accepted and without effect: ", "Only the default is accepted: "))


def test_no_family_and_no_name_is_of_no_use() -> None:
    assert {family(name).doc for name in OTHERS} == {f.doc for f in FAMILIES}
    assert HONOURED.keys() | OWN.keys() <= NAMES
    assert not HONOURED.keys() & OWN.keys()


def test_what_is_security_is_refused() -> None:
    for name in NAMES:
        if name.startswith(("ssl.", "sasl.", "delegation.")) or name == "authorizer.class.name":
            assert "authentication" in BROKER_CONFIGS[name].doc, name


def test_what_the_file_says_is_told_for_each_key() -> None:
    values = kafka_values(Config(), 3, "lake.local", 9093)
    assert values.keys() == OWN.keys()
    assert values["advertised.listeners"] == "PLAINTEXT://lake.local:9093"
    assert values["listeners"] == "PLAINTEXT://127.0.0.1:9092"
    assert kafka_values(Config(), 3, "::1", 1)["advertised.listeners"] == "PLAINTEXT://[::1]:1"
    for setting in OWN.values():
        for key in filter(None, setting.split(" and ")):
            section, _, name = key.partition(".")
            assert hasattr(getattr(Config(), section), name), key
