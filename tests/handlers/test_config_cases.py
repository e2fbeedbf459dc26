"""Every mistake with configs has Kafka's code and says what to do; where we mean another code, the table says why."""

import pytest
from support.config_cases import CASES, Case, ask
from support.wire import Client


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_case(client: Client, case: Case) -> None:
    topic = client.create_topic().name
    code, message = ask(client, case, topic, "0")
    assert code == (case.code if case.ours is None else case.ours), message
    assert case.says in message if code else not message


def test_what_differs_from_kafka_has_a_reason() -> None:
    for case in CASES:
        assert (case.ours is None) == (case.why == ""), case
        assert case.ours != case.code, case
