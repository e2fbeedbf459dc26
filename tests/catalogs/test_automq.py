import pytest

from streamlake.catalogs.automq import PREFIX, catalog
from streamlake.catalogs.config import CatalogConfig, parse
from streamlake.core.errors import Invalid


def configured(**properties: str) -> CatalogConfig:
    """As a server takes it; `__` is a dot and `_` a dash."""
    given = {PREFIX + key.replace("__", ".").replace("_", "-"): value for key, value in properties.items()}
    found, rest = catalog({**given, "num.partitions": "3"})
    assert found is not None
    assert rest == {"num.partitions": "3"}
    return parse(found, "[kafka]", {}, "automq")


def test_without_a_catalog() -> None:
    assert catalog({"num.partitions": "3", "automq.table.topic.namespace": "shop"}) == (
        None,
        {"num.partitions": "3", "automq.table.topic.namespace": "shop"},
    )


def test_rest_with_a_header_and_the_names_of_java() -> None:
    found = configured(
        type="rest", uri="http://polaris:8181", warehouse="lake", header__Polaris_Realm="LAKE",
        io_impl="org.apache.iceberg.aws.s3.S3FileIO", s3__path_style_access="true", client__region="us-east-1",
    )  # fmt: skip
    assert (found.kind, found.name) == ("rest", "automq")
    assert found.properties == {
        "uri": "http://polaris:8181",
        "warehouse": "lake",
        "header.Polaris-Realm": "LAKE",
        "client.region": "us-east-1",
        "s3.force-virtual-addressing": "false",
    }


def test_hosts_in_the_style_of_virtual_hosts() -> None:
    found = configured(type="rest", uri="http://x", s3__path_style_access="false")
    assert found.properties["s3.force-virtual-addressing"] == "true"


@pytest.mark.parametrize(
    ("automq", "kind", "properties"),
    [
        ("glue", "glue", {"warehouse": "s3://lake", "glue__id": "1"}),
        ("hive", "hive", {"uri": "thrift://h:9083"}),
        ("tablebucket", "s3tables", {"warehouse": "arn:aws:s3tables:us-east-1:111122223333:bucket/lake"}),
    ],
)
def test_kinds(automq: str, kind: str, properties: dict[str, str]) -> None:
    assert configured(type=automq, **properties).kind == kind


@pytest.mark.parametrize(
    ("properties", "says"),
    [
        ({"uri": "http://x"}, f"{PREFIX}type is '': it must be one of rest, glue, hive, tablebucket"),
        ({"type": "nessie", "uri": "http://x"}, f"{PREFIX}type is nessie: use rest"),
        ({"type": "rest", "uri": "http://x", "made-up": "1"}, "made-up is not a property of a catalog of kind rest"),
    ],
)
def test_mistakes_name_the_property(properties: dict[str, str], says: str) -> None:
    with pytest.raises(Invalid, match=says):
        configured(**{key.replace("-", "_"): value for key, value in properties.items()})
