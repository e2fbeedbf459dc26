"""Names of tables as statements write them, and the views that stand for them."""

import re

import pytest

from streamlake.core.errors import Invalid
from streamlake.lake.names import Name
from streamlake.lake.views import Views


class Lake:
    """Takes down what it is told to execute."""

    def __init__(self):
        self.said = []

    def execute(self, text):
        self.said.append(text)

    @property
    def views(self):
        return [
            text.split(" AS ")[0].removeprefix("CREATE OR REPLACE VIEW memory.")
            for text in self.said
            if " VIEW " in text
        ]


def report(table, namespace="default", location="file:///x/metadata.json", **more):
    topic = table.rpartition(".")[2]
    return {
        "topic": topic, "catalog": "lake", "topic_id": table, "table": table, "namespace": namespace, "metadata_location": location,
        "state": "running", "message": "", "lag": 0, "rows": 0, "dead_letters": 0, "dead_letter_table": None, **more,
    }  # fmt: skip


def test_only_what_is_named_becomes_a_view():
    lake, views = Lake(), Views([report("default.a"), report("default.b"), report("other.a", "other")])
    views.create(lake, ['"other"."a"', "b", "nowhere"])
    assert lake.views == ['"other"."a"', '"default"."b"']
    lake = Lake()
    views.create(lake, None)
    assert sorted(lake.views) == ['"default"."a"', '"default"."b"', '"other"."a"']


class Endpoint:
    """Has tables, and takes down of which it is asked for the newest metadata."""

    def __init__(self, **locations):
        self.locations, self.asked = locations, []

    def newest(self, catalog, name):
        self.asked.append((catalog, name.table))
        return self.locations.get(f"{catalog}_{name.table}")

    def tables(self, catalog):
        return [Name("default", key.split("_")[1]) for key in self.locations if key.startswith(catalog)]


def places(lake):
    return sorted(re.findall("iceberg_scan\\('([^']*)'", " ".join(lake.said)))


def test_the_newest_snapshot_of_what_is_named():
    views = Views([report("default.a"), report("default.b"), report("default.new", location=None)], ["lake"])
    endpoint = Endpoint(lake_a="file:///newer", lake_new="file:///first")
    views.refresh(["a", "new", "nowhere"], endpoint)
    assert sorted(endpoint.asked) == [("lake", "a"), ("lake", "new"), ("lake", "nowhere")]
    views.require(["new"])
    lake = Lake()
    views.create(lake, None)
    assert places(lake) == ["/first", "/newer", "/x/metadata.json"]


def test_tables_of_no_topic_are_looked_for_in_every_catalog():
    endpoint = Endpoint(lake_own="file:///own", archive_own="file:///shadowed", archive_old="file:///old")
    views, lake = Views([report("default.a")], ["lake", "archive"]), Lake()
    views.refresh(["own", "old", "nowhere"], endpoint)
    views.create(lake, ["own", "old", "nowhere"])
    assert places(lake) == ["/old", "/own"]
    assert views.named(["own", "old"]) == []
    views, lake = Views([report("default.a")], ["lake", "archive"]), Lake()
    assert [(t.catalog, t.name.table) for t in views.listed(endpoint)] == [
        ("lake", "a"), ("archive", "old"), ("lake", "own"), ("archive", "own"),
    ]  # fmt: skip
    views.refresh(None, endpoint)
    views.create(lake, None)
    assert places(lake) == ["/old", "/own", "/x/metadata.json"], "one view of a name, of the first catalog"


def test_dead_letters_have_a_view_too():
    dead = {"table": "lake.raw.a__dlq", "metadata_location": "s3://x/dlq.json"}
    lake = Lake()
    Views([report("lake.raw.a", "lake.raw", dead_letter_table=dead)]).create(lake, ['"lake.raw"."a__dlq"'])
    assert lake.views == ['"lake.raw"."a__dlq"']
    assert "iceberg_scan('s3://x/dlq.json')" in lake.said[-1]


def test_quotes_in_names_and_places():
    lake = Lake()
    Views([report('default.a"b', location="file:///it's/m.json")]).create(lake, ['"a""b"'])
    assert lake.said[-1].endswith("""memory."default"."a""b" AS SELECT * FROM iceberg_scan('/it''s/m.json')""")


def test_of_tables_that_differ_in_case_the_exact_one():
    views = Views(
        [report("default.Orders", location="1"), report("default.orders", location="2"), report("default.Plain")]
    )
    for name, place in [("Orders", "'1'"), ('"orders"', "'2'")]:
        lake = Lake()
        views.create(lake, [name])
        assert place in lake.said[-1]
    lake = Lake()
    views.create(lake, ["PLAIN"])
    assert lake.views == ['"default"."Plain"']
    for names in (["ORDERS"], ["Orders", "orders"]):
        with pytest.raises(Invalid, match=r'"default"."Orders" and "default"."orders" differ only in case|differ only'):
            views.create(Lake(), names)


def test_a_table_without_a_commit_says_how_far_it_is():
    views = Views([report("default.new", location=None, lag=3, state="retrying", message="the catalog is away")])
    with pytest.raises(
        Invalid,
        match=r"default.new has no commit yet \(retrying, 3 records of its topic to go; the catalog is away\).*--wait",
    ):
        views.require(["NEW"])
    views.require(["other"])
    lake = Lake()
    views.create(lake, ["new"])
    assert lake.views == []


def test_a_table_without_a_name_is_left_out():
    assert Views([report("refused", location=None)]).named(None) == []


def test_explain_says_what_there_is():
    views = Views([report("default.shop.orders.v1"), report("default.b", location=None)])
    assert views.explain("x", "SELECT * FROM shop.orders.v1").endswith('in double quotes: "shop.orders.v1"')
    told = views.explain(
        'Catalog Error: Table with name b does not exist!\nDid you mean "duckdb_logs"?\n\nLINE 1', "SELECT * FROM b"
    )
    assert "duckdb_logs" not in told
    assert told.endswith('Tables with a commit: "default"."shop.orders.v1"')
    assert views.explain("Parser Error", "SELEC") == "Parser Error"


def test_named_topics_once_each():
    views = Views(
        [
            report("default.a", dead_letter_table={"table": "default.a__dlq", "metadata_location": "x"}),
            report("default.b"),
        ]
    )
    assert [r["topic_id"] for r in views.named(["a", "A", '"a__dlq"'])] == ["default.a"]
    assert [r["topic_id"] for r in views.named(None)] == ["default.a", "default.b"]


def test_tables_of_one_name_in_two_catalogs():
    views = Views([report("default.a", catalog="lake"), report("default.a", catalog="archive", topic_id="b")])
    with pytest.raises(
        Invalid, match=r'"default"."a" is a table in each of the catalogs archive and lake: .* "archive"."default"."a"'
    ):
        views.create(Lake(), ["a"])


def test_time_travel_is_the_catalogs():
    error = "Binder Error: Catalog type does not support time travel"
    assert '"lake".NAMESPACE.NAME AT' in Views([], ["lake", "b"]).explain(error, "FROM a AT (VERSION => 1)")
