"""Addresses as people write them."""

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from streamlake.cli import addresses


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("localhost", [("localhost", 9092)]),
        ("localhost:19092", [("localhost", 19092)]),
        (" a:1 , b ,", [("a", 1), ("b", 9092)]),
        ("[::1]:9093", [("::1", 9093)]),
        ("[::1]", [("::1", 9092)]),
        ("::1", [("::1", 9092)]),
        ("10.0.0.1:1", [("10.0.0.1", 1)]),
    ],
)
def test_brokers(text, meant):
    assert addresses.brokers(text) == meant


def test_bootstrap_has_all_ports_and_can_be_read_again():
    assert addresses.bootstrap("a,[::1],b:7") == "a:9092,[::1]:9092,b:7"
    assert addresses.brokers(addresses.bootstrap("a,::1")) == [("a", 9092), ("::1", 9092)]


@pytest.mark.parametrize(
    "text", ["", ",", "a:", ":9092", "a:b", "a:0", "a:70000", "a:١", "[::1", "[::1]9", "http://a:1", "a b"]
)
def test_what_is_no_broker(text):
    with pytest.raises(ValueError, match="host:port"):
        addresses.brokers(text)


@given(st.text())
def test_any_text_is_read_or_refused(text):
    for read in (addresses.bootstrap, addresses.http):
        try:
            assert read(read(text)) == read(text)
        except ValueError:
            pass


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("localhost", "http://localhost:8081"),
        ("localhost:18081", "http://localhost:18081"),
        ("http://a:1/", "http://a:1"),
        ("https://lake.example.com/streamlake/", "https://lake.example.com/streamlake"),
        ("::1", "http://[::1]:8081"),
        ("http://[::1]:8081", "http://[::1]:8081"),
    ],
)
def test_http(text, meant):
    assert addresses.http(text) == meant


@pytest.mark.parametrize("text", ["", "ftp://a", "http://", "http://a:b", "http://[::1", "a:b"])
def test_what_is_no_http_address(text):
    with pytest.raises(ValueError):
        addresses.http(text)


def test_a_mistake_is_one_of_usage():
    with pytest.raises(typer.BadParameter, match="host:port"):
        addresses._checked(addresses.bootstrap)("a:b")
