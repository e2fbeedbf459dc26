import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kio.schema.request_header.v1.header import RequestHeader as RequestHeaderV1
from kio.schema.request_header.v2.header import RequestHeader as RequestHeaderV2
from kio.schema.response_header.v0.header import ResponseHeader as ResponseHeaderV0
from kio.schema.response_header.v1.header import ResponseHeader as ResponseHeaderV1
from support.kio_messages import entities, kio_bytes, random_entity

from streamlake.core.errors import Invalid
from streamlake.protocol.decoder import decoder
from streamlake.protocol.encoder import encoder
from streamlake.protocol.messages import ApiKey, api_versions, fetch, metadata, produce
from streamlake.protocol.requests import (
    Call,
    UnsupportedRequest,
    api,
    correlation_id_of,
    decode_response,
    encode_request,
    encode_response,
    parse,
    prepare,
)
from streamlake.protocol.wire import Malformed

APIS = {key: api(key) for key in ApiKey}


@pytest.mark.parametrize("key", ApiKey)
def test_requests_and_responses_have_kios_headers(key: ApiKey) -> None:
    """Every API and version: a request made by kio is parsed, our answer is kio's byte for byte, and back."""
    rng, found = random.Random(key), APIS[key]
    for version, ours, theirs in entities(found):
        entity = random_entity(theirs, rng)
        header = theirs.__header_schema__
        if ours is found.request:
            assert header in (RequestHeaderV1, RequestHeaderV2)
            head = header(request_api_key=key, request_api_version=version, correlation_id=77, client_id="cliënt")
            frame = kio_bytes(head) + kio_bytes(entity)
            call = parse(APIS, frame)
            assert (call.api, call.version, call.correlation_id, call.client_id) == (found, version, 77, "cliënt")
            buffers = encode_request(found, version, 77, "cliënt", call.request)
        else:
            assert header in (ResponseHeaderV0, ResponseHeaderV1)
            frame = kio_bytes(header(correlation_id=78)) + kio_bytes(entity)
            if key == ApiKey.API_VERSIONS and frame[4:6] == b"\x00\x23":
                continue  # code 35 comes in version 0 only
            assert correlation_id_of(frame) == 78
            response = decode_response(found, version, frame)
            buffers = encode_response(Call(found, version, 78, None, None), response)
        assert b"".join(buffers) == struct.pack(">i", len(frame)) + frame


def request_frame(key: int, version: int, body: bytes, client_id_bytes: bytes = b"\xff\xff") -> bytes:
    return struct.pack(">hhi", key, version, 5) + client_id_bytes + body


def test_golden_request_and_response() -> None:
    call = parse(APIS, bytes.fromhex("0012 0003 00000007 0002 6d65 00 0261 0262 00"))
    assert call.request == api_versions.ApiVersionsRequest(client_software_name="a", client_software_version="b")
    assert (call.client_id, call.correlation_id, call.unknown_version) == ("me", 7, False)
    answer = api_versions.ApiVersionsResponse(api_keys=(api_versions.ApiVersion(api_key=18, max_version=4),))
    expected = "00000013 00000007 0000 02 0012 0000 0004 00 00000000 00"  # no tagged fields in the header
    assert b"".join(encode_response(call, answer)) == bytes.fromhex(expected)


def test_unknown_tags_in_the_header_are_skipped() -> None:
    call = parse(APIS, request_frame(3, 12, b"\x01\x63\x02hi" + b"\x00\x01\x00\x00"))
    assert call.request.topics is None and call.client_id is None


def test_an_unknown_version_of_api_versions_is_answered_in_version_0() -> None:
    """KIP-511: the client learns from the answer which version to use."""
    call = parse(APIS, request_frame(18, 99, b"whatever version 99 may look like"))
    assert (call.version, call.unknown_version) == (0, True)
    answer = encode_response(call, api_versions.ApiVersionsResponse(error_code=35))
    assert b"".join(answer) == bytes.fromhex("0000000a 00000005 0023 00000000")
    assert decode_response(APIS[ApiKey.API_VERSIONS], 4, b"".join(answer)[4:]).error_code == 35


