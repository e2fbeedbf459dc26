"""Bytes from a Kafka client, or from the server that we are a client of: frames, requests, answers."""

import asyncio
import functools
import random
import struct
from collections.abc import Sequence
from typing import Any

from fuzz.target import MIB, Target, run_async
from kio.serial import entity_reader
from support.kio_messages import assert_same, entities, kio_bytes, random_entity
from support.wait import DEADLINE_S

from streamlake.core.errors import StreamLakeError
from streamlake.handlers.apis import HANDLERS
from streamlake.peers import kafka
from streamlake.protocol import codec
from streamlake.protocol.framing import FrameReader
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.api_versions import ApiVersion, ApiVersionsResponse
from streamlake.protocol.requests import (
    Api,
    UnsupportedRequest,
    api,
    correlation_id_of,
    decode_response,
    encode_request,
    encode_response,
    parse,
)
from streamlake.protocol.requests import Call as ServedCall
from streamlake.protocol.wire import Malformed

APIS = {handler.api.key: handler.api for handler in HANDLERS}
PEER_APIS = (ApiKey.FETCH, ApiKey.LIST_OFFSETS, ApiKey.METADATA, ApiKey.API_VERSIONS)
MESSAGES_EACH = 2
FRAME_BYTES_MAX = 1 << 16


@functools.cache
def messages(is_request: bool) -> list[tuple[Api, int, Any]]:
    """Valid messages of all APIs in all versions that are served, made by kio."""
    rng, made = random.Random(1), []
    for found in APIS.values():
        for version, ours, theirs in entities(found):
            if (ours is found.request) == is_request:
                made += [(found, version, random_entity(theirs, rng)) for _ in range(MESSAGES_EACH)]
    return made


def request_seeds() -> list[bytes]:
    seeds = []
    for found, version, entity in messages(True):
        body = codec.decode(found.request, version, found.is_flexible(version), kio_bytes(entity))
        seeds.append(b"".join(encode_request(found, version, 7, "client", body))[4:])
    return seeds


def check_request(frame: bytes) -> None:
    """What was accepted is the same after one more round, and kio reads the same in it."""
    try:
        call = parse(APIS, frame)
    except (Malformed, UnsupportedRequest):
        return
    if call.unknown_version:
        return
    again = b"".join(encode_request(call.api, call.version, call.correlation_id, call.client_id, call.request))[4:]
    assert parse(APIS, again) == call
    body = b"".join(codec.encode(call.request, call.version, call.api.is_flexible(call.version)))
    _kio_agrees(call.api, call.version, call.request, body)


def _kio_agrees(found: Api, version: int, request: Any, body: bytes) -> None:
    """kio can end the process on hostile arrays: it is given only what our encoder made."""
    try:
        entity, _ = entity_reader(_kio_request(found, version))(body, 0)
    except (OverflowError, ValueError):
        return  # a duration or an instant that Python's own classes cannot hold
    assert_same(request, entity)


@functools.cache
def _kio_request(found: Api, version: int) -> type:
    return next(theirs for v, ours, theirs in entities(found) if v == version and ours is found.request)


def response_seeds() -> list[bytes]:
    """API key and version, a byte each, before the frame."""
    seeds = []
    for found, version, entity in messages(False):
        body = codec.decode(found.response, version, found.is_flexible(version), kio_bytes(entity))
        frame = b"".join(encode_response(ServedCall(found, version, 9, None, None), body))[4:]
        seeds.append(bytes([found.key, version]) + frame)
    return seeds


def check_response(data: bytes) -> None:
    key, version, frame = int.from_bytes(data[:1], "big"), int.from_bytes(data[1:2], "big"), data[2:]
    found = APIS.get(key) or APIS[ApiKey.FETCH]
    version = version if version in found.versions else found.versions[version % len(found.versions)]
    try:
        correlation_id = correlation_id_of(frame)
        response = decode_response(found, version, frame)
    except Malformed:
        return
    again = encode_response(ServedCall(found, version, correlation_id, None, None), response)
    if found.key == ApiKey.API_VERSIONS and response.error_code == 35:
        return  # comes in version 0, whatever was asked (KIP-511)
    assert decode_response(found, version, b"".join(again)[4:]) == response


# -- frames ------------------------------------------------------------------------------------------------------------


