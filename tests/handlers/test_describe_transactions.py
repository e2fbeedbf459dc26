"""DescribeTransactions: one state an id."""

from support.txn_client import TxnClient
from support.wire import Client, Topic

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from streamlake.protocol.messages.describe_transactions import DescribeTransactionsRequest


def test_what_is_known_of_ids(client: Client, topic: Topic, group: str) -> None:
    txn = TxnClient(client)
    request = DescribeTransactionsRequest((txn.key, ""))
    unknown, empty = client.newest(ApiKey.DESCRIBE_TRANSACTIONS, request).transaction_states
    assert (unknown.error_code, unknown.transactional_id) == (ErrorCode.TRANSACTIONAL_ID_NOT_FOUND, txn.key)
    assert empty.error_code == ErrorCode.INVALID_REQUEST
    txn.init(timeout_ms=5_000)
    state = txn.described()
    assert (state.transaction_state, state.transaction_timeout_ms) == ("Empty", 5_000)
    assert (state.transaction_start_time_ms, state.topics) == (-1, ())
    txn.add(topic, 0)
    txn.add_offsets(group)
    state = txn.described()
    assert (state.error_code, state.producer_id, state.producer_epoch) == (0, txn.id, 0)
    assert state.transaction_start_time_ms > 1_700_000_000_000
    assert [t.topic for t in state.topics] == ["__consumer_offsets", topic.name]
    gone = DeleteTopicsRequest(topics=(DeleteTopicState(topic.name),), topic_names=(topic.name,), timeout_ms=9_000)
    client.newest(ApiKey.DELETE_TOPICS, gone)
    assert [t.topic for t in txn.described().topics] == ["__consumer_offsets"]
