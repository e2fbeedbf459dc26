"""OAuth2's way to a token of `[http] tokens`, for clients that know no other: RFC 6749, client credentials.

The secret of a client is one of the tokens, whatever its id, and the access token that it gets is that same token.
Another one would open no less, and would have to be good at all servers behind one address and after their restarts;
and clients differ in whether and how they renew one that expires. This one ends, as the secret does, when it is taken
off the list. `expires_in` only makes clients ask again: Java's by an exchange of the old token (RFC 8693).
"""

import base64
import binascii
from urllib.parse import parse_qsl, unquote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from streamlake.http import body
from streamlake.http.tokens import WRONG_KEPT_S, Tokens

FORM_BYTES_MAX = 16 << 10
FIELDS_MAX = 20
EXPIRES_IN_S = 3600
CREDENTIALS = "client_credentials"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
ANYBODY = "anybody"  # the token of a server that needs none: clients want to send one all the same


class _Refused(Exception):
    """`error` is one of RFC 6749's."""

    def __init__(self, error: str, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.error = error
        self.status = status


async def answer(request: Request, tokens: Tokens) -> Response:
    """To a POST of a form."""
    try:
        given = _secret(_fields(await _form(request)), request.headers.get("authorization", ""))
        token = _checked(given, tokens, request.client.host if request.client else "")
    except _Refused as refused:
        answer = JSONResponse({"error": refused.error, "error_description": str(refused)}, refused.status)
        if refused.status == 401:
            answer.headers["www-authenticate"] = 'Basic realm="streamlake"'
        if refused.status == 413:
            answer.headers["connection"] = "close"
        if refused.status == 429:
            answer.headers["retry-after"] = str(WRONG_KEPT_S)
    else:
        found = {"access_token": token, "token_type": "bearer", "issued_token_type": ACCESS_TOKEN}
        answer = JSONResponse({**found, "expires_in": EXPIRES_IN_S})
    answer.headers["cache-control"] = "no-store"  # RFC 6749: it has a secret
    return answer


async def _form(request: Request) -> bytes:
    try:
        return await body.read(request, FORM_BYTES_MAX)
    except body.TooLarge as error:
        raise _Refused("invalid_request", str(error), 413) from None
    except (ClientDisconnect, TimeoutError):
        raise _Refused("invalid_request", "the body of the request did not arrive", 408) from None


def _fields(form: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(form.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX)
    except ValueError:  # not UTF-8, or too many
        raise _Refused("invalid_request", "the body must be a form (application/x-www-form-urlencoded)") from None
    if len(fields := dict(pairs)) != len(pairs):
        raise _Refused("invalid_request", "the form has a parameter twice")
    return fields


def _secret(fields: dict[str, str], authorization: str) -> str:
    """What the client knows."""
    grant = fields.get("grant_type")
    if grant is None:
        raise _Refused("invalid_request", "the form has no grant_type")
    if grant == EXCHANGE:
        return fields.get("subject_token", "")
    if grant != CREDENTIALS:
        raise _Refused("unsupported_grant_type", f"grant_type must be {CREDENTIALS}")
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return fields.get("client_secret", "")
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode()
    except (ValueError, binascii.Error):
        raise _Refused("invalid_client", "the header Authorization is not `Basic`, an id and a secret", 401) from None
    return unquote(decoded.partition(":")[2])  # some clients encode it, as the RFC says; a token has no percent sign


def _checked(given: str, tokens: Tokens, address: str) -> str:
    if not tokens.are_needed:
        return ANYBODY
    verdict = tokens.check(given, address)
    if verdict == "too many":
        raise _Refused("temporarily_unavailable", f"too many wrong secrets: try again in {WRONG_KEPT_S} s", 429)
    if verdict == "unknown":
        raise _Refused("invalid_client", "the client secret must be one of [http] tokens", 401)
    return given
