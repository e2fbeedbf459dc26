import pytest

from streamlake.catalogs.capabilities import Capabilities
from streamlake.catalogs.kinds import KINDS


@pytest.mark.parametrize(
    ("kind", "name", "why"),
    [
        ("sql", "Orders.v1-eu", ""),
        ("rest", "Orders.v1-eu", ""),
        ("glue", "Orders", ""),  # folded
        ("glue", "orders-eu", "'-' is not possible"),
        ("hive", "orders.v1", "'.' is not possible"),
        ("hive", "o" * 129, "129 characters, and at most 128"),
        ("hive", "größe", "'ö' is not possible"),
        ("s3tables", "Orders", "'O' is not possible"),
        ("s3tables", "_orders", "begins with '_'"),
        ("s3tables", "orders_2", ""),
    ],
)
def test_names(kind: str, name: str, why: str) -> None:
    capabilities = KINDS[kind].capabilities
    found = capabilities.refused_name(name)
    assert found == why or (why and why in found)
    usable = capabilities.usable_name(name, 20)
    assert capabilities.refused_name(usable) == ""
    assert len(usable) <= 20


def test_a_name_of_which_nothing_is_possible() -> None:
    capabilities = KINDS["s3tables"].capabilities
    assert capabilities.refused_name(capabilities.usable_name("---", 9)) == ""


def test_folding() -> None:
    assert Capabilities(folds_case=True).folded("Orders") == "orders"
    assert Capabilities().folded("Orders") == "Orders"
