"""Connections to the other brokers of the cluster: one to the present life of each, opened when it is used."""

from collections.abc import Callable

from streamlake.cluster.brokers import Brokers
from streamlake.cluster.secret import ClusterSecret, Life
from streamlake.core.errors import Unavailable
from streamlake.core.tasks import Supervisor
from streamlake.peers.brokers import BrokerPeer
from streamlake.protocol.broker_messages.hello import HelloRequest

ANSWER_TIMEOUT_S = 5.0


def connection(
    brokers: Brokers,
    secret: ClusterSecret,
    life: Life,
    host: str,
    port: int,
    request_timeout_s: float,
    on_lost: Callable[[], None] = lambda: None,
) -> BrokerPeer:
    """To this life of another broker, as this life of ours; opened when it is used."""
    ours = brokers.life
    hello = HelloRequest(ours.node, ours.epoch, secret.proof(ours, life))
    return BrokerPeer(host, port, hello, request_timeout_s, on_lost)


class Peers:
    def __init__(self, brokers: Brokers, secret: ClusterSecret, tasks: Supervisor) -> None:
        self._brokers = brokers
        self._secret = secret
        self._tasks = tasks
        self._peers: dict[int, tuple[tuple[Life, str, int], BrokerPeer]] = {}

    def of(self, node: int) -> BrokerPeer:
        """The connection to another broker. Unavailable if it does not serve, as far as this one knows."""
        broker = self._brokers.get(node)
        if broker is None:
            raise Unavailable(f"broker {node} does not serve: another one takes its place")
        where = (Life(broker.node, broker.epoch), broker.host, broker.port)
        if (known := self._peers.get(node)) is not None:
            if known[0] == where:
                return known[1]
            self._tasks.start("end of a connection", known[1].close())
        peer = connection(self._brokers, self._secret, *where, ANSWER_TIMEOUT_S)
        self._peers[node] = where, peer
        return peer

    async def close(self) -> None:
        for _, peer in self._peers.values():
            await peer.close()
