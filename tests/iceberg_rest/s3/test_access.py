"""Who gets what for which location."""

from typing import Any, cast

import httpx
import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from support.rest_endpoint import serve
from support.seaweedfs import SeaweedFS

from streamlake.iceberg_rest.problem import Problem
from streamlake.iceberg_rest.s3.access import LOADED_KNOWN_S, SIGNED, STAGED_KNOWN_S, VENDED, S3Access
from streamlake.iceberg_rest.s3.place import Place
from streamlake.table.task.control import S3AccessSettings

KEYS = {"s3.access-key-id": "me", "s3.secret-access-key": "hidden"}
TABLE = ("a", "t")
ROWS = pa.table({"x": [1, 2]})


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def now_ms(self) -> int:
        return round(self.now * 1000)

    def boottime(self) -> float:
        return self.now


class Tables:
    """Stands for a catalog: locations by table."""

    def __init__(self, warehouse: str) -> None:
        self.properties = {"warehouse": warehouse, **KEYS}
        self.locations: dict[tuple[str, ...], str] = {}

    def load_table(self, table: tuple[str, ...]) -> Any:
        if table not in self.locations:
            raise NoSuchTableError("none")
        location = self.locations[table]
        return type("Table", (), {"metadata": type("Metadata", (), {"location": location})})


def access(settings: S3AccessSettings, warehouse: str = "s3://b/w") -> tuple[S3Access, Tables, Clock]:
    tables, clock = Tables(warehouse), Clock()
    return S3Access(settings, "lake", cast(Catalog, tables), clock), tables, clock


SIGNS = S3AccessSettings(signs=True)


def test_only_who_asks_gets_what_is_configured() -> None:
    both = {VENDED, SIGNED}
    for settings, asked, gets in (
        (S3AccessSettings(), both, set()),
        (SIGNS, {VENDED}, set()),
        (SIGNS, {"nonsense"}, set()),
        (SIGNS, both, {"s3.signer.endpoint"}),
        (S3AccessSettings("long-lived"), {SIGNED}, set()),
        (S3AccessSettings("long-lived", signs=True), both, {"s3.secret-access-key"}),
        (S3AccessSettings("short-lived"), {SIGNED}, set()),
    ):
        grant = access(settings)[0].grant(asked, TABLE, "s3://b/w/a/t")
        assert gets == grant.config.keys() & {"s3.signer.endpoint", "s3.secret-access-key"}, (settings, asked)


def test_where_signatures_are_had() -> None:
    config = access(SIGNS)[0].grant({SIGNED}, ("a", "b", "t"), "s3://b/w/a/t").config
    assert config["s3.signer.endpoint"] == "v1/lake/namespaces/a%1Fb/tables/t/sign"
    assert (config["s3.remote-signing-enabled"], config["s3.signer"]) == ("true", "S3V4RestSigner")
    assert not config.keys() & KEYS.keys()


@pytest.mark.parametrize(
    ("location", "warehouse", "own", "why"),
    [
        ("s3://b/w/a/t", "s3://b/w", "s3://b/log", ""),
        ("s3://b/data/warehouse/t", "s3://b/data/warehouse", "s3://b/data", ""),
        ("s3://b/w/t", "s3://b/w", "file:///var/lib", ""),
        ("s3://b/w", "s3://b/w", "", "not below the warehouse"),
        ("s3://b", "s3://b/w", "", "not below the warehouse"),
        ("s3://b/other/t", "s3://b/w", "", "not below the warehouse"),
        ("s3://other/w/t", "s3://b/w", "", "not below the warehouse"),
        ("s3://b/w/../x", "s3://b/w", "", "no folder of an S3 bucket"),
        ("file:///w/t", "s3://b/w", "", "no folder of an S3 bucket"),
        ("s3://b/w/t", "warehouse", "", "not below the warehouse"),
        ("s3://b/log/objects", "s3://b", "s3://b/log", "keeps its log"),
        ("s3://b/data", "s3://b", "s3://b/data/log", "keeps its log"),
        ("s3://b/data/t", "s3://b/data", "s3://b/data", "keeps its log"),
    ],
)
def test_a_location_alone_opens_nothing(location: str, warehouse: str, own: str, why: str) -> None:
    settings = S3AccessSettings("short-lived", True, own_urls=("file:///x", own))
    opened, tables, _ = access(settings, warehouse)
    tables.locations[TABLE] = location
    if not why:
        assert opened.place(TABLE).bucket == "b"
        return
    with pytest.raises(Problem, match=why) as refused:
        opened.place(TABLE)
    assert refused.value.status == 403
    assert opened.grant({SIGNED, VENDED}, TABLE, location).config == {}


