"""One request to the catalog as its handlers see it, and what they return."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel
from pyiceberg.typedef import Identifier

from streamlake.iceberg_rest.errors import bad_request
from streamlake.iceberg_rest.paths import NAMESPACE_SEPARATOR
from streamlake.iceberg_rest.s3.access import Grant, S3Access

PAGE_SIZE_MAX = 10_000

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """`parameters` are the decoded variables of the path. `forced`: the client insists on what topic_guard.py refuses.
    `delegation`: how the client would like to reach the files of tables; `access` decides. `topics`: the tables that
    topics feed now, by `key`, with the topic's name. `catalog`: StreamLake's name of the catalog; `is_named`: the
    client has asked for it by name. `attempted`: where the handler writes the tables that it is to commit to."""

    parameters: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    etag: str = ""
    forced: bool = False
    delegation: frozenset[str] = frozenset()
    topics: Mapping[tuple[str, str], str] = field(default_factory=dict)
    fold: Callable[[str], str] = str  # a name as the catalog knows it
    catalog: str = ""
    is_named: bool = False
    access: S3Access | None = None
    attempted: set[tuple[str, str]] = field(default_factory=set)

    @property
    def namespace(self) -> Identifier:
        return tuple(self.parameters["namespace"].split(NAMESPACE_SEPARATOR))

    @property
    def table(self) -> Identifier:
        return (*self.namespace, self.parameters["table"])

    def granted(self, table: Identifier, location: str, staged: bool = False) -> Grant:
        """What the client gets for the files of a table that it loads or creates."""
        return self.access.grant(self.delegation, table, location, staged) if self.access else Grant()

    def key(self, identifier: Sequence[str]) -> tuple[str, str]:
        """By which a table is found in `topics`."""
        namespace, name = table_key(identifier)
        return self.fold(namespace), self.fold(name)

    def json(self) -> dict[str, Any]:
        try:
            found = msgspec.json.decode(self.body or b"{}")
        except (ValueError, RecursionError) as error:  # msgspec's errors, text that is not UTF-8, brackets without end
            raise bad_request(f"the body is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise bad_request("the body must be a JSON object")
        return found

    def model(self, kind: type[M], **defaults: Any) -> M:
        """The body as pyiceberg's model; `defaults` for what it demands and clients may leave out."""
        return kind.model_validate({**defaults, **self.json()})


@dataclass(frozen=True, slots=True)
class Reply:
    """`content`: a model of pyiceberg, what is JSON already, or what msgspec makes JSON of."""

    status: int = 200
    content: Any = None
    etag: str = ""
    cache: str = ""  # the header Cache-Control

    def body(self) -> bytes:
        if self.content is None:
            return b""
        if isinstance(self.content, bytes):
            return self.content
        if isinstance(self.content, BaseModel):
            return self.content.model_dump_json().encode()
        return msgspec.json.encode(self.content)


NO_CONTENT = Reply(204)
NO_STORE = "no-store"  # for what holds a secret


def table_key(identifier: Sequence[str]) -> tuple[str, str]:
    """The same for `(a, b, t)` and `(a.b, t)`: a topic's namespace is one string, with or without dots."""
    return ".".join(identifier[:-1]), identifier[-1]


def page(items: Sequence[T], request: Request) -> tuple[Sequence[T], str | None]:
    """The part of a sorted list that the client asks for, and the token of the next one. Without `pageSize`: all."""
    size_text, token = request.query.get("pageSize", ""), request.query.get("pageToken", "")
    try:
        size, start = int(size_text or PAGE_SIZE_MAX), int(token or 0)
    except ValueError:
        raise bad_request("pageSize is a number, and pageToken what the page before came with") from None
    if size < 1 or start < 0:
        raise bad_request("pageSize is at least 1, and pageToken what the page before came with")
    if not size_text and not token:
        return items, None
    end = start + min(size, PAGE_SIZE_MAX)
    return items[start:end], str(end) if end < len(items) else None
