"""One connection to another broker of the cluster: hello, then messages of which none is repeated."""

from collections.abc import Callable

from streamlake.core.errors import Invalid
from streamlake.peers.kafka import Connection, KafkaPeer
from streamlake.protocol.broker_messages import BrokerKey
from streamlake.protocol.broker_messages.hello import HelloRequest
from streamlake.protocol.broker_messages.join_transactions import JoinTransactionsRequest, JoinTransactionsResponse
from streamlake.protocol.broker_messages.poke import PokeRequest
from streamlake.protocol.broker_messages.write_markers import WriteMarkersRequest, WriteMarkersResponse
from streamlake.protocol.requests import api

ANSWER_BYTES_MAX = 1 << 20


class BrokerPeer(KafkaPeer):
    def __init__(
        self,
        host: str,
        port: int,
        hello: HelloRequest,
        request_timeout_s: float,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(host, port, "broker", request_timeout_s, max_response_bytes=ANSWER_BYTES_MAX, on_lost=on_lost)
        self._hello = hello

    async def poke(self, revision: int) -> None:
        """Raises as KafkaPeer.call; Invalid if the broker does not take us for one of the cluster."""
        answer = await self.call(BrokerKey.POKE, PokeRequest(revision), 0)
        self._check(answer.error_code)

    async def write_markers(self, request: WriteMarkersRequest) -> WriteMarkersResponse:
        """Raises as KafkaPeer.call."""
        answer: WriteMarkersResponse = await self.call(BrokerKey.WRITE_MARKERS, request, 0)
        return answer

    async def join_transactions(self, request: JoinTransactionsRequest) -> JoinTransactionsResponse:
        """As `poke`."""
        answer: JoinTransactionsResponse = await self.call(BrokerKey.JOIN_TRANSACTIONS, request, 0)
        self._check(answer.error_code)
        return answer

    async def greet(self, connection: Connection) -> None:
        found = api(BrokerKey.HELLO)
        answer = await connection.call(found, 0, self._hello)
        self._check(answer.error_code)
        connection.served = {key: range(1) for key in BrokerKey}  # brokers of one release: nobody need be asked

    def _check(self, error_code: int) -> None:
        if error_code:
            raise Invalid(f"{self.address} does not take this broker for one of its cluster (code {error_code})")
