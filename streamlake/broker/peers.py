"""Connections to the other brokers of the cluster: one to the present life of each, opened when it is used."""

from streamlake.cluster.brokers import Brokers
from streamlake.cluster.secret import ClusterSecret, Life
from streamlake.core.errors import Unavailable
from streamlake.core.tasks import Supervisor
from streamlake.peers.brokers import BrokerPeer
from streamlake.protocol.broker_messages.hello import HelloRequest

ANSWER_TIMEOUT_S = 5.0


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
        ours = self._brokers.life
        hello = HelloRequest(ours.node, ours.epoch, self._secret.proof(ours, where[0]))
        peer = BrokerPeer(broker.host, broker.port, hello, ANSWER_TIMEOUT_S)
        self._peers[node] = where, peer
        return peer

    async def close(self) -> None:
        for _, peer in self._peers.values():
            await peer.close()
