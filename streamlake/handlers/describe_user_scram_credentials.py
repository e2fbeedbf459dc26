"""DescribeUserScramCredentials (50): nobody has a password, since clients are not authenticated.

Behavior: of users that are named, each is unknown (RESOURCE_NOT_FOUND); all users are none.
"""

from collections import Counter

from streamlake.handlers.context import Context, Exchange
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.describe_user_scram_credentials import (
    DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse,
    DescribeUserScramCredentialsResult,
)


async def handle(ctx: Context, exchange: Exchange) -> DescribeUserScramCredentialsResponse:
    request: DescribeUserScramCredentialsRequest = exchange.body
    named = Counter(user.name for user in request.users or ())
    return DescribeUserScramCredentialsResponse(
        error_message="",
        results=tuple(_result(name, twice=count > 1) for name, count in named.items()),
    )


def _result(name: str, twice: bool) -> DescribeUserScramCredentialsResult:
    if twice:
        text = f"{name} stands more than once in the request"
        return DescribeUserScramCredentialsResult(name, ErrorCode.DUPLICATE_RESOURCE, text)
    text = f"{name} has no password: clients are not authenticated yet"
    return DescribeUserScramCredentialsResult(name, ErrorCode.RESOURCE_NOT_FOUND, text)
