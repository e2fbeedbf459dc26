"""Which broker leads a partition, for answers that tell clients whom to ask.

Decided here alone, by what is open on this broker, and for all else by the images of topics and brokers.
"""

from collections.abc import Collection
from typing import NamedTuple, Protocol
from uuid import UUID

from streamlake.cluster.brokers import Brokers
from streamlake.cluster.store.membership import BrokerInfo
from streamlake.cluster.store.topic_rows import TopicInfo
from streamlake.log.manager import LogManager
from streamlake.protocol.errors import ErrorCode


class View(Protocol):
    """What this broker knows."""

    @property
    def brokers(self) -> Brokers: ...
    @property
    def logs(self) -> LogManager: ...


class OnTheirWay(Protocol):
    """Partitions that move at this moment: Handovers."""

    def until_over(self, topic_id: UUID, index: int) -> object | None: ...


class ViewOfMoves(View, Protocol):
    @property
    def handovers(self) -> OnTheirWay: ...


class Leader(NamedTuple):
    node: int
    epoch: int  # never one that the metadata store does not hold: a client does not go back from an epoch


NOBODY = Leader(-1, -1)


def leader_of(view: ViewOfMoves, topic: TopicInfo, index: int) -> Leader:
    """Whom clients are to ask: the broker that has the partition open; while nobody has, the one that is to open it,
    under the epoch of the last one. NOBODY if that one does not serve, or is this broker, which could not open it."""
    opener = opener_of(view, topic, index)
    if opener is not NOBODY:
        return opener
    info = topic.partitions[index]
    if info.node is None or view.brokers.get(info.node) is None:
        return NOBODY
    if info.node == view.brokers.node and view.handovers.until_over(topic.id, index) is None:
        return NOBODY
    return Leader(info.node, info.epoch)


def opener_of(view: View, topic: TopicInfo, index: int) -> Leader:
    """The broker that has the partition open, as far as this one knows; else NOBODY. One that it is assigned away from
    serves until it has closed it."""
    partition = view.logs.get(topic.id, index)
    if partition is not None:
        return Leader(view.brokers.node, partition.leader_epoch)
    info = topic.partitions[index]
    if info.owner is None or info.owner == view.brokers.node:
        return NOBODY
    owner = view.brokers.get(info.owner)
    # A former life of the node does not serve: its next one, or another broker, is to open the partition first.
    return Leader(owner.node, info.epoch) if owner is not None and owner.epoch == info.owner_epoch else NOBODY


def leader_hint(view: View, code: ErrorCode, topic: TopicInfo | ErrorCode, index: int) -> Leader:
    """Who has the partition open, for an answer that refuses a request with this code (KIP-951): its client need not
    ask for metadata first. NOBODY if that is not known, or the code is about something else."""
    fenced = code == ErrorCode.FENCED_LEADER_EPOCH
    if isinstance(topic, ErrorCode) or not (fenced or code == ErrorCode.NOT_LEADER_OR_FOLLOWER):
        return NOBODY
    if index >= len(topic.partitions):
        return NOBODY  # the topic was made anew since the request was begun
    opener = opener_of(view, topic, index)
    if opener.node == view.brokers.node and not fenced:
        return NOBODY  # it was opened here since the request was begun
    return opener


def hinted_brokers(view: View, nodes: Collection[int]) -> list[BrokerInfo]:
    """Where the leaders of an answer's hints are; -1 is nobody."""
    found = [view.brokers.get(node) for node in sorted(nodes) if node >= 0]
    return [broker for broker in found if broker is not None]
