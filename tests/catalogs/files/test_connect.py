"""PyIceberg's keys as obstore's settings: each store is asked what it was made with, and one is asked over the wire."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import obstore
import pytest
from pyiceberg.io.pyarrow import PyArrowFileIO

from streamlake.catalogs.files import connect as module
from streamlake.catalogs.files.connect import connect, why_not
from streamlake.core.errors import Invalid

KEYS = {"s3.access-key-id": "key", "s3.secret-access-key": "secret", "s3.region": "eu-west-1"}
ACCOUNT = "lake@acc.dfs.core.windows.net"


def s3(properties: dict[str, str], bucket: str = "lake") -> Any:
    return connect("s3", bucket, {**KEYS, **properties})


def azure(properties: dict[str, str], netloc: str = ACCOUNT) -> dict[str, Any]:
    return dict(connect("abfss", netloc, properties).config)


# -- S3 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("properties", "credentials"),
    [
        (KEYS, ("key", "secret", None)),
        ({**KEYS, "s3.session-token": "token"}, ("key", "secret", "token")),
        ({"client.access-key-id": "c", "client.secret-access-key": "d", "client.session-token": "e"}, ("c", "d", "e")),
        ({**KEYS, "client.access-key-id": "c", "client.secret-access-key": "d"}, ("key", "secret", None)),
    ],
)
def test_s3_credentials(properties: dict[str, str], credentials: tuple[str, str, str | None]) -> None:
    provider = connect("s3", "lake", {"s3.region": "eu-west-1", **properties}).credential_provider
    assert tuple(provider()[name] for name in ("access_key_id", "secret_access_key", "token")) == credentials


def test_a_session_token_of_the_environment_is_not_added_to_keys_that_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of another key")
    assert s3({}).credential_provider()["token"] is None


def test_without_s3_keys_obstore_looks_for_them() -> None:
    assert connect("s3", "lake", {"s3.region": "eu-west-1"}).credential_provider is None


@pytest.mark.parametrize(
    ("properties", "bucket", "endpoint", "by_host"),
    [
        ({}, "lake", None, "true"),
        ({}, "lake.example", None, "false"),  # no certificate has a name with so many dots
        ({"s3.endpoint": "http://127.0.0.1:9000"}, "lake", "http://127.0.0.1:9000", "false"),
        (
            {"s3.endpoint": "https://oss.example", "s3.force-virtual-addressing": "true"},
            "lake",
            "https://lake.oss.example",
            "true",
        ),
        ({"s3.force-virtual-addressing": "false"}, "lake", None, "false"),
        ({"s3.region": "cn-north-1"}, "lake", "https://lake.s3.cn-north-1.amazonaws.com.cn", "true"),
    ],
)
def test_s3_addresses(properties: dict[str, str], bucket: str, endpoint: str | None, by_host: str) -> None:
    config = s3(properties, bucket).config
    assert config.get("endpoint") == endpoint
    assert config["virtual_hosted_style_request"] == by_host


def test_an_endpoint_that_is_given_wins_over_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    assert s3({"s3.endpoint": "http://127.0.0.1:2"}).config["endpoint_url_s3"] == "http://127.0.0.1:2"
    config = s3({}).config  # as other S3 clients have it
    assert config["endpoint"] == "http://127.0.0.1:1" and config["virtual_hosted_style_request"] == "false"


def test_other_s3_settings() -> None:
    store = s3({
        "s3.anonymous": "true", "s3.server-side-encryption": "aws:kms", "s3.sse-kms-key-id": "kms", "s3.connect-timeout": "2",
        "s3.request-timeout": "7.5", "s3.proxy-uri": "http://proxy:3128", "s3.endpoint": "http://127.0.0.1:9000",
    })  # fmt: skip
    assert store.config["skip_signature"] == "true" and store.config["region"] == "eu-west-1"
    assert store.config["server_side_encryption"] == "aws:kms" and store.config["sse_kms_key_id"] == "kms"
    assert store.client_options == {
        "allow_http": "true", "connect_timeout": "2s", "timeout": "7s 500ms", "proxy_url": "http://proxy:3128",
    }  # fmt: skip


def test_without_a_region_the_bucket_is_asked_for_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As PyIceberg does it, where Amazon answers."""
    asked: list[str] = []

    def resolve(bucket: str) -> str:
        asked.append(bucket)
        if bucket == "private":
            raise OSError("not found")
        return "ap-south-1"

    monkeypatch.setattr(module, "resolve_s3_region", resolve)
    chosen = {"s3.region": "eu-west-1", "s3.resolve-region": "true"}
    assert connect("s3", "resolved", {}).config["region"] == "ap-south-1"
    assert connect("s3", "resolved", {**chosen, "s3.session-token": "newly vended"}).config["region"] == "ap-south-1"
    assert connect("s3", "private", chosen).config["region"] == "eu-west-1"
    assert asked == ["resolved", "private"]
    connect("s3", "elsewhere", {"s3.endpoint": "http://127.0.0.1:9000"})
    connect("s3", "known", {"client.region": "eu-west-1"})
    assert asked == ["resolved", "private"]


