"""ApiVersions (18): what this broker speaks.

Behavior: the ranges are those of handlers/apis.py and nothing else. Produce is advertised from version 0, though 3 is
the lowest that is served: older librdkafka turns compression off otherwise (KAFKA-18659).
Of Kafka's features (KIP-584) two are claimed: transaction.version 2, so clients may leave it to leaders to have
partitions join a transaction, and get a new epoch with each (KIP-890), and group.version 1, consumer groups (KIP-848).
The client's name and version (from 3) must be of the form that KIP-511 gives them.
Version notes: that a feature can be 0 is told from version 4: older clients take it for an error. An unknown version is
answered in version 0 with code 35 and the range of ApiVersions (KIP-511).
"""

import re

from streamlake.coordinator.transaction import V2
from streamlake.handlers.context import Context, Exchange
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.api_versions import (
    KEY,
    ApiVersion,
    ApiVersionsRequest,
    ApiVersionsResponse,
    FinalizedFeatureKey,
    SupportedFeatureKey,
)

GROUP_VERSION = 1  # group.version: the consumer protocol (KIP-848)
FEATURES = {"group.version": GROUP_VERSION, "transaction.version": V2}
SUPPORTED = tuple(SupportedFeatureKey(name=name, min_version=0, max_version=level) for name, level in FEATURES.items())
FINALIZED = tuple(
    FinalizedFeatureKey(name=name, max_version_level=level, min_version_level=level) for name, level in FEATURES.items()
)
_CLIENT = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?")


async def handle(ctx: Context, exchange: Exchange) -> ApiVersionsResponse:
    from streamlake.handlers.apis import HANDLERS  # the list names this module too

    request: ApiVersionsRequest | None = exchange.body
    known = tuple(
        ApiVersion(api_key=h.api.key, min_version=h.api.advertised_min, max_version=h.api.versions[-1])
        for h in HANDLERS
        if request is not None or h.api.key == KEY
    )
    if request is None:
        return ApiVersionsResponse(error_code=ErrorCode.UNSUPPORTED_VERSION, api_keys=known)
    client = (request.client_software_name, request.client_software_version)
    if exchange.version >= 3 and not all(map(_CLIENT.fullmatch, client)):
        return ApiVersionsResponse(error_code=ErrorCode.INVALID_REQUEST)
    return ApiVersionsResponse(
        api_keys=known,
        supported_features=SUPPORTED if exchange.version >= 4 else (),
        finalized_features_epoch=0,
        finalized_features=FINALIZED,
    )