def test_unknown_apis_and_versions_are_unsupported() -> None:
    with pytest.raises(UnsupportedRequest, match="API 999"):
        parse(APIS, request_frame(999, 0, b""))
    with pytest.raises(UnsupportedRequest, match="produce version 2, served are 3 to"):
        parse(APIS, request_frame(0, 2, b""))
    few = {ApiKey.METADATA: api(ApiKey.METADATA, range(5))}
    with pytest.raises(UnsupportedRequest, match="metadata version 5"):
        parse(few, request_frame(3, 5, b""))


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x00\x12\x00\x00\x00\x00\x00",
        request_frame(18, 0, b"", b"\xff\xfe"),  # client id of -2 bytes
        request_frame(18, 0, b"", b"\x00\x05"),  # client id longer than the frame
        request_frame(18, 99, b"", b"\x00\x05"),  # the same where no message is read after it
        request_frame(18, 0, b"", b"\x00\x01\xff"),  # not UTF-8
        request_frame(18, 3, b""),  # no tagged fields
        request_frame(18, 3, b"\x05\x01"),  # tagged fields cut off
        request_frame(3, 12, b"\x00" + b"\xff\xff\xff\xff\x0f"),
    ],
)
def test_broken_headers_are_malformed(frame: bytes) -> None:
    with pytest.raises(Malformed):
        parse(APIS, frame)


@given(st.binary(max_size=60), st.sampled_from(list(ApiKey)), st.integers(-1, 20))
def test_nothing_but_two_errors_comes_out_of_parse(body: bytes, key: int, version: int) -> None:
    for frame in (body, request_frame(key, version, body)):
        try:
            parse(APIS, frame)
        except (Malformed, UnsupportedRequest):
            pass


@given(st.binary(max_size=60), st.sampled_from(list(ApiKey)), st.data())
def test_nothing_but_malformed_comes_out_of_decode_response(frame: bytes, key: int, data: st.DataObject) -> None:
    try:
        correlation_id_of(frame)
        decode_response(APIS[key], data.draw(st.sampled_from(APIS[key].versions)), frame)
    except Malformed:
        pass


def test_an_api_names_what_is_implemented_and_what_is_advertised() -> None:
    served = api(ApiKey.PRODUCE, range(3, 12), advertised_min=0)
    assert (served.key, served.name, served.versions, served.advertised_min) == (0, "produce", range(3, 12), 0)
    assert served.request is produce.ProduceRequest and served.response is produce.ProduceResponse
    assert not served.is_flexible(8) and served.is_flexible(9)
    assert api(ApiKey.METADATA, range(1, 3)).advertised_min == 1
    assert not api(ApiKey.SASL_HANDSHAKE).is_flexible(1)


@pytest.mark.parametrize("versions", [range(2, 5), range(3, 99), range(5, 5)])
def test_versions_without_messages_are_refused(versions: range) -> None:
    with pytest.raises(Invalid, match="produce"):
        api(ApiKey.PRODUCE, versions)


def test_records_pass_through_uncopied() -> None:
    records = bytes(50_000)
    call = Call(APIS[ApiKey.FETCH], 12, 1, None, None)
    partition = fetch.PartitionData(records=records)
    buffers = encode_response(
        call, fetch.FetchResponse(responses=(fetch.FetchableTopicResponse(topic="t", partitions=(partition,)),))
    )
    assert any(b is records for b in buffers)
    frame = b"".join(buffers)
    assert struct.unpack(">i", frame[:4]) == (len(frame) - 4,)


def test_after_prepare_nothing_is_left_to_compile() -> None:
    served = api(ApiKey.HEARTBEAT)
    prepare([served])
    compiled = decoder.cache_info().misses, encoder.cache_info().misses
    for version in served.versions:
        frame = b"".join(encode_request(served, version, 1, None, served.request()))[4:]
        misses = encoder.cache_info().misses  # of the client's side
        encode_response(parse({served.key: served}, frame), served.response())
        assert (decoder.cache_info().misses, encoder.cache_info().misses) == (compiled[0], misses)


def test_null_and_empty_client_ids_differ() -> None:
    request = metadata.MetadataRequest(topics=None)
    for client_id in (None, "", "x"):
        frame = b"".join(encode_request(APIS[ApiKey.METADATA], 1, 1, client_id, request))[4:]
        assert parse(APIS, frame).client_id == client_id
