"""Signatures for clients without a key: what a real store does with them, and what is never signed."""

import hashlib
import posixpath
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

import boto3
import httpx
import pyarrow as pa
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.catalog import Catalog
from pyiceberg.io.fsspec import S3V4RestSigner
from support.rest_endpoint import Endpoint, serve
from support.seaweedfs import SeaweedFS

from streamlake.iceberg_rest.problem import Problem
from streamlake.iceberg_rest.s3.place import Place
from streamlake.iceberg_rest.s3.signing import Signer, SignRequest
from streamlake.iceberg_rest.s3.store import Store
from streamlake.table.task.control import S3AccessSettings

STORE = Store({"s3.endpoint": "http://store:9000", "s3.region": "r1", "s3.access-key-id": "me",
               "s3.secret-access-key": "hidden-words"})  # fmt: skip
PLACE = Place("b", "w/t/")
TABLE = pa.schema([("x", pa.int64())])
KEY = "http://store:9000/b/w/t/x"
DELETE = "http://store:9000/b?delete"


def signed(
    method: str, uri: str, headers: dict[str, str] | None = None, body: str | None = None, store: Store = STORE
) -> dict[str, str]:
    given = {name: [value] for name, value in (headers or {}).items()}
    found = Signer(store).sign(PLACE, SignRequest(region="r1", uri=uri, method=method, headers=given, body=body))
    return {name.lower(): value for name, (value,) in found.items()}


@pytest.fixture
def endpoint(catalog: Catalog) -> Iterator[Endpoint]:
    catalog.create_namespace("a")
    catalog.create_table("a.t", TABLE)
    with serve(catalog, s3=S3AccessSettings(signs=True)) as endpoint:
        yield endpoint


@pytest.fixture
def config(endpoint: Endpoint) -> dict[str, str]:
    """What a client is told with the table."""
    asking = {"X-Iceberg-Access-Delegation": "remote-signing"}
    answer = httpx.get(f"{endpoint.url}/v1/namespaces/a/tables/t", headers=asking, trust_env=False).json()
    assert "storage-credentials" not in answer or not answer["storage-credentials"]
    return dict(answer["config"])


@pytest.fixture
def client(endpoint: Endpoint, config: dict[str, str]) -> Any:
    """As PyIceberg makes one: it has no key, and each request is signed by the catalog."""
    client = boto3.client(
        "s3",
        endpoint_url=config["s3.endpoint"],
        region_name=config["s3.region"],
        config=Config(signature_version=UNSIGNED, retries={"max_attempts": 1}, s3={"addressing_style": "path"}),
    )
    signer = S3V4RestSigner({**config, "uri": endpoint.url})
    client.meta.events.register_last("before-sign.s3", signer, unique_id=1925)
    return client


def test_a_client_without_a_key_works_below_its_table(client: Any, warehouse: str) -> None:
    bucket, _, prefix = warehouse.partition("/")
    key = f"{prefix}/a/t/data/\u00e4 b=c+d%.parquet"
    client.put_object(Bucket=bucket, Key=key, Body=b"0123456789")
    assert client.head_object(Bucket=bucket, Key=key)["ContentLength"] == 10
    assert client.get_object(Bucket=bucket, Key=key, Range="bytes=2-4")["Body"].read() == b"234"
    found = client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/a/t/data/", MaxKeys=5)["Contents"]
    assert [entry["Key"] for entry in found] == [key]
    upload = client.create_multipart_upload(Bucket=bucket, Key=f"{key}2")["UploadId"]
    part = client.upload_part(Bucket=bucket, Key=f"{key}2", UploadId=upload, PartNumber=1, Body=b"part")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    client.complete_multipart_upload(Bucket=bucket, Key=f"{key}2", UploadId=upload, MultipartUpload=parts)
    assert client.get_object(Bucket=bucket, Key=f"{key}2")["Body"].read() == b"part"
    client.delete_object(Bucket=bucket, Key=key)
    left = client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/a/t/data/")["Contents"]
    assert [entry["Key"] for entry in left] == [f"{key}2"]


