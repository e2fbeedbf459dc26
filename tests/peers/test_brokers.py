"""A broker speaks to another one, over real sockets."""

from uuid import UUID

import pytest
from support.peer_server import SECRET, PeerServer
from support.wait import DEADLINE_S

from streamlake.cluster.secret import ClusterSecret, Life
from streamlake.coordinator.transaction import Participant, Producer, TxnError
from streamlake.core.errors import Invalid, Unavailable
from streamlake.peers.brokers import BrokerPeer
from streamlake.peers.kafka import KafkaPeer
from streamlake.protocol.broker_messages import BrokerKey
from streamlake.protocol.broker_messages.hello import HelloRequest
from streamlake.protocol.broker_messages.join_transactions import Join, JoinResult, JoinTransactionsRequest
from streamlake.protocol.broker_messages.poke import PokeRequest
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.requests import api

US = Life(1, 4)


def peer_of(server: PeerServer, secret: ClusterSecret = SECRET) -> BrokerPeer:
    proof = secret.proof(US, server.brokers.life)
    return BrokerPeer("127.0.0.1", server.port, HelloRequest(US.node, US.epoch, proof), DEADLINE_S)


async def test_pokes_over_one_connection_and_over_another_when_it_is_lost() -> None:
    server = await PeerServer(2).start()
    peer = peer_of(server)
    await peer.poke(3)
    assert server.image.stale.is_set()
    await peer.poke(4)
    assert (server.listener.counters.connections_accepted, server.pokes) == (1, 2)
    for connection in list(server.listener._connections):
        connection.close()
    with pytest.raises(Unavailable):
        while True:  # until the end of the connection has come here
            await peer.poke(5)
    await peer.poke(6)
    assert server.listener.counters.connections_accepted == 2
    await peer.close()
    await server.stop()


async def test_transactions_are_asked_about() -> None:
    class Known:
        async def verify(self, key: str, producer: Producer, participant: Participant) -> tuple[TxnError, int]:
            assert (key, producer, participant) == ("t", Producer(7, 1), Participant(UUID(int=3), 2))
            return TxnError.NONE, 5

    server = PeerServer(2)
    server.more["transactions"] = Known()
    await server.start()
    peer = peer_of(server)
    join = Join("t", 7, 1, may_add=False, topic_id=UUID(int=3), partition=2)
    answer = await peer.join_transactions(JoinTransactionsRequest((join,)))
    assert answer.results == (JoinResult(0, 5),)
    await peer.close()
    await server.stop()


async def test_strangers_are_refused_with_a_hello_and_without() -> None:
    server = await PeerServer(2).start()
    stranger = peer_of(server, ClusterSecret(b"x" * 32))
    with pytest.raises(Invalid, match="does not take this broker for one of its cluster"):
        await stranger.poke(3)

    class WithoutHello(KafkaPeer):
        async def greet(self, connection) -> None:
            connection.served = {BrokerKey.POKE: range(1)}

    rude = WithoutHello("127.0.0.1", server.port, "x", DEADLINE_S)
    answer = await rude.call(BrokerKey.POKE, PokeRequest(3), 0)
    assert answer.error_code == ErrorCode.CLUSTER_AUTHORIZATION_FAILED
    assert not server.image.stale.is_set()
    await stranger.close()
    await rude.close()
    await server.stop()


def test_messages_between_brokers_have_keys_of_their_own() -> None:
    for key in BrokerKey:
        found = api(key)
        assert (found.key, found.name) == (key, key.name.lower())
