"""FindCoordinator (10): which broker coordinates a group, or a transactional id.

Behavior: that of the key's slot, as far as this broker knows; COORDINATOR_NOT_AVAILABLE, for which clients ask again,
while nobody has the slot, or the broker that has it does not serve. Share groups (key type 2) are not there yet: an
error that clients report at once, not "not available", which they would ask for again and again.
Version notes: one key until version 3, a batch of keys from version 4.
"""

from streamlake.handlers.context import Context, Exchange
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.find_coordinator import (
    Coordinator,
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)

GROUP, TRANSACTION = 0, 1


async def handle(ctx: Context, exchange: Exchange) -> FindCoordinatorResponse:
    request: FindCoordinatorRequest = exchange.body
    keys = request.coordinator_keys if exchange.version >= 4 else (request.key,)
    found = tuple(_find(ctx, key, request.key_type) for key in keys)
    if exchange.version >= 4:
        return FindCoordinatorResponse(coordinators=found)
    (one,) = found
    return FindCoordinatorResponse(
        error_code=one.error_code,
        error_message=one.error_message or "NONE",  # Kafka's word for no error
        node_id=one.node_id,
        host=one.host,
        port=one.port,
    )


def _find(ctx: Context, key: str, key_type: int) -> Coordinator:
    if key_type not in (GROUP, TRANSACTION):
        text = "share groups are not supported yet"
        return Coordinator(key=key, node_id=-1, port=-1, error_code=ErrorCode.INVALID_REQUEST, error_message=text)
    node = ctx.slots.coordinator_of(key)
    broker = None if node is None else ctx.brokers.get(node)
    if broker is None:
        text = "the broker that coordinates this key is not there: another one takes its place soon, ask again"
        code = ErrorCode.COORDINATOR_NOT_AVAILABLE
        return Coordinator(key=key, node_id=-1, port=-1, error_code=code, error_message=text)
    return Coordinator(key=key, node_id=broker.node, host=broker.host, port=broker.port, error_message="")