# -- GCS --------------------------------------------------------------------------------------------------------------


class Recorder(http.server.BaseHTTPRequestHandler):
    seen: list[tuple[str, str, str | None]]

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.seen.append((self.command, self.path, self.headers["authorization"]))
        self.send_response(200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def recorder() -> Iterator[http.server.ThreadingHTTPServer]:
    Recorder.seen = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_gcs_is_asked_with_the_token_at_the_host(recorder: http.server.ThreadingHTTPServer) -> None:
    host = f"http://127.0.0.1:{recorder.server_address[1]}/"
    for scheme in ("gs", "gcs"):
        store = connect(scheme, "lake", {"gcs.service.host": host, "gcs.oauth2.token": "vended"})
        obstore.put(store, "t/f.avro", b"x", use_multipart=False)
    assert {(method, token) for method, _, token in Recorder.seen} == {("PUT", "Bearer vended")}
    assert {path.replace("%2F", "/").replace("%2E", ".") for _, path, _ in Recorder.seen} == {"/lake/t/f.avro"}


def test_a_gcs_token_has_an_end() -> None:
    store = connect("gs", "lake", {"gcs.oauth2.token": "t", "gcs.oauth2.token-expires-at": "1800000000000"})
    assert store.credential_provider()["expires_at"].year == 2027
    with pytest.raises(Invalid, match=r"gs://lake .*gcs\.oauth2\.token-expires-at must be milliseconds"):
        connect("gs", "lake", {"gcs.oauth2.token": "t", "gcs.oauth2.token-expires-at": "soon"})


# -- Azure ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["abfs", "abfss", "wasb", "wasbs"])
def test_an_azure_location_names_container_account_and_cloud(scheme: str) -> None:
    kind = "blob" if scheme.startswith("wasb") else "dfs"
    config = connect(scheme, f"lake@acc.{kind}.core.chinacloudapi.cn", {"adls.account-key": "a2V5"}).config
    assert (config["container_name"], config["account_name"]) == ("lake", "acc")
    assert config["endpoint"] == "https://acc.blob.core.chinacloudapi.cn"


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"adls.account-key": "a2V5"}, {"account_key": "a2V5"}),
        ({"adls.sas-token": "sv=1&sig=2"}, {"sas_key": "sv=1&sig=2"}),
        ({"adls.sas-token.acc.dfs.core.windows.net": "sv=1", "adls.sas-token.other": "sv=2"}, {"sas_key": "sv=1"}),
        (
            {"adls.tenant-id": "t", "adls.client-id": "i", "adls.client-secret": "s"},
            {"tenant_id": "t", "client_id": "i", "client_secret": "s"},
        ),
        ({"adls.token": "bearer"}, {"token": "bearer"}),
        ({"adls.anon": "true"}, {"skip_signature": "true"}),
        ({"adls.account-host": "acc.privatelink.example"}, {"endpoint": "https://acc.privatelink.example"}),
        ({"adls.blob-storage-authority": ".blob.local"}, {"endpoint": "https://acc.blob.local"}),
        (
            {"adls.blob-storage-authority": "127.0.0.1:10000", "adls.blob-storage-scheme": "http"},
            {"endpoint": "http://127.0.0.1:10000/acc"},
        ),
        (
            {"adls.connection-string": "AccountName=other;AccountKey=a2V5PT0=;EndpointSuffix=core.usgovcloudapi.net"},
            {
                "account_name": "other",
                "account_key": "a2V5PT0=",
                "endpoint": "https://other.blob.core.usgovcloudapi.net",
            },
        ),
        (
            {"adls.connection-string": "BlobEndpoint=http://127.0.0.1:1/acc/;SharedAccessSignature=sv=1&sig=2"},
            {"endpoint": "http://127.0.0.1:1/acc", "sas_key": "sv=1&sig=2"},
        ),
    ],
)
def test_azure_settings(properties: dict[str, str], expected: dict[str, str]) -> None:
    config = azure(properties)
    assert {key: config[key] for key in expected} == expected


