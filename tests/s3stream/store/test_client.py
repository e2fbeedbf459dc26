"""ObstoreClient: each request goes out once, and every failure has the status that really came, or none."""

from collections.abc import AsyncIterator

import obstore
import pytest
from support.fake_s3 import FakeS3, give_up_s

from streamlake.core.errors import Invalid
from streamlake.s3stream.store import client as client_module
from streamlake.s3stream.store.client import (
    NO_SUCH_BUCKET,
    ObstoreClient,
    RequestFailed,
    S3Options,
    connect,
    put_requests,
)
from streamlake.s3stream.store.port import ObjectMeta


@pytest.fixture
async def server() -> AsyncIterator[FakeS3]:
    async with FakeS3() as server:
        yield server


@pytest.fixture
def client(server: FakeS3, request: pytest.FixtureRequest) -> ObstoreClient:
    timeout_s = give_up_s(request.node.name)
    options = S3Options(
        endpoint=server.endpoint,
        region="x",
        access_key="x",
        secret_key="y",
        allow_http=True,
        request_timeout_s=timeout_s,
    )
    return ObstoreClient("s3://bucket", options)


STATUS_OF_ANSWER = [
    ("500", 500), ("503", 503), ("409", 409), ("403", 403), ("reset", None), ("apply_reset", None),
    ("apply_503", 503), ("apply_hang", None),
]  # fmt: skip


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize(("answer", "status"), STATUS_OF_ANSWER)
async def test_a_put_is_sent_once_and_its_status_told(
    server: FakeS3, client: ObstoreClient, answer: str, status: int | None, create: bool
) -> None:
    """If obstore retried, our own landed write would come back to us as "already exists" (hazard C2)."""
    server.misbehave("PUT", answer)
    with pytest.raises(RequestFailed) as failed:
        await client.put("a", b"x", create=create)
    assert failed.value.status == status
    assert server.requests == ["PUT"]
    assert ("a" in server.objects) == answer.startswith("apply")


@pytest.mark.parametrize(("answer", "status"), [*STATUS_OF_ANSWER, ("cut", None)])
async def test_a_get_is_sent_once_and_its_status_told(
    server: FakeS3, client: ObstoreClient, answer: str, status: int | None
) -> None:
    server.objects["a"] = b"0123456789"
    for call in (client.get("a"), client.get_range("a", 2, 6)):
        server.misbehave("GET", answer)
        with pytest.raises(RequestFailed) as failed:
            await call
        assert failed.value.status == status
    assert server.requests == ["GET", "GET"]


async def test_a_condition_that_does_not_hold_is_412(server: FakeS3, client: ObstoreClient) -> None:
    await client.put("a", b"x", create=True)
    with pytest.raises(RequestFailed) as failed:
        await client.put("a", b"y", create=True)
    assert failed.value.status == 412
    await client.put("a", b"y", create=False)
    assert await client.get("a") == b"y"


async def test_a_missing_object_is_404(client: ObstoreClient) -> None:
    for call in (client.get("none"), client.get_range("none", 0, 1)):
        with pytest.raises(RequestFailed) as failed:
            await call
        assert failed.value.status == 404
        assert failed.value.reason != NO_SUCH_BUCKET


async def test_a_range_ends_where_the_object_does(server: FakeS3, client: ObstoreClient) -> None:
    server.objects["a"] = b"0123456789"
    assert await client.get_range("a", 8, 2) == b"89"
    assert await client.get_range("a", 8, 5) == b"89"
    assert await client.get_range("a", 10, 5) == b""
    assert await client.get_range("a", 50, 5) == b""


async def test_reasons_are_one_short_line(server: FakeS3, client: ObstoreClient) -> None:
    server.misbehave("GET", "503")
    with pytest.raises(RequestFailed) as failed:
        await client.get("a")
    assert "\n" not in failed.value.reason and len(failed.value.reason) <= 300


async def test_stores_that_mind_missing_keys(client: ObstoreClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """GCS and Azure answer 404 to a delete of what is not there, and stop at it."""
    there = {"a", "c"}

    async def delete(_: object, paths: str | list[str]) -> None:
        for path in [paths] if isinstance(paths, str) else paths:
            if path not in there:
                raise FileNotFoundError(path)
            there.discard(path)

    monkeypatch.setattr(obstore, "delete_async", delete)
    await client.delete(["a", "b", "c"])
    assert there == set()


@pytest.mark.parametrize("code", ["NoSuchBucket", "ContainerNotFound"])
async def test_a_missing_bucket_is_not_taken_for_missing_objects(
    client: ObstoreClient, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    async def fail(*args: object, **options: object) -> None:
        raise FileNotFoundError(
            f"Object at location a not found: status code: 404 Not Found: <?xml>\n<Code>{code}</Code>"
        )

    monkeypatch.setattr(obstore, "delete_async", fail)
    monkeypatch.setattr(obstore, "get_async", fail)
    for call in (client.delete(["a"]), client.get("a")):
        with pytest.raises(RequestFailed, match="bucket does not exist"):
            await call


async def test_a_listing_ends_at_one_page(client: ObstoreClient, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    async def pages(_: object, folder: str | None, **options: object) -> AsyncIterator[list[dict[str, object]]]:
        asked.append((folder, options["offset"]))
        for page in range(3):
            yield [{"path": f"a/{page}/{n}", "size": n} for n in range(2)]

    monkeypatch.setattr(obstore, "list", pages)
    assert await client.list("a/", "") == [ObjectMeta("a/0/0", 0), ObjectMeta("a/0/1", 1)]
    await client.list("", "a/0/1")
    assert asked == [("a/", None), (None, "a/0/1")]


@pytest.mark.parametrize(
    ("size_bytes", "create", "requests"),
    [(0, False, 1), ((64 << 20) - 1, False, 1), (64 << 20, False, 6), ((64 << 20) + 1, False, 7), (64 << 20, True, 1)],
)
def test_requests_of_a_put(size_bytes: int, create: bool, requests: int) -> None:
    assert put_requests(size_bytes, create) == requests


async def test_a_large_put_goes_in_parts_but_a_large_create_does_not(
    client: ObstoreClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bool] = []

    async def put(*args: object, use_multipart: bool, **options: object) -> None:
        sent.append(use_multipart)

    monkeypatch.setattr(obstore, "put_async", put)
    monkeypatch.setattr(client_module, "MULTIPART_BYTES_MIN", 10)
    for body, create in ((bytes(9), False), (bytes(10), False), (bytes(10), True)):
        await client.put("a", body, create=create)
    assert sent == [False, True, False]


@pytest.mark.parametrize(
    "url",
    ["file:///tmp", "http://host/bucket", "bucket", "memory:///", "az://container", "s3://", "s3:///x"],
)
def test_urls_that_are_no_object_store_are_invalid(url: str) -> None:
    with pytest.raises(Invalid):
        ObstoreClient(url, S3Options())


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://bucket", "bucket", None),
        ("s3a://Old_Bucket/", "Old_Bucket", None),
        ("s3://bucket/a%20b/c/", "bucket", "a b/c"),
    ],
)
def test_bucket_and_prefix_of_a_url(url: str, bucket: str, prefix: str | None) -> None:
    store = connect(url, S3Options(region="x"))
    assert (store.config["bucket"], store.prefix) == (bucket, prefix)


def test_other_clouds_by_url() -> None:
    for url in ("gs://bucket/prefix", "abfss://container@account.dfs.core.windows.net/prefix"):
        assert ObstoreClient(url, S3Options()).url == url
