"""Credentials and certificates, against a server that wants them."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.registry_proxy import Certificate, RegistryProxy, certificate

from streamlake.core.clock import SystemClock
from streamlake.core.errors import Invalid, Unavailable
from streamlake.table.task.control import RegistryAccess
from streamlake.worker.registry_access import opener_of
from streamlake.worker.schema_source import HttpSchemaSource

SCHEMA = b'{"schema": "\\"string\\"", "id": 4}'
BASIC = f"Basic {base64.b64encode('us:ä:er'.encode()).decode()}"


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("pem"))


@pytest.fixture
def proxies(pem: Certificate) -> Iterator[tuple[RegistryProxy, RegistryProxy]]:
    made = RegistryProxy("http://nowhere", BASIC), RegistryProxy("http://nowhere", "Bearer t0ken", pem)
    for proxy in made:
        proxy.trouble = 200, SCHEMA
    yield made
    for proxy in made:
        proxy.close()


def source(proxy: RegistryProxy, **access: str) -> HttpSchemaSource:
    return HttpSchemaSource(proxy.url, SystemClock(), RegistryAccess(**access))


def test_basic_authentication(proxies: tuple[RegistryProxy, RegistryProxy]) -> None:
    plain, _ = proxies
    assert source(plain, username="us", password="ä:er").get(1).text == '"string"'
    for wrong in ({}, {"username": "us", "password": "x"}, {"token": "t0ken"}):
        with pytest.raises(Unavailable, match=r"refuses us \(401\)"):
            source(plain, **wrong).get(1)
    assert (len(plain.asked), plain.refused) == (1, 3)


def test_a_token_over_tls(proxies: tuple[RegistryProxy, RegistryProxy], pem: Certificate) -> None:
    _, secure = proxies
    ca_file = str(pem.certificate)
    assert source(secure, token="t0ken", ca_file=ca_file).latest("s").id == 4
    own = {"certificate_file": str(pem.certificate), "key_file": str(pem.key)}
    assert source(secure, token="t0ken", ca_file=ca_file, **own).get(1).text == '"string"'
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        source(secure, token="t0ken").get(1)
    assert secure.refused == 0  # nothing was said to a stranger


def test_redirects_take_no_credentials_elsewhere(proxies: tuple[RegistryProxy, RegistryProxy]) -> None:
    plain, _ = proxies
    plain.trouble = 302, b""
    with pytest.raises(Unavailable, match=r"sends us to another address: set registry\.url"):
        source(plain, username="us", password="ä:er").get(1)


def test_files_that_are_none(tmp_path: Path, pem: Certificate) -> None:
    text = tmp_path / "text"
    text.write_text("no PEM")
    for access in (
        RegistryAccess(ca_file=str(text)),
        RegistryAccess(ca_file=str(tmp_path / "nowhere")),
        RegistryAccess(certificate_file=str(pem.certificate), key_file=str(text)),
    ):
        with pytest.raises(Invalid, match=r"registry\.(ca|certificate)_file = .* cannot be used"):
            opener_of(access)


def test_secrets() -> None:
    assert RegistryAccess("name", "pass", "").secrets == ("pass",)
