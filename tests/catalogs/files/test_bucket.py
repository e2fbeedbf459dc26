"""A real store behind a proxy that makes requests go wrong: what lands, what is said, and how many requests it takes."""

from collections.abc import Iterator
from typing import Any

import pytest
from support.fault_proxy import FaultProxy
from support.seaweedfs import SeaweedFS

from streamlake.catalogs.files import bucket as module
from streamlake.catalogs.files.bucket import BUCKETS_MAX, Bucket, bucket_of
from streamlake.catalogs.files.connect import connect
from streamlake.s3stream.store.client import MULTIPART_BYTES_MIN

LOST = ("reset_after", "applied_500", "applied_503")  # it landed, and the answer does not say so
NOT_LANDED = ("reset_before", "reset_within", "500", "503")
KEY = "t/metadata/f.avro"


@pytest.fixture
def place(seaweedfs: SeaweedFS) -> str:
    return seaweedfs.bucket()


@pytest.fixture
def proxy(seaweedfs: SeaweedFS, place: str) -> Iterator[FaultProxy]:
    with FaultProxy(seaweedfs.s3_endpoint, place) as proxy:
        yield proxy


@pytest.fixture
def bucket(seaweedfs: SeaweedFS, proxy: FaultProxy, place: str) -> Bucket:
    return open_bucket(seaweedfs, proxy.endpoint, place)


def open_bucket(server: SeaweedFS, endpoint: str, place: str, **changes: str) -> Bucket:
    properties = {
        "s3.endpoint": endpoint, "s3.region": server.region, "s3.access-key-id": server.access_key,
        "s3.secret-access-key": server.secret_key,
    }  # fmt: skip
    return Bucket(f"s3://{place}", connect("s3", place, {**properties, **changes}))


def requests(proxy: FaultProxy) -> dict[str, int]:
    return {operation: count for operation, count in proxy.requests.items() if count}


# -- how many requests --------------------------------------------------------------------------------------------------


def test_a_file_is_one_request_to_write_and_one_to_read(bucket: Bucket, proxy: FaultProxy) -> None:
    bucket.put(KEY, b"x" * 100_000)
    bucket.create("t/metadata/v.json", b"y")
    assert bucket.read(KEY) == b"x" * 100_000
    assert bucket.read_beginning(KEY, 200_000) == (b"x" * 100_000, 100_000)
    assert requests(proxy) == {"put": 1, "create": 1, "get": 1, "get_range": 1}


def test_a_file_below_64_mib_is_one_put_and_a_larger_one_comes_in_parts(bucket: Bucket, proxy: FaultProxy) -> None:
    body = bytes(MULTIPART_BYTES_MIN)
    bucket.put("small", body[1:])
    assert requests(proxy) == {"put": 1}
    bucket.put("large", body)
    assert requests(proxy) == {"put": 1, "multipart_start": 1, "multipart_part": 4, "multipart_complete": 1}
    assert (bucket.size_bytes("small"), bucket.size_bytes("large")) == (len(body) - 1, len(body))


def test_many_files_are_deleted_by_one_request(bucket: Bucket, proxy: FaultProxy) -> None:
    keys = [f"t/{n}" for n in range(20)]
    for key in keys:
        bucket.put(key, b"x")
    bucket.delete([*keys, "not-there"])
    assert proxy.requests["delete"] == 1
    assert list(bucket.list("t")) == []


# -- what goes wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", LOST + NOT_LANDED)
@pytest.mark.parametrize("operation", ["put", "create"])
def test_an_answer_that_is_lost_costs_another_request_and_nothing_else(
    bucket: Bucket, proxy: FaultProxy, operation: str, fault: str
) -> None:
    proxy.plan(operation, KEY, fault)
    (bucket.put if operation == "put" else bucket.create)(KEY, b"the file")
    assert bucket.read(KEY) == b"the file"
    assert proxy.faults[operation, fault] == 1


def test_a_put_that_lands_late_stores_the_same_bytes(bucket: Bucket, proxy: FaultProxy) -> None:
    proxy.plan("put", KEY, "late_503")
    bucket.put(KEY, b"the file")
    proxy.land()
    assert bucket.read(KEY) == b"the file"


@pytest.mark.parametrize("fault", [*LOST, ""])
def test_a_file_of_somebody_else_is_never_taken_for_ours(bucket: Bucket, proxy: FaultProxy, fault: str) -> None:
    bucket.put(KEY, b"theirs")
    if fault:
        proxy.plan("create", KEY, fault)
    with pytest.raises(FileExistsError, match=f"{KEY} exists already"):
        bucket.create(KEY, b"ours")
    assert bucket.read(KEY) == b"theirs"


