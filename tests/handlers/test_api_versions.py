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
    assert [(a.api_key, a.min_version, a.max_version) for a in answer.api_keys] == [(ApiKey.API_VERSIONS, 0, 4)]
    assert client.ask(ApiKey.API_VERSIONS, 4, ApiVersionsRequest("library", "1.0")).error_code == 0


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("client_says", [("", ""), ("library", ""), ("a b", "1.0"), ("library", "-1"), ("a/b", "1.0")])
def test_clients_whose_name_cannot_be_one(client: Client, client_says: tuple[str, str], version: int) -> None:
    answer = client.ask(ApiKey.API_VERSIONS, version, ApiVersionsRequest(*client_says))
    assert (answer.error_code, answer.api_keys) == (ErrorCode.INVALID_REQUEST, ())


@pytest.mark.parametrize("version", [3, 4])
def test_features_are_consumer_groups_and_transactions_of_version_2(client: Client, version: int) -> None:
    """Others, and clients would take share groups for granted. Older clients take a feature that can be 0 for an error
    (KAFKA-17011)."""
    answer = client.ask(ApiKey.API_VERSIONS, version, ApiVersionsRequest("library", "1.0"))
    told = [(f.name, f.min_version, f.max_version) for f in answer.supported_features]
    assert told == ([("group.version", 0, 1), ("transaction.version", 0, 2)] if version == 4 else [])
    finalized = [(f.name, f.min_version_level, f.max_version_level) for f in answer.finalized_features]
    assert finalized == [("group.version", 1, 1), ("transaction.version", 2, 2)]
    assert answer.finalized_features_epoch == 0
    assert not {76, 77, 78, 79} & {a.api_key for a in answer.api_keys}
