"""AlterUserScramCredentials (51): clients are not authenticated, so there are no passwords to set or to delete.

Behavior: a user must not believe that a password protects anything: it is refused, and nothing is kept of it.
"""

from streamlake.handlers.context import Context, Exchange
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.alter_user_scram_credentials import (
    AlterUserScramCredentialsRequest,
    AlterUserScramCredentialsResponse,
    AlterUserScramCredentialsResult,
)

NOT_THERE = "clients are not authenticated yet: no password can be set"


async def handle(ctx: Context, exchange: Exchange) -> AlterUserScramCredentialsResponse:
    request: AlterUserScramCredentialsRequest = exchange.body
    results = {each.name: _deleted(each.name) for each in request.deletions} | {
        each.name: AlterUserScramCredentialsResult(each.name, ErrorCode.UNSUPPORTED_SASL_MECHANISM, NOT_THERE)
        for each in request.upsertions
    }
    return AlterUserScramCredentialsResponse(results=tuple(results.values()))


def _deleted(name: str) -> AlterUserScramCredentialsResult:
    if not name:
        return AlterUserScramCredentialsResult(name, ErrorCode.UNACCEPTABLE_CREDENTIAL, "the name of a user is empty")
    text = f"{name} has no password: clients are not authenticated yet"
    return AlterUserScramCredentialsResult(name, ErrorCode.RESOURCE_NOT_FOUND, text)
