"""Questions to a server's HTTP port."""

import json
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any

from streamlake.core.errors import Invalid, NotFound, StreamLakeError, Unavailable

HTTP_TIMEOUT_S = 10
BODY_SHOWN_BYTES = 500


def get_json(http: str, path: str, token: str | None = None, timeout_s: float = HTTP_TIMEOUT_S) -> Any:
    """GET from a broker's HTTP port. Unavailable says how to start one."""
    return _ask("GET", http, path, token, timeout_s)


def post_json(http: str, path: str, token: str | None = None, timeout_s: float = HTTP_TIMEOUT_S) -> Any:
    """POST without a body. Errors as of `get_json`."""
    return _ask("POST", http, path, token, timeout_s)


def _ask(method: str, http: str, path: str, token: str | None, timeout_s: float) -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        request = urllib.request.Request(http + path, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise _refusal(error, http, path, token) from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise Unavailable(
            f"no StreamLake server answers at {http} ({reason}): start one with `streamlake server`, or give --http"
        ) from None
    except (ValueError, HTTPException):  # no JSON, or not even HTTP
        raise Unavailable(f"what answers at {http} is no StreamLake server: give --http its address") from None


def _refusal(error: urllib.error.HTTPError, http: str, path: str, token: str | None) -> StreamLakeError:
    body = error.read(BODY_SHOWN_BYTES).decode(errors="replace")
    if error.code == 401:
        what = "does not know this token" if token else "needs a token"
        return Invalid(f"{http} {what}: give one of the server's [http] tokens as --token or STREAMLAKE_TOKEN")
    kind = Unavailable if error.code >= 500 else NotFound if error.code == 404 else Invalid
    try:
        body = json.loads(body)["error"]["message"]  # as the cluster and the Iceberg REST catalog tell their errors
    except (ValueError, LookupError, TypeError):
        pass
    return kind(f"{http}{path} answered {error.code}: {body}")
