"""Questions to a server's HTTP port."""

import json
import urllib.error
import urllib.request
from typing import Any

from streamlake.core.errors import Invalid, NotFound, Unavailable

HTTP_TIMEOUT_S = 10


def get_json(http: str, path: str, token: str | None = None) -> Any:
    """GET from a broker's HTTP port. Unavailable says how to start one."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        request = urllib.request.Request(http + path, headers=headers)
        with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_S) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        kind = Unavailable if error.code >= 500 else NotFound if error.code == 404 else Invalid
        raise kind(f"{http}{path} answered {error.code}: {error.read(500).decode(errors='replace')}") from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise Unavailable(
            f"no StreamLake server answers at {http} ({reason}): start one with `streamlake server`, or give --http"
        ) from None
    except ValueError:
        raise Unavailable(f"what answers at {http} is no StreamLake server: give --http its address") from None
