"""ApiVersions (18): what this broker speaks.

Behavior: the ranges are those of handlers/apis.py and nothing else. Produce is advertised from version 0, though 3 is
the lowest that is served: older librdkafka turns compression off otherwise (KAFKA-18659).
Version notes: an unknown version is answered in version 0 with code 35 and the range of ApiVersions (KIP-511).
"""

from streamlake.handlers.context import Context, Exchange
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.api_versions import ApiVersion, ApiVersionsResponse


async def handle(ctx: Context, exchange: Exchange) -> ApiVersionsResponse:
    from streamlake.handlers.apis import HANDLERS  # the list names this module too

    known = tuple(
        ApiVersion(api_key=h.api.key, min_version=h.api.advertised_min, max_version=h.api.versions[-1])
        for h in HANDLERS
    )
    code = ErrorCode.NONE if exchange.body is not None else ErrorCode.UNSUPPORTED_VERSION
    return ApiVersionsResponse(error_code=code, api_keys=known)
