"""ConsumerGroupHeartbeat (68, KIP-848): the next consumer group protocol, which is not there yet.

Behavior: UNSUPPORTED_VERSION with what to do, as Kafka answers while its feature group.version is off. Were the API not
served at all, a Java consumer would find out by itself, but librdkafka's would wait for a better broker, silently and
for ever.
"""

from streamlake.handlers.context import Context, Exchange
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatResponse

TEXT = "the consumer group protocol of KIP-848 is not there yet: set group.protocol=classic on the consumer"


async def handle(ctx: Context, exchange: Exchange) -> ConsumerGroupHeartbeatResponse:
    return ConsumerGroupHeartbeatResponse(error_code=ErrorCode.UNSUPPORTED_VERSION, error_message=TEXT)
