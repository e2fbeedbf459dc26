"""Requests and responses with their headers: which API, which version, whose answer.

Request header 1 (api key, version, correlation id, client id) has tagged fields after it in flexible versions (header
2); a response header is the correlation id, and tagged fields in flexible versions. Exceptions, all of ApiVersions: its
response never has the tagged fields, and a version nobody knows is answered in version 0 with code 35 (KIP-511).

An `Api` names the versions that are really implemented, which may be fewer than the message classes know.
"""

import importlib
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from msgspec import Struct

from streamlake.core.errors import Invalid
from streamlake.protocol import codec
from streamlake.protocol.broker_messages import FIRST_KEY, BrokerKey
from streamlake.protocol.decoder import decoder
from streamlake.protocol.encoder import encoder
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.wire import Buffer, Malformed, skip_tags

_REQUEST_HEAD = struct.Struct(">hhih")  # api key, version, correlation id, length of the client id
_CORRELATION_ID = struct.Struct(">i")
_FRAME_HEAD = struct.Struct(">ii")  # length, correlation id
_LENGTH = struct.Struct(">i")
REQUEST_ELEMENTS_MAX = 200_000  # a request about 100,000 partitions fits


class UnsupportedRequest(Invalid):
    """The API or its version is not served here: close the connection, as Kafka does."""


@dataclass(frozen=True, slots=True)
class Api:
    """One API of the wire and the versions of it that are implemented.

    `advertised_min` may be lower than the lowest implemented version: Produce is advertised from 0, although 3 is the
    lowest accepted, because librdkafka chooses features by it (KAFKA-18659).
    """

    key: int
    name: str
    versions: range
    advertised_min: int
    flexible_from: int
    request: type[Struct]
    response: type[Struct]

    def is_flexible(self, version: int) -> bool:
        return version >= self.flexible_from


class Call(Struct, frozen=True):
    """A request that was read. `unknown_version`: an ApiVersions request to answer with UNSUPPORTED_VERSION."""

    api: Api
    version: int
    correlation_id: int
    client_id: str | None
    request: Any
    unknown_version: bool = False


class Asked(Protocol):
    """Whose answer is encoded: a Call, or what is kept of one without its request."""

    @property
    def api(self) -> Api: ...
    @property
    def version(self) -> int: ...
    @property
    def correlation_id(self) -> int: ...


def api(key: int, versions: range | None = None, *, advertised_min: int | None = None) -> Api:
    """The API with this key in these versions; all that its module of messages knows if None. Imports that module."""
    named = ApiKey(key) if key < FIRST_KEY else BrokerKey(key)
    name = named.name.lower()
    module = importlib.import_module(f"{type(named).__module__}.{name}")
    known: range = module.VERSIONS
    if versions is None:
        versions = known
    if not versions or versions[0] not in known or versions[-1] not in known:
        raise Invalid(f"{name} has messages for the versions {known[0]} to {known[-1]}, not for {versions}")
    return Api(
        key=int(key),  # requests are looked up by plain numbers
        name=name,
        versions=versions,
        advertised_min=versions[0] if advertised_min is None else advertised_min,
        flexible_from=module.FLEXIBLE_FROM,
        request=module.REQUEST,
        response=module.RESPONSE,
    )


def prepare(apis: Iterable[Api]) -> None:
    """Compile what serving these APIs needs, a millisecond or two a version, so that no request waits for it."""
    for each in apis:
        for version in each.versions:
            decoder(each.request, version, each.is_flexible(version))
            encoder(each.response, version, each.is_flexible(version))


def parse(apis: Mapping[int, Api], frame: Buffer) -> Call:
    """The request in a frame. Malformed or UnsupportedRequest: close the connection."""
    if len(frame) < _REQUEST_HEAD.size:
        raise Malformed(f"a request of {len(frame)} bytes is shorter than its header")
    key, version, correlation_id, client_id_bytes = _REQUEST_HEAD.unpack_from(frame)
    at = _REQUEST_HEAD.size + max(client_id_bytes, 0)
    client_id = _client_id(frame, client_id_bytes)
    found = apis.get(key)
    if found is None:
        raise UnsupportedRequest(f"a request for API {key}, which is not served here")
    if version not in found.versions:
        if key == ApiKey.API_VERSIONS:
            return Call(found, 0, correlation_id, client_id, found.request(), unknown_version=True)
        raise UnsupportedRequest(
            f"a request for {found.name} version {version}, served are {found.versions[0]} to {found.versions[-1]}"
        )
    flexible = found.is_flexible(version)
    if flexible:
        at = _after_tags(frame, at)
    request = codec.decode(found.request, version, flexible, frame, at, REQUEST_ELEMENTS_MAX)
    return Call(found, version, correlation_id, client_id, request)


def _client_id(frame: Buffer, size: int) -> str | None:
    if size == -1:
        return None
    start = _REQUEST_HEAD.size
    if not 0 <= size <= len(frame) - start:
        raise Malformed(f"a client id of {size} bytes in a request of {len(frame)}")
    try:
        return str(frame[start : start + size], "utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"the client id is not UTF-8: {error}") from error


def _after_tags(frame: Buffer, at: int) -> int:
    try:
        return at + 1 if frame[at] == 0 else skip_tags(frame, at)  # nobody sends any
    except IndexError as error:
        raise Malformed("the header's tagged fields end after the frame") from error


def encode_response(call: Asked, response: Struct) -> list[Buffer]:
    """The answer as buffers to send, length included."""
    head = _FRAME_HEAD.pack(0, call.correlation_id)
    flexible = call.api.is_flexible(call.version)
    if flexible and call.api.key != ApiKey.API_VERSIONS:
        head += b"\x00"
    return _framed(codec.encode(response, call.version, flexible, head))


def encode_request(
    found: Api, version: int, correlation_id: int, client_id: str | None, request: Struct
) -> list[Buffer]:
    """A request as buffers to send, length included."""
    name = b"" if client_id is None else client_id.encode()
    head = _REQUEST_HEAD.pack(found.key, version, correlation_id, -1 if client_id is None else len(name)) + name
    flexible = found.is_flexible(version)
    if flexible:
        head += b"\x00"
    return _framed(codec.encode(request, version, flexible, _LENGTH.pack(0) + head))


def _framed(buffers: list[Buffer]) -> list[Buffer]:
    _LENGTH.pack_into(buffers[0], 0, sum(map(len, buffers)) - _LENGTH.size)
    return buffers


def correlation_id_of(frame: Buffer) -> int:
    """Whose answer a response frame is. Malformed if it is too short."""
    if len(frame) < _CORRELATION_ID.size:
        raise Malformed(f"a response of {len(frame)} bytes is shorter than its header")
    correlation_id: int = _CORRELATION_ID.unpack_from(frame)[0]
    return correlation_id


def decode_response(found: Api, version: int, frame: Buffer) -> Any:
    """The message in a response frame. Malformed if it is not one."""
    at = _CORRELATION_ID.size
    flexible = found.is_flexible(version)
    if found.key == ApiKey.API_VERSIONS:
        if frame[at : at + 2] == ErrorCode.UNSUPPORTED_VERSION.to_bytes(2, "big"):
            return codec.decode(found.response, 0, False, frame, at)
    elif flexible:
        at = _after_tags(frame, at)
    return codec.decode(found.response, version, flexible, frame, at)
