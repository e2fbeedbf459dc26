import pytest

from streamlake.catalogs.capabilities import Capabilities
from streamlake.catalogs.kinds import KINDS
from streamlake.core.errors import Invalid
from streamlake.table.task.names import TableName, check_apart, check_possible


def refusal(kind: str, namespace: str, name: str) -> str:
    try:
        check_possible("t", TableName("lake", namespace, name), kind, KINDS[kind].capabilities)
    except Invalid as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_name_is_possible_everywhere(kind: str) -> None:
    assert refusal(kind, "shop", "orders_2") == ""


@pytest.mark.parametrize(
    ("kind", "namespace", "name", "says"),
    [
        (
            "glue", "shop", "orders-eu.v1",
            "topic t cannot be a table in the catalog lake (kind glue) with the name orders-eu.v1: '-' is not possible "
            "in a name; set streamlake.table.name, such as orders_eu_v1",
        ),
        (
            "hive", "a.b", "orders",
            "topic t cannot be a table in the catalog lake (kind hive): it has no namespaces in namespaces, as a.b would "
            "be: set streamlake.table.namespace, such as a_b",
        ),
        (
            "s3tables", "Shop", "orders",
            "topic t cannot be a table in the catalog lake (kind s3tables) in the namespace Shop: 'S' is not possible in "
            "a name; set streamlake.table.namespace, such as shop",
        ),
        (
            "hive", "shop", "o" * 125,
            f"topic t cannot be a table in the catalog lake (kind hive) with the name of its dead-letter table "
            f"{'o' * 125}__dlq: it has 130 characters, and at most 128 are possible; set streamlake.table.name, such as "
            f"{'o' * 123}",
        ),
    ],
)  # fmt: skip
def test_what_is_impossible_is_said_with_a_name_that_would_do(kind: str, namespace: str, name: str, says: str) -> None:
    assert refusal(kind, namespace, name) == says
    usable = says.rpartition(" such as ")[2]
    assert (
        refusal(kind, usable if "namespace, such" in says else namespace, name if "namespace, such" in says else usable)
        == ""
    )


def test_no_two_topics_feed_one_table() -> None:
    plain, folds = Capabilities(), Capabilities(folds_case=True)
    orders, big = TableName("lake", "shop", "orders"), TableName("lake", "Shop", "Orders")
    check_apart("b", big.keys(plain), dict.fromkeys(orders.keys(plain), "a"), False)
    with pytest.raises(Invalid, match=r"topic a feeds table shop.orders already in the catalog lake, which takes cap"):
        check_apart("b", big.keys(folds), dict.fromkeys(orders.keys(folds), "a"), True)
    dead = TableName("lake", "shop", "orders__dlq")
    with pytest.raises(Invalid, match=r"feeds table shop.orders__dlq already in the catalog lake: set .* of topic b"):
        check_apart("b", dead.keys(plain), dict.fromkeys(orders.keys(plain), "a"), False)
    elsewhere = TableName("other", "shop", "orders")
    check_apart("b", elsewhere.keys(plain), dict.fromkeys(orders.keys(plain), "a"), False)
