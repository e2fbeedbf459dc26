"""Requests as handlers see them, and their replies."""

import pytest
from pyiceberg.catalog.rest import NamespaceResponse

from streamlake.iceberg_rest.problem import Problem
from streamlake.iceberg_rest.request import Reply, Request, page, table_key


def test_identifiers() -> None:
    request = Request({"namespace": "a\x1fb", "table": "t"})
    assert (request.namespace, request.table) == (("a", "b"), ("a", "b", "t"))
    assert table_key(("a", "b", "t")) == table_key(("a.b", "t")) == ("a.b", "t")


def test_bodies_of_replies() -> None:
    assert Reply(204).body() == b""
    assert Reply(content=b"as it is").body() == b"as it is"
    assert Reply(content={"a": 1}).body() == b'{"a":1}'
    assert Reply(content=NamespaceResponse(namespace=("a",))).body() == b'{"namespace":["a"],"properties":{}}'


def test_no_body_is_an_empty_object() -> None:
    assert Request().json() == {}
    with pytest.raises(Problem, match="object"):
        Request(body=b"5").json()


@pytest.mark.parametrize(
    ("query", "found", "token"),
    [
        ({}, "abc", None),
        ({"pageSize": "2"}, "ab", "2"),
        ({"pageSize": "2", "pageToken": "2"}, "c", None),
        ({"pageToken": "9"}, "", None),
        ({"pageSize": "3"}, "abc", None),
    ],
)
def test_pages(query: dict[str, str], found: str, token: str | None) -> None:
    assert page("abc", Request(query=query)) == (found, token)


@pytest.mark.parametrize("query", [{"pageSize": "-1"}, {"pageToken": "-1"}, {"pageToken": "x"}])
def test_pages_that_are_none(query: dict[str, str]) -> None:
    with pytest.raises(Problem):
        page("abc", Request(query=query))
