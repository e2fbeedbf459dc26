"""What is refused when a table is configured, by topics in a real metadata store."""

from typing import Any

import pytest

from streamlake.catalogs.config import CatalogConfig
from streamlake.catalogs.named import NamedCatalogs
from streamlake.cluster.store.table_progress import Reported
from streamlake.core.errors import Invalid

CATALOGS = NamedCatalogs("sql", {kind: CatalogConfig(kind, kind, {}) for kind in ("sql", "hive")})
TABLE = "streamlake.table."


@pytest.fixture
async def life(site: Any) -> Any:
    return await site.start(CATALOGS)


def table(**configs: str) -> dict[str, str]:
    return {TABLE + "enable": "true", **{TABLE + key: value for key, value in configs.items()}}


@pytest.mark.parametrize(
    ("topic", "configs", "says"),
    [
        (
            "orders-eu",
            table(catalog="hive"),
            "'-' is not possible in a name; set streamlake.table.name, such as orders_eu",
        ),
        ("orders", table(catalog="hive", namespace="a.b"), "set streamlake.table.namespace, such as a_b"),
        ("orders", table(catalog="hiv"), "there is no catalog 'hiv'; did you mean hive?"),
    ],
)
async def test_what_can_never_be_is_refused_when_it_is_set(
    life: Any, topic: str, configs: dict[str, str], says: str
) -> None:
    with pytest.raises(Invalid) as created:
        await life.topics.create(topic, 1, configs)
    assert says in str(created.value)
    await life.topics.create(topic, 1, {})
    with pytest.raises(Invalid) as altered:
        await life.topics.alter_configs(topic, configs)
    assert str(altered.value) == str(created.value)
    assert life.topics.get(topic).configs == {}


async def test_a_topic_that_is_no_table_may_have_any_config(life: Any) -> None:
    await life.topics.create("orders-eu", 1, {TABLE + "catalog": "hive"})
    with pytest.raises(Invalid, match="'-' is not possible"):
        await life.topics.alter_configs("orders-eu", {TABLE + "enable": "true"})


async def test_the_second_topic_for_one_table_is_refused(life: Any) -> None:
    await life.topics.create("orders", 1, table(catalog="hive"))
    await life.topics.create("Orders", 1, table())  # in another catalog
    with pytest.raises(Invalid, match=r"topic orders feeds table default.orders already in the catalog hive, which"):
        await life.topics.alter_configs("Orders", {TABLE + "catalog": "hive"})
    with pytest.raises(Invalid, match=r"topic Orders feeds table default.Orders__dlq already in the catalog sql: set"):
        await life.topics.create("letters", 1, table(name="Orders__dlq"))
    await life.topics.delete("orders")
    await life.topics.alter_configs("Orders", {TABLE + "catalog": "hive"})


async def test_the_brokers_default_namespace_counts(life: Any) -> None:
    await life.configs.alter(None, {TABLE + "namespace": "shop"})
    await life.topics.create("a", 1, table(name="x"))
    await life.topics.create("b", 1, table(name="x", namespace="default"))
    with pytest.raises(Invalid, match=r"topic a feeds table shop.x already"):
        await life.topics.create("c", 1, table(name="x", namespace="shop"))


async def test_a_config_that_has_become_impossible_does_not_hold_up_others(site: Any) -> None:
    before = await site.start(CATALOGS)
    await before.topics.create("orders", 1, table(catalog="hive"))
    after = await site.start(NamedCatalogs("sql", {"sql": CATALOGS["sql"]}))  # [catalogs.hive] was taken away
    await after.topics.alter_configs("orders", {"retention.ms": "5"})
    with pytest.raises(Invalid, match="there is no catalog 'hive'"):
        await after.topics.alter_configs("orders", {TABLE + "name": "x"})


@pytest.mark.parametrize(("committed", "once"), [(7, False), (0, True)])
async def test_a_table_with_rows_stays_in_its_catalog(life: Any, committed: int, once: bool) -> None:
    topic = await life.topics.create("orders", 1, table())
    await life.progress.advance(topic.id, 1, {0: Reported(committed, 0)}, once, 1)
    with pytest.raises(Invalid) as refused:
        await life.topics.alter_configs("orders", {TABLE + "catalog": "hive"})
    assert str(refused.value) == (
        "the table of topic orders has rows in the catalog sql: streamlake.table.catalog cannot become hive; set "
        "streamlake.table.enable=false first, and true with the new catalog, to build it again from the log"
    )
    await life.topics.alter_configs("orders", {TABLE + "catalog": "sql"})  # the default, by its name: no change
    await life.topics.alter_configs("orders", {TABLE + "enable": "false"})
    await life.topics.alter_configs("orders", table(catalog="hive"))
    assert life.topics.get("orders").configs[TABLE + "catalog"] == "hive"
    assert [(p.committed_offset, p.committed_once) for p in await life.progress.load()] == [(0, False)]


async def test_a_table_without_rows_may_move(life: Any) -> None:
    await life.topics.create("orders", 1, table())
    await life.topics.alter_configs("orders", {TABLE + "catalog": "hive"})
    assert life.topics.get("orders").configs[TABLE + "catalog"] == "hive"
