"""What a broker knows of a cluster of two: this one, and another one."""

from types import SimpleNamespace

from streamlake.cluster.brokers import Brokers
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.membership import BeatView, BrokerInfo
from streamlake.cluster.store.schema import SERVING

NO_HANDOVERS = SimpleNamespace(until_over=lambda topic_id, index: None)
OWN = BrokerInfo(1, 1, 0, SERVING, "one", 9001)
OTHER = BrokerInfo(2, 4, 0, SERVING, "two", 9002)


def two_brokers() -> Brokers:
    brokers = Brokers(BrokerIdentity("c", OWN.node, OWN.epoch), OWN.host, OWN.port)
    brokers.seen(BeatView(0, (OWN, OTHER)))
    return brokers
