"""ConsumerGroupHeartbeat: a clear no. tests/clients ask with real clients."""

import pytest
from support.wire import Client, ends

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatRequest


@pytest.mark.parametrize("version", ends(ApiKey.CONSUMER_GROUP_HEARTBEAT))
def test_the_protocol_is_refused_with_what_to_do(client: Client, group: str, version: int) -> None:
    request = ConsumerGroupHeartbeatRequest(group_id=group, member_id="m", subscribed_topic_names=("t",))
    answer = client.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, version, request)
    assert (answer.error_code, answer.member_id) == (ErrorCode.UNSUPPORTED_VERSION, None)
    assert "group.protocol=classic" in answer.error_message