def test_and_nowhere_else(client: Any, weed: SeaweedFS, warehouse: str) -> None:
    bucket, _, prefix = warehouse.partition("/")
    for refused in (
        lambda: client.get_object(Bucket=bucket, Key=f"{prefix}/a/u/x"),
        lambda: client.put_object(Bucket=bucket, Key=f"{prefix}/x", Body=b""),
        lambda: client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/a/"),
        lambda: client.get_object(Bucket=weed.warehouse, Key="x"),
        lambda: client.delete_bucket(Bucket=bucket),
        lambda: client.list_buckets(),
        lambda: client.get_bucket_policy(Bucket=bucket),
        lambda: client.put_object_acl(Bucket=bucket, Key=f"{prefix}/a/t/x", ACL="public-read"),
        lambda: client.copy_object(Bucket=bucket, Key=f"{prefix}/a/t/x", CopySource=f"{bucket}/{prefix}/a/u/x"),
    ):
        with pytest.raises(Exception, match="Failed to sign request 40"):
            refused()


def test_a_store_that_does_not_compare_bodies_gets_no_deletion_of_several(
    client: Any, endpoint: Endpoint, config: dict[str, str], warehouse: str
) -> None:
    """SeaweedFS deletes whatever the body says, whatever body was signed: a client could replace it."""
    bucket, _, prefix = warehouse.partition("/")
    client.put_object(Bucket=bucket, Key=f"{prefix}/a/t/x", Body=b"")
    body = deletion(f"{prefix}/a/t/x")
    asked = {
        "region": "us-east-1",
        "uri": f"{config['s3.endpoint']}/{bucket}?delete",
        "method": "POST",
        "headers": {},
        "body": body,
    }
    answer = httpx.post(f"{endpoint.url}/{config['s3.signer.endpoint']}", json=asked, trust_env=False)
    assert answer.status_code == 403 and "does not compare its body" in answer.json()["error"]["message"]
    assert client.head_object(Bucket=bucket, Key=f"{prefix}/a/t/x")["ContentLength"] == 0


def test_reads_may_be_remembered_and_writes_not(endpoint: Endpoint, config: dict[str, str], warehouse: str) -> None:
    asked = {"region": "us-east-1", "uri": f"{config['s3.endpoint']}/{warehouse}/a/t/x", "headers": {}}
    for method, cache in (("GET", "private"), ("PUT", "no-store")):
        url = f"{endpoint.url}/{config['s3.signer.endpoint']}"
        answer = httpx.post(url, json={**asked, "method": method}, trust_env=False)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, cache)
        assert answer.json()["uri"] == asked["uri"]


