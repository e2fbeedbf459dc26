"""Tables of topics to which transactions write: rows of committed ones, and the positions of all that makes none."""

from collections.abc import Callable

from confluent_kafka import Producer
from support import lake
from support.server import Server
from support.wait import DEADLINE_S, wait_until


def test_a_table_has_the_rows_of_committed_transactions_alone(server: Server, topic: Callable[[], str]) -> None:
    name = lake.create_topic(server, topic(), convert_value_type="string")
    producer = Producer({"bootstrap.servers": server.bootstrap, "transactional.id": name})
    producer.init_transactions(DEADLINE_S)
    for number, commit in enumerate((True, False, True, False)):
        producer.begin_transaction()
        for value in range(3):
            producer.produce(name, f"{number}.{value}".encode())
        assert producer.flush(DEADLINE_S) == 0
        (producer.commit_transaction if commit else producer.abort_transaction)(DEADLINE_S)
    lake.produce(server, name, [b"alone"])
    rows = f'SELECT value, _kafka."offset" FROM "{name}" ORDER BY 2'
    committed = [("0.0", 0), ("0.1", 1), ("0.2", 2), ("2.0", 8), ("2.1", 9), ("2.2", 10), ("alone", 16)]
    server.wait_for_table(name, len(committed))
    assert lake.query(server, rows) == committed

    # Nothing is in the table beyond an open transaction, neither its own rows nor others.
    producer.begin_transaction()
    producer.produce(name, b"open")
    assert producer.flush(DEADLINE_S) == 0
    lake.produce(server, name, [b"behind"])
    assert lake.query(server, rows) == committed
    producer.commit_transaction(DEADLINE_S)
    expected = [*committed, ("open", 17), ("behind", 18)]
    wait_until(lambda: lake.query(server, rows) == expected)
