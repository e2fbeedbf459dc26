"""Bytes that are not Kafka's, on a real server: that connection ends with one logged reason, and nobody else notices."""

import random
import socket
import struct
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from support.raw_kafka import RawClient, batch, frame
from support.server import Server
from support.wait import DEADLINE_S, wait_until

from streamlake.protocol.messages import ApiKey, metadata

NewServer = Callable[..., Server]
MIB = 1 << 20
PRODUCE, METADATA, API_VERSIONS = ApiKey.PRODUCE, ApiKey.METADATA, ApiKey.API_VERSIONS
HUGE_VARINT = b"\xff\xff\xff\xff\x0f"
PRODUCE_3 = struct.pack(">hhi", -1, 1, 1000)  # no transactional id, acks, timeout
PRODUCE_9 = b"\x00\x00" + struct.pack(">hi", 1, 1000)  # header's tags, no transactional id, acks, timeout

MALFORMED = {
    "negative frame length": struct.pack(">i", -1),
    "frame over the limit": struct.pack(">i", 100 * MIB + 1),
    "the largest frame length": struct.pack(">i", 2**31 - 1),
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a TLS hello": bytes.fromhex("16030100c8010000c40303"),
    "an empty frame": struct.pack(">i", 0),
    "a frame shorter than a header": struct.pack(">i", 7) + bytes(7),
    "an API nobody knows": frame(999, 0, b""),
    "a negative API": frame(-1, 0, b""),
    "an API between brokers": frame(6, 0, bytes(100)),
    "a version nobody knows": frame(METADATA, 99, bytes(20)),
    "a negative version": frame(METADATA, -1, bytes(20)),
    "a version too old to be served": frame(PRODUCE, 0, bytes(20)),
    "a client id longer than the frame": struct.pack(">ihhih", 12, METADATA, 1, 7, 500) + b"xx",
    "a client id of length -2": struct.pack(">ihhih", 10, METADATA, 1, 7, -2),
    "a client id that is not UTF-8": frame(METADATA, 1, bytes(4), client_id=b"\xff\xfe"),
    "an array of 2 billion": frame(METADATA, 1, struct.pack(">i", 2**31 - 1) + bytes(20)),
    "an array of length -5": frame(METADATA, 0, struct.pack(">i", -5)),
    "a compact array of 4 billion": frame(METADATA, 12, b"\x00" + HUGE_VARINT + bytes(20)),
    "a varint without end": frame(METADATA, 12, b"\x00" + b"\xff" * 20),
    "a string longer than the frame": frame(METADATA, 0, struct.pack(">ih", 1, 32_000) + b"t"),
    "a null where none may be": frame(METADATA, 0, struct.pack(">ih", 1, -1)),
    "a name that is not UTF-8": frame(METADATA, 0, struct.pack(">ih", 1, 2) + b"\xc3\x28"),
    "a body that ends early": frame(PRODUCE, 3, PRODUCE_3[:5]),
    "records longer than the frame": frame(PRODUCE, 3, PRODUCE_3 + struct.pack(">ih1siii", 1, 1, b"t", 1, 0, 10**6)),
    "4 million tagged fields in a header": frame(API_VERSIONS, 3, HUGE_VARINT + bytes(8 * 10**6)),
    "4 million topics": frame(METADATA, 0, struct.pack(">i", 4 * 10**6) + bytes(8 * 10**6)),
    "16 million topics to produce to": frame(PRODUCE, 3, PRODUCE_3 + struct.pack(">i", 10**7) + bytes(6 * 10**7)),
    "50 million tagged fields": frame(PRODUCE, 9, PRODUCE_9 + b"\x01" + HUGE_VARINT + bytes(9 * 10**7)),
    "a large request that is no Produce": frame(METADATA, 0, struct.pack(">i", 1) + bytes(20 * MIB)),
}


@pytest.fixture
def bystander(server: Server) -> RawClient:
    """A connection that was there before; it must work after."""
    with RawClient(server.port) as client:
        check_alive(client)
        yield client
        check_alive(client)


def check_alive(client: RawClient) -> None:
    answer = client.call(ApiKey.METADATA, 12, metadata.MetadataRequest(topics=()))
    assert [broker.node_id for broker in answer.brokers] == [0]


def closed_lines(server: Server) -> int:
    return server.log.count("connection closed")


def memory_bytes(server: Server, key: str = "VmRSS") -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition(f"{key}:")[2].split()[0]) * 1024