def test_a_location_that_would_widen_a_policy_gets_signatures() -> None:
    config = access(S3AccessSettings("short-lived", True))[0].grant({VENDED, SIGNED}, TABLE, "s3://b/w/*").config
    assert "s3.signer.endpoint" in config and "s3.session-token" not in config


def test_a_dropped_table_is_signed_for_no_longer() -> None:
    opened, tables, clock = access(SIGNS)
    tables.locations[TABLE] = "s3://b/w/t"
    assert opened.place(TABLE) == Place("b", "w/t/")
    tables.locations[TABLE] = "s3://b/w/u"
    assert opened.place(TABLE) == Place("b", "w/t/"), "not every signature loads the table"
    clock.now += LOADED_KNOWN_S
    assert opened.place(TABLE) == Place("b", "w/u/")
    del tables.locations[TABLE]
    clock.now += LOADED_KNOWN_S
    with pytest.raises(NoSuchTableError):
        opened.place(TABLE)


def test_a_staged_table_is_written_before_the_catalog_has_it() -> None:
    opened, _, clock = access(SIGNS)
    opened.grant({SIGNED}, TABLE, "s3://b/w/t", staged=True)
    clock.now += LOADED_KNOWN_S + 1
    assert opened.place(TABLE) == Place("b", "w/t/")
    clock.now += STAGED_KNOWN_S
    with pytest.raises(NoSuchTableError):
        opened.place(TABLE)


def test_a_table_that_was_created_is_not_reported_as_failed(catalog: Catalog, weed: SeaweedFS) -> None:
    """Without STS a load can be tried again later. A creation that has happened cannot."""
    away = S3AccessSettings("short-lived", sts_role=weed.role, sts_endpoint="http://127.0.0.1:9")
    asking = {"X-Iceberg-Access-Delegation": "vended-credentials"}
    catalog.create_namespace("a")
    with serve(catalog, s3=away) as endpoint, httpx.Client(trust_env=False, headers=asking) as http:
        schema = {"type": "struct", "schema-id": 0, "fields": []}
        created = http.post(f"{endpoint.url}/v1/namespaces/a/tables", json={"name": "t", "schema": schema})
        assert (created.status_code, created.json()["config"]) == (200, {})
        assert http.get(f"{endpoint.url}/v1/namespaces/a/tables/t").status_code == 503
        staged = {"name": "u", "schema": schema, "stage-create": True}
        assert http.post(f"{endpoint.url}/v1/namespaces/a/tables", json=staged).status_code == 503, "nothing was done"


def test_pyiceberg_works_with_short_lived_keys(catalog: Catalog, vending: S3AccessSettings, weed: SeaweedFS) -> None:
    """It asks for them by itself; a table that it creates is written with them, too."""
    with serve(catalog, s3=vending) as endpoint:
        rest = endpoint.client()
        rest.create_namespace("a")
        table = rest.create_table("a.t", ROWS.schema)
        table.append(ROWS)
        transaction = rest.create_table_transaction("a.u", ROWS.schema)
        transaction.append(ROWS)
        transaction.commit_transaction()
        for name in ("a.t", "a.u"):
            table = rest.load_table(name)
            assert table.scan().to_arrow().num_rows == 2
            assert table.io.properties["s3.session-token"] and weed.secret_key not in table.io.properties.values()
        with pytest.raises(OSError, match="ACCESS_DENIED"):
            table.io.new_input(table.location().replace("/u", "/t") + "/metadata/x").exists()
        assert rest.load_credentials("a.t", rest.load_table("a.t").location())["s3.session-token"]
        url = f"{endpoint.url}/v1/namespaces/a/tables/t"
        asking = {"X-Iceberg-Access-Delegation": "vended-credentials"}
        answer = httpx.get(url, headers=asking, trust_env=False)
        assert answer.headers["cache-control"] == "no-store"
        assert "etag" not in answer.headers, "else a client would go on with keys that have ended"
        refresh = answer.json()["config"]["client.refresh-credentials-endpoint"]
        assert httpx.get(f"{endpoint.url}/{refresh}", trust_env=False).json()["storage-credentials"]
