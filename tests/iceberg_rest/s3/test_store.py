"""Where an object store is, and whose key is used."""

from urllib.parse import urlsplit

import pytest

from streamlake.iceberg_rest.s3.store import Store, host_of


def test_where_it_is() -> None:
    properties = {"s3.endpoint": "http://LOCALHOST:80", "s3.region": "r1"}
    assert Store(properties).addresses("b") == [("http", "localhost", "/b/")]
    own = Store({**properties, "s3.force-virtual-addressing": "true"})
    assert (own.addresses("b"), own.region) == ([("http", "b.localhost", "/")], "r1")
    assert own.address() == {
        "s3.region": "r1", "client.region": "r1", "s3.endpoint": "http://LOCALHOST:80", "s3.path-style-access": "false",
    }  # fmt: skip
    aws = Store({"client.region": "eu-west-1"})
    assert aws.addresses("b") == [
        ("https", "s3.eu-west-1.amazonaws.com", "/b/"),
        ("https", "s3.amazonaws.com", "/b/"),
        ("https", "b.s3.eu-west-1.amazonaws.com", "/"),
        ("https", "b.s3.amazonaws.com", "/"),
    ]
    assert Store({"s3.region": "cn-north-1"}).addresses("b")[0] == ("https", "s3.cn-north-1.amazonaws.com.cn", "/b/")
    assert (Store({}).address(), Store({}).region) == ({}, "us-east-1")


@pytest.mark.parametrize(
    ("url", "host"),
    [("http://A:80/x", "a"), ("https://a:443", "a"), ("http://a:443", "a:443"), ("http://[::1]:9000/", "[::1]:9000")],
)
def test_hosts(url: str, host: str) -> None:
    assert host_of(urlsplit(url)) == host


def test_the_key_of_the_catalog_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    store = Store({"client.access-key-id": "general", "s3.access-key-id": "mine", "s3.secret-access-key": "hidden"})
    assert store.session().get_credentials().access_key == "mine"
    assert store.session() is store.session()
    assert store.own_key() == {"s3.access-key-id": "mine", "s3.secret-access-key": "hidden"}
    assert Store({}).session().get_credentials().access_key == "of-the-environment"
    assert Store({}).own_key() == {}, "only what the configuration of the catalog says is given away"
