"""Short-lived keys, from a real STS service, and what they open."""

import json
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from structlog.testing import capture_logs
from support.seaweedfs import SeaweedFS

from streamlake.core.clock import SystemClock
from streamlake.iceberg_rest.problem import Problem
from streamlake.iceberg_rest.s3 import credentials as module
from streamlake.iceberg_rest.s3.credentials import LIFETIME_S, ShortLived, can_be_named, policy_of
from streamlake.iceberg_rest.s3.place import Place
from streamlake.iceberg_rest.s3.store import Store
from streamlake.table.task.control import S3AccessSettings


class Clock(SystemClock):
    later_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.later_ms


def store_of(weed: SeaweedFS, **properties: str) -> Store:
    given = {"s3.endpoint": weed.s3_endpoint, "s3.region": weed.region, "s3.access-key-id": weed.access_key}
    return Store({**given, "s3.secret-access-key": weed.secret_key, **properties})


def s3(weed: SeaweedFS, keys: dict[str, str]) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=weed.s3_endpoint,
        region_name=weed.region,
        aws_access_key_id=keys["s3.access-key-id"],
        aws_secret_access_key=keys["s3.secret-access-key"],
        aws_session_token=keys["s3.session-token"],
    )


def test_they_open_one_folder(weed: SeaweedFS, vending: S3AccessSettings, warehouse: str) -> None:
    bucket, _, prefix = warehouse.partition("/")
    clock = Clock()
    keys = ShortLived(store_of(weed), vending, clock).for_place(Place(bucket, f"{prefix}/t/"))
    assert weed.secret_key not in keys.values()
    assert 0 < int(keys["s3.session-token-expires-at-ms"]) - clock.now_ms() <= LIFETIME_S * 1000 + 5000
    client = s3(weed, keys)
    client.put_object(Bucket=bucket, Key=f"{prefix}/t/x", Body=b"1")
    assert client.get_object(Bucket=bucket, Key=f"{prefix}/t/x")["Body"].read() == b"1"
    assert client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/t/")["KeyCount"] == 1
    client.delete_object(Bucket=bucket, Key=f"{prefix}/t/x")
    for refused in (
        lambda: client.put_object(Bucket=bucket, Key=f"{prefix}/t2/x", Body=b"1"),
        lambda: client.get_object(Bucket=bucket, Key=f"{prefix}/u/x"),
        lambda: client.delete_object(Bucket=bucket, Key=f"{prefix}/x"),
        lambda: client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/"),
        lambda: client.list_objects_v2(Bucket=bucket),
        lambda: client.list_buckets()["Buckets"][0],
    ):
        with pytest.raises((ClientError, IndexError)):
            refused()


def test_they_are_given_again_while_they_last(
    weed: SeaweedFS, vending: S3AccessSettings, warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_MAX", 2)
    clock = Clock()
    given = ShortLived(store_of(weed), vending, clock)
    places = [Place(warehouse.partition("/")[0], f"{name}/") for name in "abc"]
    first, other = given.for_place(places[0]), given.for_place(places[1])
    assert given.for_place(places[0]) == first != other
    clock.later_ms = LIFETIME_S * 600
    renewed = given.for_place(places[0])
    assert renewed["s3.session-token"] != first["s3.session-token"]
    given.for_place(places[2])
    given.for_place(places[1])
    assert len(given._kept) == 2


@pytest.mark.parametrize("trouble", ["away", "refused"])
def test_without_sts_the_log_says_why(weed: SeaweedFS, vending: S3AccessSettings, trouble: str) -> None:
    settings = {"away": S3AccessSettings("short-lived", sts_role=weed.role, sts_endpoint="http://127.0.0.1:9")}
    store = store_of(weed, **({} if trouble == "away" else {"s3.secret-access-key": "another-secret"}))
    with capture_logs() as logged, pytest.raises(Problem, match="cannot be had now") as problem:
        ShortLived(store, settings.get(trouble, vending), Clock()).for_place(Place("b", "t/"))
    assert problem.value.status == 503
    assert "http.sts_role" in logged[0]["event"] and logged[0]["reason"]
    assert "another-secret" not in str(logged)


@pytest.mark.parametrize("wildcard", "*?$")
def test_a_location_cannot_widen_a_policy(wildcard: str) -> None:
    assert not can_be_named(Place("b", f"a{wildcard}/"))
    assert can_be_named(Place("b", 'a"b/'))
    assert '"arn:aws:s3:::b/a\\"b/*"' in json.dumps(policy_of(Place("b", 'a"b/'), "arn:aws:iam::1:role/r"))


def test_other_clouds_have_other_names() -> None:
    assert '"arn:aws-cn:s3:::b/a/*"' in json.dumps(policy_of(Place("b", "a/"), "arn:aws-cn:iam::1:role/r"))
