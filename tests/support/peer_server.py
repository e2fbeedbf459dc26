"""A Kafka port that answers other brokers only, as one life of a broker of a cluster of two."""

import asyncio
from types import SimpleNamespace
from typing import Any

from streamlake.cluster.brokers import Brokers
from streamlake.cluster.secret import ClusterSecret
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.membership import BrokerInfo
from streamlake.cluster.store.schema import SERVING
from streamlake.handlers.apis import OF_BROKERS
from streamlake.server.listener import Listener, bind
from streamlake.server.memory import ConnectionMemory

SECRET = ClusterSecret(b"s" * 32)


class PeerServer:
    def __init__(self, node: int, epoch: int = 1, secret: ClusterSecret = SECRET, port: int = 0) -> None:
        self.socket = bind("127.0.0.1", port)
        self.port: int = self.socket.getsockname()[1]
        self.info = BrokerInfo(node, epoch, 0, SERVING, "127.0.0.1", self.port)
        self.brokers = Brokers(BrokerIdentity("c", node, epoch), "127.0.0.1", self.port)
        self.image = SimpleNamespace(revision=0, stale=asyncio.Event())
        image: Any = self.image
        self.brokers.images.append(image)
        self.listener = Listener(self.socket, 10, 1 << 20)
        self.more: dict[str, Any] = {}  # that its handlers find in their context
        self._secret = secret

    @property
    def pokes(self) -> int:
        return self.listener.counters.requests.get("poke", 0)

    async def start(self) -> "PeerServer":
        ctx: Any = SimpleNamespace(brokers=self.brokers, secret=self._secret, **self.more)
        await self.listener.start(ctx, OF_BROKERS, ConnectionMemory(1 << 30))
        return self

    async def stop(self) -> None:
        await self.listener.stop(0)
