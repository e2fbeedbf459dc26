"""DescribeClientQuotas: none, for whoever asks properly."""

import pytest
from support.wire import Client, ends

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.describe_client_quotas import ComponentData, DescribeClientQuotasRequest

USER = ComponentData("user", 0, "alice")
INVALID = ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("version", ends(ApiKey.DESCRIBE_CLIENT_QUOTAS))
@pytest.mark.parametrize(
    "components",
    [
        (),
        (USER,),
        (ComponentData("user", 1, None), ComponentData("client-id", 2, None)),
        (ComponentData("ip", 0, "127.0.0.1"),),
    ],
)
def test_there_are_none(client: Client, version: int, components: tuple[ComponentData, ...]) -> None:
    answer = client.ask(ApiKey.DESCRIBE_CLIENT_QUOTAS, version, DescribeClientQuotasRequest(components))
    assert (answer.error_code, answer.entries) == (0, ())


@pytest.mark.parametrize(
    ("components", "code"),
    [
        ((ComponentData("", 0, "x"),), INVALID),
        ((USER, USER), INVALID),
        ((USER, ComponentData("ip", 0, "127.0.0.1")), INVALID),
        ((ComponentData("user", 3, None),), INVALID),
        ((ComponentData("user", 0, None),), INVALID),
        ((ComponentData("user", 1, "alice"),), INVALID),
        ((ComponentData("planet", 0, "mars"),), ErrorCode.UNSUPPORTED_VERSION),
    ],
)
def test_what_cannot_be_asked(client: Client, components: tuple[ComponentData, ...], code: ErrorCode) -> None:
    answer = client.newest(ApiKey.DESCRIBE_CLIENT_QUOTAS, DescribeClientQuotasRequest(components))
    assert (answer.error_code, answer.entries) == (code, None)
    assert answer.error_message
