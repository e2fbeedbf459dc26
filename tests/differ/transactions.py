"""Transactional ids: who may begin, add and end, in both versions of transactions."""

from typing import Any

from differ.coordinator import LOADING, TRANSACTION, coordinators_are_there
from differ.scenario import scenario
from differ.side import Side

from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from streamlake.protocol.messages.add_partitions_to_txn import AddPartitionsToTxnRequest, AddPartitionsToTxnTopic
from streamlake.protocol.messages.describe_transactions import DescribeTransactionsRequest
from streamlake.protocol.messages.end_txn import EndTxnRequest
from streamlake.protocol.messages.find_coordinator import FindCoordinatorRequest
from streamlake.protocol.messages.init_producer_id import InitProducerIdRequest


class Producer:
    """Of one transactional id, as it knows itself."""

    def __init__(self, side: Side, key: str) -> None:
        self.side = side
        self.key = key
        self.id = self.epoch = -1
        coordinators_are_there(side)
        coordinator = FindCoordinatorRequest(key=key, key_type=TRANSACTION)
        transaction = DescribeTransactionsRequest((key,))

        def is_ready() -> bool:
            """Kafka makes its topic of transactions for the first one who asks, and then loads it."""
            side.quietly(ApiKey.FIND_COORDINATOR, coordinator, 3)
            (state,) = side.quietly(ApiKey.DESCRIBE_TRANSACTIONS, transaction).transaction_states
            return state.error_code not in LOADING

        side.wait(is_ready, f"the coordinator of {key} is ready")

    def init(self, note: str, version: int = 4, timeout_ms: int = 60_000, **fields: Any) -> None:
        request = InitProducerIdRequest(self.key, timeout_ms, **fields)
        answer = self.side.ask(note, ApiKey.INIT_PRODUCER_ID, version, request)
        if answer.error_code == 0:
            self.id, self.epoch = answer.producer_id, answer.producer_epoch

    def add(self, note: str, topic: str, *partitions: int, version: int = 3) -> None:
        request = AddPartitionsToTxnRequest(
            v3_and_below_transactional_id=self.key,
            v3_and_below_producer_id=self.id,
            v3_and_below_producer_epoch=self.epoch,
            v3_and_below_topics=(AddPartitionsToTxnTopic(name=topic, partitions=partitions),),
        )
        self.side.ask(note, ApiKey.ADD_PARTITIONS_TO_TXN, version, request)

    def add_offsets(self, note: str, version: int = 4) -> None:
        request = AddOffsetsToTxnRequest(self.key, self.id, self.epoch, "g")
        self.side.ask(note, ApiKey.ADD_OFFSETS_TO_TXN, version, request)

    def end(self, note: str, commit: bool = True, version: int = 4) -> None:
        answer = self.side.ask(note, ApiKey.END_TXN, version, EndTxnRequest(self.key, self.id, self.epoch, commit))
        if version >= 5 and answer.error_code == 0:
            self.id, self.epoch = answer.producer_id, answer.producer_epoch

    def settled(self) -> None:
        """All its markers are written."""
        request = DescribeTransactionsRequest((self.key,))

        def is_over() -> bool:
            (state,) = self.side.quietly(ApiKey.DESCRIBE_TRANSACTIONS, request).transaction_states
            return not state.transaction_state.startswith("Prepare")

        self.side.wait(is_over, f"the transaction of {self.key} is over")


@scenario
def transactional_ids(side: Side) -> None:
    one = Producer(side, "init")
    for version in range(6):
        one.init(f"a transactional id, time {version}", version)
    had = {"producer_id": one.id, "producer_epoch": one.epoch}
    one.init("goes on", **had)
    one.init("goes on, again", **had)
    one.init("goes on from long ago", **(had | {"producer_epoch": 1}))
    one.init("goes on from long ago, before 4", 3, **(had | {"producer_epoch": 1}))
    one.init("goes on from another id", **(had | {"producer_id": 1_000_000}))
    for timeout_ms in (0, -1, 900_001):
        one.init(f"timeout {timeout_ms}", timeout_ms=timeout_ms)
    new = Producer(side, "init-named")
    new.init("a new id that names a producer", producer_id=7, producer_epoch=3)


@scenario
def transactions_of_version_1(side: Side) -> None:
    side.topic("txn-1", 2)
    one = Producer(side, "v1")
    one.add("of an id that is not known", "txn-1", 0)
    one.end("of an id that is not known")
    one.add_offsets("of an id that is not known")
    one.init("v1")
    one.end("none is open, commit")
    one.end("none is open, abort", False)
    for commit in (True, False):
        note = "commit" if commit else "abort"
        for version in range(4):
            one.add(f"{note}, one", "txn-1", 0, version=version)
        one.add(f"{note}, two and one that is not there", "txn-1", 1, 2)
        one.add(f"{note}, of a topic that is not there", "no-such-topic", 1)
        one.end(note, commit)
        one.settled()
        one.end(f"{note}, again", commit)
        one.end(f"{note}, the other way", not commit)
    one.epoch += 1
    for version in (1, 3):
        one.add("a higher epoch", "txn-1", 0, version=version)
    for version in (1, 4):
        one.end("a higher epoch", version=version)
        one.add_offsets("a higher epoch", version=version)
    one.epoch -= 1
    one.id += 1_000_000
    one.add("another producer id", "txn-1", 0)
    one.end("another producer id")
    one.key = ""
    one.add("an empty id", "txn-1", 0)
    one.end("an empty id")
    one.add_offsets("an empty id")


@scenario
def transactions_of_version_2(side: Side) -> None:
    side.topic("txn-2")
    one = Producer(side, "v2")
    one.init("v2")
    one.end("v2, none is open, commit", True, 5)
    one.end("v2, none is open, abort", False, 5)
    one.settled()
    for commit in (True, False):
        note = "v2, commit" if commit else "v2, abort"
        one.add(note, "txn-2", 0)
        before = one.epoch
        one.end(note, commit, 5)
        one.settled()
        after, one.epoch = one.epoch, before
        one.end(f"{note}, again", commit, 5)
        one.epoch = before
        one.end(f"{note}, the other way", not commit, 5)
        one.epoch = before
        one.add(f"{note}, late", "txn-2", 0)
        one.epoch = after


@scenario
def zombies(side: Side) -> None:
    side.topic("txn-3")
    zombie, one = Producer(side, "zombie"), Producer(side, "zombie")
    zombie.init("zombie")
    zombie.add("zombie", "txn-3", 0)
    request = InitProducerIdRequest("zombie", 60_000)

    def is_ours() -> bool:
        answer = side.quietly(ApiKey.INIT_PRODUCER_ID, request, 4)
        one.id, one.epoch = answer.producer_id, answer.producer_epoch
        return answer.error_code == 0

    side.wait(is_ours, "the transaction of the zombie is aborted")
    zombie.add("zombie, fenced", "txn-3", 0)
    for version in (1, 4, 5):
        zombie.end("zombie, fenced", True, version)
    one.add("who fenced it", "txn-3", 0)
    one.end("who fenced it")
