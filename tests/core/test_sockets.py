"""Ports and hosts that cannot be had name the key of the configuration."""

import socket

import pytest

from streamlake.core.errors import Invalid, Unavailable
from streamlake.core.sockets import bind, is_loopback, may_be_elsewhere


def listen(host: str, port: int) -> socket.socket:
    return bind(host, port, "tests", "server.host", "server.port", 1)


def test_it_listens_on_both_kinds_of_address() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        with listen(host, 0) as bound:
            socket.create_connection((host, bound.getsockname()[1]), timeout=5).close()


def test_a_taken_port_names_the_ports_key() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        told = f"cannot listen on 127.0.0.1:{port} for tests: Address already in use; is a server running.*server.port"
        with pytest.raises(Unavailable, match=told):
            listen("127.0.0.1", port)


def test_another_machines_address_names_the_hosts_key() -> None:
    with pytest.raises(
        Invalid, match=r"no address of this machine. Give server.host .* server.advertised_host"
    ) as told:
        listen("192.0.2.7", 0)
    assert "is a server running" not in str(told.value)


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 300, "ö..x"])
def test_a_name_that_nobody_knows_names_the_hosts_key(host: str) -> None:
    with pytest.raises(Invalid, match=r"Give server\.host an address of this machine"):
        listen(host, 0)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("", False), ("0.0.0.0", False),
     ("::", False), ("10.0.0.1", False), ("broker.example", False)],
)  # fmt: skip
def test_which_addresses_are_this_machines_alone(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("host", "ours", "expected"),
    [("127.0.0.1", "10.0.0.1", True), ("127.0.0.1", "localhost", False), ("10.0.0.2", "10.0.0.1", False)],
)
def test_a_loopback_address_that_another_machine_tells(host: str, ours: str, expected: bool) -> None:
    assert may_be_elsewhere(host, ours) is expected
