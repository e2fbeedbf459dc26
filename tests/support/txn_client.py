"""A producer with a transactional id that speaks raw Kafka, in the oldest or the newest versions of its APIs."""

import itertools
from typing import Any

from support.wire import Client, Topic

from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from streamlake.protocol.messages.add_partitions_to_txn import AddPartitionsToTxnRequest, AddPartitionsToTxnTopic
from streamlake.protocol.messages.describe_transactions import DescribeTransactionsRequest
from streamlake.protocol.messages.end_txn import EndTxnRequest
from streamlake.protocol.messages.init_producer_id import InitProducerIdRequest
from streamlake.protocol.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)

_numbers = itertools.count()


class TxnClient:
    def __init__(self, client: Client, key: str | None = None) -> None:
        self.client = client
        self.key = key or f"txn-{next(_numbers)}"
        self.id = self.epoch = -1

    def init(self, version: int = 4, timeout_ms: int = 60_000, **fields: Any) -> int:
        """The error code; if there is none, this is the id's producer now."""
        answer = self.client.ask(
            ApiKey.INIT_PRODUCER_ID, version, InitProducerIdRequest(self.key, timeout_ms, **fields)
        )
        if answer.error_code == 0:
            self.id, self.epoch = answer.producer_id, answer.producer_epoch
        return answer.error_code

    def add(self, topic: Topic | str, *partitions: int, version: int = 3) -> list[int]:
        """The error code of each partition."""
        name = topic if isinstance(topic, str) else topic.name
        request = AddPartitionsToTxnRequest(
            v3_and_below_transactional_id=self.key,
            v3_and_below_producer_id=self.id,
            v3_and_below_producer_epoch=self.epoch,
            v3_and_below_topics=(AddPartitionsToTxnTopic(name=name, partitions=partitions),),
        )
        answer = self.client.ask(ApiKey.ADD_PARTITIONS_TO_TXN, version, request)
        (only,) = answer.results_by_topic_v3_and_below
        return [result.partition_error_code for result in only.results_by_partition]

    def add_offsets(self, group: str, version: int = 4) -> int:
        request = AddOffsetsToTxnRequest(self.key, self.id, self.epoch, group)
        return self.client.ask(ApiKey.ADD_OFFSETS_TO_TXN, version, request).error_code

    def commit_offsets(self, group: str, topic: Topic, offset: int, version: int = 4, **fields: Any) -> int:
        """For partition 0."""
        partition = TxnOffsetCommitRequestPartition(
            partition_index=0, committed_offset=offset, committed_metadata="note"
        )
        request = TxnOffsetCommitRequest(
            transactional_id=self.key,
            group_id=group,
            producer_id=self.id,
            producer_epoch=self.epoch,
            topics=(TxnOffsetCommitRequestTopic(topic.name, (partition,)),),
            **fields,
        )
        answer = self.client.ask(ApiKey.TXN_OFFSET_COMMIT, version, request)
        ((only,),) = (each.partitions for each in answer.topics)
        return only.error_code

    def end(self, commit: bool = True, version: int = 4) -> int:
        request = EndTxnRequest(self.key, self.id, self.epoch, commit)
        answer = self.client.ask(ApiKey.END_TXN, version, request)
        if version >= 5 and answer.error_code == 0:
            self.id, self.epoch = answer.producer_id, answer.producer_epoch
        return answer.error_code

    def described(self) -> Any:
        request = DescribeTransactionsRequest((self.key,))
        (state,) = self.client.newest(ApiKey.DESCRIBE_TRANSACTIONS, request).transaction_states
        return state