def reset_peak(server: Server) -> int:
    """Forget the peak so far (VmHWM); the memory in use now."""
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
    return memory_bytes(server)


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_request_closes_its_connection_with_one_logged_reason(
    server: Server, bystander: RawClient, what: str
) -> None:
    before = closed_lines(server)
    rss = reset_peak(server)
    with RawClient(server.port) as client:
        try:
            client.send(MALFORMED[what])
        except OSError:
            pass  # closed before all was sent: just as well
        check_alive(bystander)
        assert client.is_closed_by_server()
    assert closed_lines(server) == before + 1
    assert "Traceback" not in server.log
    # The frame itself, while it is looked at, in two copies at most; never a multiple of what was sent.
    assert memory_bytes(server, "VmHWM") - rss < 2 * len(MALFORMED[what]) + 30 * MIB


def test_unknown_versions_of_api_versions_are_answered_and_the_connection_stays(server: Server) -> None:
    with RawClient(server.port) as client:
        client.send(frame(API_VERSIONS, 99, b"\x00" + bytes(10)))
        assert client.read_answer()[4:6] == struct.pack(">h", 35)  # UNSUPPORTED_VERSION, in version 0
        check_alive(client)


def test_random_bytes_never_hurt_anyone(server: Server, bystander: RawClient) -> None:
    rng = random.Random(1)
    for _ in range(300):
        body = rng.randbytes(rng.randrange(200))
        kind = rng.randrange(3)
        key, version = rng.randrange(70), rng.randrange(-1, 18)
        data = body if kind == 0 else struct.pack(">i", len(body)) + body if kind == 1 else frame(key, version, body)
        with RawClient(server.port) as client:
            client.send(data)
            client.socket.shutdown(socket.SHUT_WR)  # some wait for more: this is the end of it
            while client.read_answer() is not None:
                pass
    assert "a request failed" not in server.log
    assert "Traceback" not in server.log


def test_a_valid_request_before_garbage_is_answered(server: Server) -> None:
    with RawClient(server.port) as client:
        client.send(frame(API_VERSIONS, 0, b"") + struct.pack(">i", -1))
        assert client.read_answer() is None or client.is_closed_by_server()


def test_connections_cut_in_the_middle_leave_nothing_behind(new_server: NewServer) -> None:
    """On a server of its own: on a shared one, clients that other tests have forgotten still hold connections."""
    server = new_server("[tables]\nenabled = false\n").start()
    whole = frame(METADATA, 0, struct.pack(">i", 0))
    before = closed_lines(server)
    bystander = RawClient(server.port)
    for size in range(len(whole)):
        with RawClient(server.port) as client:
            client.send(whole[:size])
    check_alive(bystander)
    assert closed_lines(server) == before, "a client that goes away is no reason for a warning"
    wait_until(lambda: check_alive(bystander) or connections(server) == 1)  # one by one their ends are seen
    bystander.close()


def connections(server: Server) -> int:
    with urllib.request.urlopen(server.http + "/metrics", timeout=DEADLINE_S) as response:
        text = response.read().decode()
    (line,) = [x for x in text.splitlines() if x.startswith(("streamlake_connections ", "streamlake_connections{"))]
    return int(float(line.split()[-1]))


def test_claims_of_100_mb_without_data_cost_nothing(server: Server, bystander: RawClient) -> None:
    before = memory_bytes(server)
    clients = [RawClient(server.port) for _ in range(100)]
    for client in clients:
        client.send(struct.pack(">ihhih", 100 * MIB, PRODUCE, 9, 1, -1))
    check_alive(bystander)
    assert memory_bytes(server) - before < 20 * MIB
    for client in clients:
        client.close()


def test_a_client_that_never_reads_is_not_served_without_end(server: Server, bystander: RawClient) -> None:
    """Answers that nobody takes count: the server stops reading, so the client's own buffer fills."""
    rss = reset_peak(server)
    request = frame(API_VERSIONS, 0, b"") * 1000
    with RawClient(server.port) as client:
        client.socket.settimeout(1)
        with pytest.raises(TimeoutError):
            for _ in range(10_000):  # 190 MB of requests, ten times as much of answers
                client.send(request)
        check_alive(bystander)
    assert memory_bytes(server, "VmHWM") - rss < 150 * MIB


def test_a_produce_request_split_at_every_byte_arrives(server: Server, topic) -> None:
    name = topic()
    with RawClient(server.port) as client:
        client.call(ApiKey.METADATA, 12, metadata.MetadataRequest(topics=(metadata.MetadataRequestTopic(name=name),)))
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        send = client.send
        client.send = lambda data: [send(data[i : i + 1]) for i in range(len(data))]
        assert client.produce(name, batch([b"whole"])).error_code == 0