def test_what_is_signed() -> None:
    headers = {
        "Range": "bytes=0-1",
        "X-Amz-Date": "19700101T000000Z",
        "Host": "elsewhere",
        "x-amz-meta-a": "1",
        "Authorization": "x",
    }
    found = signed("PUT", KEY, headers)
    assert set(found) == {"authorization", "x-amz-date", "x-amz-content-sha256"}, "what it has is not sent back"
    assert found["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD" and not found["x-amz-date"].startswith("1970")
    assert "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-meta-a," in found["authorization"]
    assert "hidden-words" not in str(found)
    trailer = signed("PUT", KEY, {"x-amz-trailer": "x-amz-checksum-crc32"})
    assert trailer["x-amz-content-sha256"] == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


@pytest.mark.parametrize(
    ("method", "uri"),
    [
        ("GET", KEY), ("HEAD", KEY), ("PUT", KEY), ("DELETE", KEY), ("GET", f"{KEY}?x-id=GetObject"),
        ("GET", "http://store:9000/b/w/t/%C3%A4%20b"), ("POST", f"{KEY}?uploads"), ("PUT", f"{KEY}?partNumber=1&uploadId=a"), ("POST", f"{KEY}?uploadId=a"),
        ("DELETE", f"{KEY}?uploadId=a"),
        ("GET", "http://store:9000/b?list-type=2&prefix=w%2Ft%2F"), ("GET", "http://store:9000/b/?prefix=w/t/d&list-type=2"),
    ],
)  # fmt: skip
def test_requests_that_engines_make(method: str, uri: str) -> None:
    assert signed(method, uri)["authorization"].startswith("AWS4-HMAC-SHA256 Credential=me/")


@pytest.mark.parametrize(
    ("method", "uri"),
    [
        # another place
        ("GET", "http://store:9000/b/w/u/x"), ("GET", "http://store:9000/b/w/t"), ("GET", "http://store:9000/b/w/t/"),
        ("GET", "http://store:9000/b/w/t2/x"), ("GET", "http://store:9000/c/w/t/x"), ("GET", "http://store:9000/b2/w/t/x"),
        # the way out of a folder
        ("GET", "http://store:9000/b/w/t/../u/x"), ("GET", "http://store:9000/b/w/t/%2e%2e/u/x"),
        ("GET", "http://store:9000/b/w/t/%2E%2E%2Fu/x"), ("GET", "http://store:9000/b/w/t/./x"),
        ("GET", "http://store:9000/b/w/t//x"), ("GET", "http://store:9000/b/w/t/a%00b"), ("GET", "http://store:9000/b/../b/w/t/x"),
        ("GET", "http://store:9000//b/w/t/x"), ("GET", "http://store:9000/b/w/t/%ff"), ("GET", "http://store:9000/b/w/t/a\\..\\x"),
        ("GET", "http://store:9000/%62/w/t/x"),
        # a store that knows no buckets by host would see key t/x of bucket w
        ("GET", "http://b.store:9000/w/t/x"),
        # another server, or one that looks like ours
        ("GET", "http://evil/b/w/t/x"), ("GET", "http://store/b/w/t/x"), ("GET", "https://store:9000/b/w/t/x"),
        ("GET", "http://store:9000@evil/b/w/t/x"), ("GET", "http://me:x@store:9000/b/w/t/x"), ("GET", "http://store:9000.evil/b/w/t/x"),
        ("GET", "http://store:9000.evil:80/b/w/t/x"), ("GET", "http://evil.store:9000/w/t/x"), ("GET", "http://b.c.store:9000/w/t/x"),
        ("GET", "http://b.store:9000/b/w/t/x"), ("GET", "//store:9000/b/w/t/x"), ("GET", "/b/w/t/x"), ("GET", "http://store:9x/b/w/t/x"),
        ("GET", f"{KEY}#?acl"), ("GET", f"{KEY}\n"), ("GET", f" {KEY}"), ("GET", "http://store:9000/b/w/t/x y"), ("GET", "http://[/"),
        # more than an object
        ("GET", f"{KEY}?acl"), ("PUT", f"{KEY}?acl"), ("PUT", f"{KEY}?tagging"), ("GET", f"{KEY}?versionId=1"), ("POST", f"{KEY}?restore"),
        ("POST", f"{KEY}?select&select-type=2"), ("PUT", f"{KEY}?retention"), ("POST", KEY), ("PATCH", KEY), ("get", KEY),
        ("PUT", f"{KEY}?partNumber=1"), ("PUT", f"{KEY}?partNumber=1&uploadId=a&acl"), ("PUT", f"{KEY}?%61cl"), ("GET", f"{KEY}?response-content-type=x"),
        ("PUT", f"{KEY}?uploadId=a&uploadId=b&partNumber=1"), ("PUT", f"{KEY}?x-id=a;acl"), ("GET", f"{KEY}?x=a+b"),
        # a bucket
        ("GET", "http://store:9000/b"), ("PUT", "http://store:9000/b"), ("DELETE", "http://store:9000/b"), ("GET", "http://store:9000/"),
        ("GET", "http://store:9000/b?policy"), ("GET", "http://store:9000/b?list-type=2"), ("GET", "http://store:9000/b?list-type=2&prefix="),
        ("GET", "http://store:9000/b?list-type=2&prefix=w"), ("GET", "http://store:9000/b?list-type=2&prefix=w/t"),
        ("GET", "http://store:9000/b?list-type=2&prefix=w/t/../u/"), ("GET", "http://store:9000/b?list-type=2&prefix=w/t/&prefix=w/u/"),
        ("GET", "http://store:9000/b?prefix=w/t/"), ("GET", "http://store:9000/b?list-type=2&prefix=w/t/&versions"),
        ("GET", "http://store:9000/b?uploads&prefix=w/t/"), ("HEAD", "http://store:9000/b"), ("POST", "http://store:9000/b?delete&x=1"),
    ],
)  # fmt: skip
def test_everything_else_is_refused(method: str, uri: str) -> None:
    with pytest.raises(Problem) as refused:
        signed(method, uri)
    assert refused.value.status in (400, 403)


PIECES = [
    "/",
    "//",
    "b",
    "w",
    "t",
    "x",
    ".",
    "..",
    "%2e",
    "%2E%2e",
    "%2f",
    "%2F",
    "%5c",
    "%252e",
    "%00",
    "?",
    "#",
    "@",
    ":",
    "w/t/",
]


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_no_path_leads_out(tail: str) -> None:
    """As a store sees it that takes keys for paths."""
    for uri in (f"http://store:9000/b/w/t/{tail}", f"http://store:9000/{tail}"):
        try:
            signed("GET", uri)
        except Problem:
            continue
        path = unquote(urlsplit(uri).path)
        assert posixpath.normpath(path).startswith("/b/w/t/") and "\0" not in path


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-amz-copy-source", "/b/w/u/x"), ("X-Amz-Copy-Source-Range", "bytes=0-1"), ("x-amz-acl", "public-read"),
        ("x-amz-grant-read", "x"), ("x-amz-website-redirect-location", "x"), ("x-amz-tagging", "x"), ("x-amz-unknown", "x"),
        ("x-amz-object-lock-mode", "x"), ("x-amz-meta-a", "1\nx-amz-acl:public-read"), ("x-amz-rename-source", "/b/w/u/x"),
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), ("x-amz-content-sha256", "nonsense"),
    ],
)  # fmt: skip
def test_headers_that_do_more_are_refused(header: str, value: str) -> None:
    with pytest.raises(Problem) as refused:
        signed("PUT", KEY, {header: value})
    assert refused.value.status in (400, 403)


