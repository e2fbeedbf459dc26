"""DescribeClientQuotas (48): there are none.

Behavior: what is asked for is checked as in Kafka. kafka-configs asks when it describes users, clients or addresses.
"""

from collections.abc import Sequence

from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import Failure
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.describe_client_quotas import (
    ComponentData,
    DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
)

USER, CLIENT, ADDRESS = "user", "client-id", "ip"
EXACT, DEFAULT, ANY = 0, 1, 2


async def handle(ctx: Context, exchange: Exchange) -> DescribeClientQuotasResponse:
    request: DescribeClientQuotasRequest = exchange.body
    if refused := _refusal(request.components):
        return DescribeClientQuotasResponse(error_code=refused.code, error_message=refused.message, entries=None)
    return DescribeClientQuotasResponse(error_message="")


def _refusal(components: Sequence[ComponentData]) -> Failure | None:
    kinds = [component.entity_type for component in components]
    if "" in kinds:
        return Failure(ErrorCode.INVALID_REQUEST, "a type of entities is empty")
    if unknown := set(kinds) - {USER, CLIENT, ADDRESS}:
        text = f"{min(unknown)[:100]!r} is not a type of entities: use {USER}, {CLIENT} or {ADDRESS}"
        return Failure(ErrorCode.UNSUPPORTED_VERSION, text)
    if len(kinds) != len(set(kinds)):
        return Failure(ErrorCode.INVALID_REQUEST, "a type of entities stands twice in the request")
    if ADDRESS in kinds and len(kinds) > 1:
        return Failure(ErrorCode.INVALID_REQUEST, f"{ADDRESS} goes with no other type of entities")
    for component in components:
        if component.match_type not in (EXACT, DEFAULT, ANY):
            return Failure(ErrorCode.INVALID_REQUEST, f"{component.match_type} is not a type of matches: use 0, 1 or 2")
        if (component.match_type == EXACT) != (component.match is not None):
            return Failure(ErrorCode.INVALID_REQUEST, "a name goes with matches of type 0, and with no others")
    return None