def frame_seeds() -> list[bytes]:
    """The first byte says how the rest is cut into pieces."""
    rng = random.Random(2)
    stream = b"".join(struct.pack(">i", size) + rng.randbytes(size) for size in (0, 1, 3, 60, 500, 5, 0, 9))
    return [bytes([cut]) + stream for cut in (0, 1, 2, 3, 7, 100, 255)]


def check_frames(data: bytes) -> None:
    """However the bytes are cut, the same frames come out, and the same error at the same place."""
    whole, parts = FrameReader(FRAME_BYTES_MAX), FrameReader(FRAME_BYTES_MAX)
    expected, frames = _frames(whole, [data[1:]]), _frames(parts, cut(data[1:], data[0] if data else 0))
    assert frames == expected
    if None not in expected:
        left = len(data[1:]) - sum(4 + len(frame or b"") for frame in expected)
        assert whole.buffered_bytes == parts.buffered_bytes == left


def cut(data: bytes, how: int) -> list[bytes]:
    """0: whole; 1 to 127: pieces of so many bytes; above: pieces of random size."""
    if how == 0:
        return [data]
    pieces, at, rng = [], 0, random.Random(how)
    while at < len(data):
        size = how if how < 128 else rng.choice([1, 2, 3, 4, 5, 50, 4000])
        pieces.append(data[at : at + size])
        at += size
    return pieces


def _frames(reader: FrameReader, pieces: Sequence[bytes]) -> list[bytes | None]:
    """All frames; None at the end stands for Malformed."""
    found: list[bytes | None] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            while (frame := reader.next_frame()) is not None:
                found.append(bytes(frame))
    except Malformed:
        found.append(None)
    return found


# -- a server's answers, as our own client takes them ------------------------------------------------------------------


def peer_seeds() -> list[bytes]:
    """What a server sends: its answer to the handshake, then answers to what we ask."""
    rng, seeds = random.Random(3), []
    for key in PEER_APIS:
        found = APIS[key]
        version = min(found.versions[-1], 12)
        entity = next(theirs for v, ours, theirs in entities(found) if v == version and ours is found.response)
        made = random_entity(entity, rng)
        answer = codec.decode(found.response, version, found.is_flexible(version), kio_bytes(made))
        frame = b"".join(encode_response(ServedCall(found, version, 1, None, None), answer))
        seeds.append(bytes([int(key), 0]) + _handshake() + frame)
        seeds.append(bytes([int(key), 200]) + _handshake() + frame * 2)
    return seeds


def _handshake() -> bytes:
    served = tuple(ApiVersion(api_key=key, min_version=APIS[key].versions[0], max_version=12) for key in PEER_APIS)
    call = ServedCall(APIS[ApiKey.API_VERSIONS], 0, 0, None, None)
    return b"".join(encode_response(call, ApiVersionsResponse(api_keys=served)))


class _Answers(asyncio.Transport):
    """A server that answers each request with the next of the given pieces, then closes."""

    def __init__(self, connection: Any, pieces: list[bytes]) -> None:
        super().__init__()
        self._connection, self._pieces = connection, pieces
        self._loop = asyncio.get_running_loop()

    def writelines(self, list_of_data: Any) -> None:
        self._loop.call_soon(self._answer)

    def _answer(self) -> None:
        while self._pieces:
            self._connection.data_received(self._pieces.pop(0))
        self._connection.connection_lost(None)

    def abort(self) -> None:
        self._pieces.clear()


def check_peer(data: bytes) -> None:
    """A call ends with an answer or one of the errors that KafkaPeer.call documents."""
    key = ApiKey(data[0]) if data and data[0] in PEER_APIS else ApiKey.FETCH
    run_async(_ask(key, cut(data[2:], data[1] if len(data) > 1 else 0)))


async def _ask(key: ApiKey, pieces: list[bytes]) -> None:
    connection = kafka.Connection("peer:9092", "fuzz", FRAME_BYTES_MAX, 8)
    connection.connection_made(_Answers(connection, pieces))
    try:
        async with asyncio.timeout(DEADLINE_S):
            handshake = asyncio.ensure_future(connection.handshake())
            await asyncio.sleep(0)
            await handshake
            found = api(key)
            await connection.call(found, connection.version_of(found, 12), found.request())
    except StreamLakeError:
        pass


TARGETS = [
    Target("request", request_seeds, check_request, memory_bytes=32 * MIB),
    Target("response", response_seeds, check_response, memory_bytes=32 * MIB),
    Target("frames", frame_seeds, check_frames),
    Target("peer", peer_seeds, check_peer),
]