def test_a_header_has_one_value() -> None:
    for headers in ({"x-amz-meta-a": ["1", "2"]}, {"x-amz-meta-a": []}, {"x-amz-meta-a": ["1"], "X-Amz-Meta-A": ["2"]}):
        with pytest.raises(Problem, match="one value"):
            Signer(STORE).sign(PLACE, SignRequest(region="r1", uri=KEY, method="PUT", headers=headers))


def deletion(*keys: str) -> str:
    return f"<Delete xmlns='x'>{''.join(f'<Object><Key>{key}</Key></Object>' for key in keys)}</Delete>"


class Strict(BaseHTTPRequestHandler):
    """A store that compares a body with its signature, as AWS does: SeaweedFS does not."""

    requests: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.requests.append(body.decode())
        matches = hashlib.sha256(body).hexdigest() == self.headers["X-Amz-Content-SHA256"]
        self.send_response(200 if matches else 400)
        self.end_headers()
        self.wfile.write(b"<DeleteResult/>" if matches else b"<Error><Code>XAmzContentSHA256Mismatch</Code></Error>")

    def log_message(self, *_: Any) -> None:
        pass


def test_a_deletion_is_signed_with_its_body_where_the_store_compares_them() -> None:
    with HTTPServer(("127.0.0.1", 0), Strict) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        signer = Signer(Store({"s3.endpoint": url, "s3.access-key-id": "me", "s3.secret-access-key": "x"}))
        body = deletion("w/t/x", "w/t/y&amp;z")
        asked = SignRequest(region="r1", uri=f"{url}/b?delete", method="POST", headers={}, body=body)
        headers = {name: value for name, (value,) in signer.sign(PLACE, asked).items()}
        assert httpx.post(f"{url}/b?delete", content=body, headers=headers, trust_env=False).status_code == 200
        asked.headers["x-amz-content-sha256"] = [hashlib.sha256(body.encode()).hexdigest()]
        assert "Authorization" in signer.sign(PLACE, asked)
        server.shutdown()
    (probe, sent) = Strict.requests
    assert sent == body and "w/t/.streamlake-2" in probe, "the store is tried once"


