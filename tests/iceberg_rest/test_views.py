"""There are no views, in the specification's words."""

import httpx
import pytest
from pyiceberg.catalog.rest import RestCatalog


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_view_is_not_there(http: httpx.Client, rest: RestCatalog, method: str) -> None:
    rest.create_namespace("a")
    missing = http.request(method, "namespaces/a/views/v", json={} if method == "POST" else None)
    assert missing.status_code == 404
    assert missing.json() == {
        "error": {"message": "View does not exist: a.v", "type": "NoSuchViewException", "code": 404}
    }


def test_the_rest(http: httpx.Client, rest: RestCatalog) -> None:
    rest.create_namespace("a")
    assert http.head("namespaces/a/views/v").status_code == 404
    assert http.get("namespaces/a/views").json() == {"identifiers": []}
    assert http.get("namespaces/b/views").json()["error"]["type"] == "NoSuchNamespaceException"
    refused = http.post("namespaces/a/views", json={"name": "v"})
    assert (refused.status_code, refused.json()["error"]["type"]) == (406, "UnsupportedOperationException")
