from typing import Any

import pytest

from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.s3tables import derived
from streamlake.core.errors import Invalid

ARN = "arn:aws:s3tables:eu-central-1:111122223333:bucket/lake"


def properties(warehouse: str = ARN, **given: str) -> dict[str, Any]:
    given = {key.replace("__", "."): value for key, value in given.items()}
    return derived(CatalogConfig("s3tables", "lake", {"warehouse": warehouse, **given}, "lake.toml"))


def test_all_of_it_follows_from_the_arn() -> None:
    assert properties() == {
        "warehouse": ARN,
        "uri": "https://s3tables.eu-central-1.amazonaws.com/iceberg",
        "rest.sigv4-enabled": "true",
        "rest.signing-name": "s3tables",
        "rest.signing-region": "eu-central-1",
        "client.region": "eu-central-1",
        "s3.region": "eu-central-1",
    }


def test_through_glue_the_bucket_has_another_name() -> None:
    found = properties(uri="https://glue.eu-central-1.amazonaws.com/iceberg")
    assert found["warehouse"] == "111122223333:s3tablescatalog/lake"
    assert found["rest.signing-name"] == "glue"


def test_china_has_a_domain_of_its_own() -> None:
    found = properties("arn:aws-cn:s3tables:cn-north-1:111122223333:bucket/lake")
    assert found["uri"] == "https://s3tables.cn-north-1.amazonaws.com.cn/iceberg"


def test_what_is_given_is_kept() -> None:
    given = {"uri": "http://127.0.0.1:1", "rest.signing-name": "other", "s3.region": "x"}
    found = properties(**{key.replace(".", "__"): value for key, value in given.items()})
    assert found["warehouse"] == ARN
    assert {key: found[key] for key in given} == given


@pytest.mark.parametrize(
    "warehouse",
    ["lake", "s3://lake", "arn:aws:s3:::lake", ARN.replace("111122223333", "1"), ARN.replace("bucket/", "")],
)
def test_what_is_no_arn_of_a_table_bucket(warehouse: str) -> None:
    with pytest.raises(Invalid, match=r"^lake.toml: warehouse is not the ARN of a table bucket"):
        properties(warehouse)