def test_an_azure_location_may_leave_the_account_to_the_properties() -> None:
    assert azure({"adls.account-name": "acc", "adls.account-key": "a2V5"}, "lake")["account_name"] == "acc"
    with pytest.raises(Invalid, match=r"abfss://lake .*set adls\.account-name"):
        azure({}, "lake")


# -- all --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("properties", "key"),
    [
        ({"s3.connect-timeout": "soon"}, r"s3\.connect-timeout must be a number of seconds"),
        ({"s3.endpoint": "s3.example.com"}, r"s3\.endpoint must be an address such as https://"),
    ],
)
def test_a_wrong_value_is_said_by_its_key(properties: dict[str, str], key: str) -> None:
    with pytest.raises(Invalid, match=f"s3://lake cannot be reached .*{key}") as error:
        s3({"s3.secret-access-key": "tops3cret", **properties})
    assert "tops3cret" not in str(error.value)


@pytest.mark.parametrize(
    ("scheme", "properties", "reason"),
    [
        ("s3", {"s3.role-arn": "arn"}, "s3.role-arn"),
        ("s3a", {"client.role-arn": "arn"}, "client.role-arn"),
        ("s3", {"s3.signer": "S3V4RestSigner"}, "s3.signer"),
        ("s3", KEYS, ""),
        ("s3", {"adls.credential": "default"}, ""),
        ("abfss", {"adls.credential": "default"}, "adls.credential"),
        ("gs", {}, ""),
    ],
)
def test_what_obstore_cannot_do(scheme: str, properties: dict[str, str], reason: str) -> None:
    assert why_not(scheme, properties, {"HOME": "/nowhere"}) == reason


def test_credentials_of_an_aws_profile_are_left_to_pyiceberg(tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text("[default]\n")
    home = {"HOME": str(tmp_path)}
    assert why_not("s3", {}, home) == f"the AWS profile in {tmp_path}/.aws/credentials"
    assert why_not("s3", {}, {**home, "AWS_SHARED_CREDENTIALS_FILE": "/none", "AWS_CONFIG_FILE": "/none"}) == ""
    for better in ({**home, "AWS_ACCESS_KEY_ID": "key"}, {**home, "AWS_WEB_IDENTITY_TOKEN_FILE": "/token"}):
        assert why_not("s3", {}, better) == ""
    for properties in (KEYS, {"s3.anonymous": "true"}):
        assert why_not("s3", properties, home) == ""


def test_every_scheme_is_one_that_pyiceberg_knows() -> None:
    files = PyArrowFileIO({"adls.account-name": "a", "s3.region": "us-east-1"})
    for scheme in module.SCHEMES:
        assert files.fs_by_scheme(scheme, "lake") is not None
