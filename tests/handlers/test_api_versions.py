"""ApiVersions: what every client asks first."""

import pytest
from support.wire import Client, encoded

from streamlake.handlers.apis import HANDLERS
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.api_versions import ApiVersionsRequest


@pytest.mark.parametrize("version", range(5))
def test_the_list_is_what_is_served(client: Client, version: int) -> None:
    answer = client.ask(ApiKey.API_VERSIONS, version, ApiVersionsRequest("library", "1.0"))
    assert answer.error_code == 0
    told = {a.api_key: (a.min_version, a.max_version) for a in answer.api_keys}
    assert told == {h.api.key: (h.api.advertised_min, h.api.versions[-1]) for h in HANDLERS}
    assert told[ApiKey.PRODUCE][0] == 0, "older librdkafka turns compression off otherwise (KAFKA-18659)"


def test_an_unknown_version_is_answered_in_version_0(client: Client) -> None:
    """So that a newer client can go down to what it is told (KIP-511)."""
    request = bytearray(encoded(ApiKey.API_VERSIONS, 4, ApiVersionsRequest("library", "1.0"), 9))
    request[6:8] = (99).to_bytes(2, "big")
    client.send(bytes(request))
    answer = client.answer(ApiKey.API_VERSIONS, 0, 9)
    assert answer.error_code == ErrorCode.UNSUPPORTED_VERSION
    assert ApiKey.API_VERSIONS in {a.api_key for a in answer.api_keys}
    assert client.ask(ApiKey.API_VERSIONS, 4, ApiVersionsRequest("library", "1.0")).error_code == 0
