"""AlterClientQuotas: none can be set."""

import pytest
from support.wire import Client, ends

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.alter_client_quotas import (
    AlterClientQuotasRequest,
    EntityData,
    OpData,
    RequestEntryData,
)


@pytest.mark.parametrize("version", ends(ApiKey.ALTER_CLIENT_QUOTAS))
def test_each_entity_alone(client: Client, version: int) -> None:
    set_, remove = OpData("producer_byte_rate", 1.0), OpData("producer_byte_rate", remove=True)
    alice, default = (EntityData("user", "alice"),), (EntityData("user", None),)
    entries = (
        RequestEntryData(alice, (set_,)),
        RequestEntryData(default, (remove,)),
        RequestEntryData(alice, (remove, set_)),
        RequestEntryData((), (remove,)),
    )
    answer = client.ask(ApiKey.ALTER_CLIENT_QUOTAS, version, AlterClientQuotasRequest(entries)).entries
    not_there = ErrorCode.UNSUPPORTED_VERSION
    assert [(e.entity, e.error_code) for e in answer] == [
        (alice, not_there),
        (default, 0),
        (alice, not_there),
        ((), ErrorCode.INVALID_REQUEST),
    ]
    assert "quotas are not implemented" in answer[0].error_message
