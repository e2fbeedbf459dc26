"""Hello: only brokers of the cluster become peers."""

from types import SimpleNamespace
from typing import Any

import pytest
from support.two_brokers import OTHER, OWN, two_brokers

from streamlake.cluster.secret import ClusterSecret, Life
from streamlake.handlers.hello import handle
from streamlake.protocol.broker_messages.hello import HelloRequest
from streamlake.protocol.errors import ErrorCode

SECRET = ClusterSecret(b"s" * 32)
SENDER, US = Life(OTHER.node, OTHER.epoch), Life(OWN.node, OWN.epoch)


def asked(proof: bytes, sender: Life = SENDER) -> Any:
    request = HelloRequest(sender.node, sender.epoch, proof)
    return SimpleNamespace(body=request, client_host="there", peer=None)


CTX: Any = SimpleNamespace(brokers=two_brokers(), secret=SECRET)


async def test_a_broker_of_the_cluster() -> None:
    exchange = asked(SECRET.proof(SENDER, US))
    assert (await handle(CTX, exchange)).error_code == 0
    assert exchange.peer == SENDER


@pytest.mark.parametrize(
    "exchange",
    [
        asked(b""),
        asked(ClusterSecret(b"t" * 32).proof(SENDER, US)),
        asked(SECRET.proof(SENDER, Life(OWN.node, OWN.epoch - 1))),
        asked(SECRET.proof(SENDER, US), Life(OTHER.node, OTHER.epoch + 1)),
    ],
)
async def test_a_stranger(exchange: Any) -> None:
    assert (await handle(CTX, exchange)).error_code == ErrorCode.CLUSTER_AUTHORIZATION_FAILED
    assert exchange.peer is None