def test_a_store_that_cannot_be_tried() -> None:
    away = Store({"s3.endpoint": "http://127.0.0.1:9", "s3.access-key-id": "me", "s3.secret-access-key": "x"})
    with pytest.raises(Problem, match="cannot be reached") as problem:
        signed("POST", "http://127.0.0.1:9/b?delete", body=deletion("w/t/x"), store=away)
    assert problem.value.status == 503


@pytest.mark.parametrize(
    "body",
    [
        None, "", "nonsense", "<Delete/>", deletion(), deletion("w/t/x", "w/u/x"), deletion("w/t/../u/x"), deletion("w/t/"), deletion(""),
        deletion(*["w/t/x"] * 1001), "<Delete><Object><Key>w/t/x</Key><VersionId>1</VersionId></Object></Delete>",
        "<Delete><Object><Key>w/t/x<a/>/../../u/x</Key></Object></Delete>",
        "<Delete><Object><Key>w/t/<!-- -->x</Key></Object></Delete>",
        "<!DOCTYPE d [<!ENTITY a 'w/u'>]><Delete><Object><Key>w/t/x</Key></Object></Delete>",
    ],
)  # fmt: skip
def test_deletions_that_are_refused(body: str | None) -> None:
    with pytest.raises(Problem) as refused:
        signed("POST", DELETE, body=body)
    assert refused.value.status in (400, 403)


@pytest.mark.parametrize("payload", ["UNSIGNED-PAYLOAD", hashlib.sha256(b"other").hexdigest()])
def test_a_deletion_cannot_have_another_body(payload: str) -> None:
    with pytest.raises(Problem, match="not the SHA-256 of its body"):
        signed("POST", DELETE, {"x-amz-content-sha256": payload}, deletion("w/t/x"))


def test_buckets_at_aws() -> None:
    aws = Store(
        {
            "s3.region": "eu-west-1",
            "s3.access-key-id": "me",
            "s3.secret-access-key": "x",
            "s3.session-token": "of-a-session",
        }
    )
    for host in ("b.s3.eu-west-1.amazonaws.com/", "b.s3.amazonaws.com/", "s3.eu-west-1.amazonaws.com/b/"):
        found = signed("GET", f"https://{host}w/t/x", store=aws)
        assert (
            "/eu-west-1/s3/aws4_request" in found["authorization"] and found["x-amz-security-token"] == "of-a-session"
        )
    for host in (
        "b.s3.us-east-2.amazonaws.com/",
        "b.s3-eu-west-1.amazonaws.com/",
        "b.s3.eu-west-1.amazonaws.com.evil/",
    ):
        with pytest.raises(Problem):
            signed("GET", f"https://{host}w/t/x", store=aws)


def test_buckets_by_host() -> None:
    properties = {"s3.endpoint": "https://store", "s3.access-key-id": "me", "s3.secret-access-key": "x"}
    virtual = Store({**properties, "s3.force-virtual-addressing": "true"})
    assert signed("GET", "https://b.store/w/t/x", store=virtual)["authorization"]
    assert signed("GET", "https://b.store/?list-type=2&prefix=w/t/", store=virtual)["authorization"]
    for uri in ("https://store/b/w/t/x", "https://b.store/b/w/t/x", "https://b.store"):
        with pytest.raises(Problem):
            signed("GET", uri, store=virtual)


def test_a_server_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(Problem, match="no key of its own"):
        signed("GET", KEY, store=Store({"s3.endpoint": "http://store:9000"}))