def test_a_race_that_the_store_reports_is_settled_by_reading_back(bucket: Bucket, proxy: FaultProxy) -> None:
    proxy.plan("create", KEY, "409")
    bucket.create(KEY, b"ours")
    assert bucket.read(KEY) == b"ours"
    proxy.plan("create", "other", "applied_409")
    bucket.create("other", b"ours")
    assert bucket.read("other") == b"ours"


def test_a_store_without_conditional_puts_is_asked_only_once(bucket: Bucket, proxy: FaultProxy) -> None:
    proxy.plan("create", "", "501", times=100)
    bucket.create(KEY, b"one")
    seen = proxy.requests["create"]
    bucket.create("t/two", b"two")
    assert proxy.requests["create"] == seen
    assert (bucket.read(KEY), bucket.read("t/two")) == (b"one", b"two")
    with pytest.raises(FileExistsError):
        bucket.create("t/two", b"other")


def test_a_body_that_is_cut_short_is_never_a_result(bucket: Bucket, proxy: FaultProxy) -> None:
    data = bytes(range(256)) * 1000
    bucket.put(KEY, data)
    reads: dict[str, Any] = {
        "get": lambda: bucket.read(KEY),
        "get_range": lambda: bucket.read_range(KEY, 10, 200_000),
    }
    for operation, read in reads.items():
        proxy.plan(operation, KEY, "cut")
        try:
            found = read()
        except OSError as error:
            assert "cannot read" in str(error)
        else:
            assert found == (data if operation == "get" else data[10:200_000])


def test_a_store_that_is_away_is_no_missing_file(bucket: Bucket, proxy: FaultProxy) -> None:
    bucket.put(KEY, b"x")
    proxy.down()
    acts: tuple[Any, ...] = (
        lambda: bucket.read(KEY), lambda: bucket.put(KEY, b"y"), lambda: bucket.create("new", b"y"),
        lambda: bucket.exists(KEY), lambda: bucket.delete([KEY]), lambda: list(bucket.list("t")),
    )  # fmt: skip
    for act in acts:
        with pytest.raises(OSError, match="cannot") as error:
            act()
        assert not isinstance(error.value, FileNotFoundError | FileExistsError | PermissionError)
    proxy.up()
    assert bucket.read(KEY) == b"x"


def test_a_missing_bucket_is_no_missing_file(seaweedfs: SeaweedFS) -> None:
    missing = open_bucket(seaweedfs, seaweedfs.s3_endpoint, "no-such-bucket")
    with pytest.raises(OSError, match=r"the bucket does not exist\. Create it") as error:
        missing.read(KEY)
    assert not isinstance(error.value, FileNotFoundError)


def test_wrong_credentials_are_said_and_not_shown(seaweedfs: SeaweedFS, place: str) -> None:
    changes = {"s3.access-key-id": "who", "s3.secret-access-key": "tops3cret"}
    refused = open_bucket(seaweedfs, seaweedfs.s3_endpoint, place, **changes)
    for act in (lambda: refused.read(KEY), lambda: refused.put(KEY, b"x"), lambda: refused.create(KEY, b"x")):
        with pytest.raises(
            PermissionError, match=r"the store refuses the credentials\. Check the keys s3\.\*"
        ) as error:
            act()
        assert "tops3cret" not in str(error.value) and error.value.__cause__ is None


def test_the_signature_of_an_address_is_not_shown() -> None:
    """Azure's are in the query of each address, which obstore leaves out of its errors."""
    properties = {
        "adls.sas-token": "sv=2024&sig=tops3cret", "adls.blob-storage-authority": "127.0.0.1:1",
        "adls.blob-storage-scheme": "http", "adls.account-name": "acc",
    }  # fmt: skip
    with pytest.raises(OSError, match="abfss://lake/f") as error:
        Bucket("abfss://lake", connect("abfss", "lake", properties)).read("f")
    assert "tops3cret" not in str(error.value)


def test_a_key_that_no_store_has_is_an_error_that_names_it(bucket: Bucket) -> None:
    with pytest.raises(OSError, match="a//b"):
        bucket.put("a//b", b"x")


# -- buckets are kept ---------------------------------------------------------------------------------------------------


def test_a_bucket_is_kept_for_the_next_fileio() -> None:
    keys = {"s3.region": "r", "s3.access-key-id": "k", "s3.secret-access-key": "s"}
    first = bucket_of("s3", "lake", {**keys, "warehouse": "w", "py-io-impl": "x"})
    assert bucket_of("s3", "lake", keys) is first
    assert bucket_of("s3", "lake", {**keys, "s3.session-token": "newly vended"}) is not first
    assert bucket_of("s3", "other", keys) is not first
    assert module._bucket.cache_info().maxsize == BUCKETS_MAX
