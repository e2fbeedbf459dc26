"""What a broker whose image is behind says of partitions that seem not to exist, within transactions or not."""

from types import SimpleNamespace
from typing import Any

import pytest

from streamlake.coordinator.classic.api import GroupError
from streamlake.coordinator.offsets import CommitRequest
from streamlake.coordinator.txn_offsets import InTransaction
from streamlake.handlers import txn_offset_commit
from streamlake.handlers.committed_offsets import commit_known, rows_of
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)

UNKNOWN = GroupError.UNKNOWN_TOPIC_OR_PARTITION


class Site:
    """A broker that knows the topic `old`, and whose metadata store, if it `answers`, `new` besides."""

    def __init__(self, answers: bool) -> None:
        self.stored: list[str] = []
        self.topics = SimpleNamespace(revision=1)
        self.txn_offsets = SimpleNamespace(commit=self.commit)
        self._known = {"old"}
        self._answers = answers

    async def catch_up(self) -> bool:
        if self._answers:
            self._known.add("new")
            self.topics.revision = 2
        return self._answers

    async def commit(self, asked: CommitRequest, within: InTransaction | None = None) -> list[GroupError]:
        self.stored += [row.topic for row in asked.offsets if row.topic in self._known]
        return [GroupError.NONE if row.topic in self._known else UNKNOWN for row in asked.offsets]


@pytest.mark.parametrize("answers", [True, False], ids=["the store answers", "the store is away"])
async def test_a_topic_that_another_broker_has_just_made_is_not_unknown(answers: bool) -> None:
    site: Any = Site(answers)
    partitions = (TxnOffsetCommitRequestPartition(0, 5),)
    topics = tuple(TxnOffsetCommitRequestTopic(name=name, partitions=partitions) for name in ("old", "new", "none"))
    rows = rows_of(topics)
    assert [(row.topic, row.partition, row.offset) for row in rows] == [("old", 0, 5), ("new", 0, 5), ("none", 0, 5)]
    results = await commit_known(site, CommitRequest("g", "", None, -1, rows), site.commit)
    later = GroupError.COORDINATOR_NOT_AVAILABLE
    assert results == ([GroupError.NONE, GroupError.NONE, UNKNOWN] if answers else [GroupError.NONE, later, later])
    assert site.stored == (["old", "new"] if answers else ["old"])

    # Within a transaction, too: UNKNOWN_TOPIC_OR_PARTITION would end the producer.
    site = Site(answers)
    exchange: Any = SimpleNamespace(body=TxnOffsetCommitRequest("t", "g", 1, 0, topics=topics), version=4)
    answer = await txn_offset_commit.handle(site, exchange)
    codes = [topic.partitions[0].error_code for topic in answer.topics]
    not_yet = ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert codes == ([0, 0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION] if answers else [0, not_yet, not_yet])
