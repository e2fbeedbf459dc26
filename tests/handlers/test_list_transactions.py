"""ListTransactions: the ids of this broker, and those that are asked for."""

import pytest
from support.txn_client import TxnClient
from support.wire import Client, Topic, ends, newest

from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.list_transactions import ListTransactionsRequest

KEY = ApiKey.LIST_TRANSACTIONS


def listed(client: Client, *fields: object, version: int = 1) -> dict[str, str]:
    answer = client.ask(KEY, version, ListTransactionsRequest(*fields))
    assert answer.error_code == 0
    return {t.transactional_id: t.transaction_state for t in answer.transaction_states}


@pytest.mark.parametrize("version", ends(KEY))
def test_what_is_asked_for(client: Client, topic: Topic, version: int) -> None:
    idle, busy = TxnClient(client), TxnClient(client)
    idle.init()
    busy.init()
    busy.add(topic, 0)
    states = listed(client, version=version)
    assert (states[idle.key], states[busy.key]) == ("Empty", "Ongoing")
    assert idle.key not in listed(client, ("Ongoing", "PrepareAbort"), version=version)
    assert listed(client, (), (busy.id,), version=version) == {busy.key: "Ongoing"}
    answer = client.ask(KEY, version, ListTransactionsRequest(("Ongoing", "Odd")))
    assert answer.unknown_state_filters == ("Odd",)
    assert busy.key in [t.transactional_id for t in answer.transaction_states]


def test_those_that_are_open_for_long(client: Client, topic: Topic) -> None:
    idle, busy = TxnClient(client), TxnClient(client)
    idle.init()
    busy.init()
    busy.add(topic, 0)
    found = listed(client, (), (), 0)
    assert busy.key in found
    assert idle.key not in found
    assert busy.key not in listed(client, (), (), 10_000_000)


def test_no_regular_expressions_of_clients() -> None:
    assert newest(KEY) == 1
