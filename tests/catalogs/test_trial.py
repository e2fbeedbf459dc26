"""The steps on a real SQL catalog, and on one that is made to do each thing wrong. Nothing may be left of any of it."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
import pytest
from obstore.store import S3Store
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, TableAlreadyExistsError
from support import rest_lake
from support.wait import wait_until

from streamlake.catalogs import trial
from streamlake.catalogs.config import CatalogConfig, embedded
from streamlake.catalogs.kinds import load
from streamlake.catalogs.trial import Step, Trial, Unmet

if TYPE_CHECKING:
    from support.seaweedfs import SeaweedFS

NAMES = ["credentials", "namespace", "create", "commit", "stale commit", "tag", "history", "drop"]


class Bent:
    """A catalog that does some things its own way; `bend(name, function)`, which gets the right one first."""

    def __init__(self, inner: Catalog) -> None:
        self.inner = inner
        self._ways: dict[str, Callable[..., Any]] = {}

    def bend(self, name: str, way: Callable[..., Any]) -> None:
        self._ways[name] = way

    def __getattr__(self, name: str) -> Any:
        right = getattr(self.inner, name)
        way = self._ways.get(name)
        return right if way is None else lambda *args, **kwargs: way(right, *args, **kwargs)


@pytest.fixture
def config(tmp_path: Path) -> CatalogConfig:
    return embedded(tmp_path, None)


@pytest.fixture
def bent(config: CatalogConfig, monkeypatch: pytest.MonkeyPatch) -> Bent:
    catalog = Bent(load(config))
    monkeypatch.setattr(trial, "load", lambda _: catalog)
    return catalog


def run(config: CatalogConfig, namespace: str | None = None) -> dict[str, Step]:
    found = {step.name: step for step in Trial(config, "streamlake_trial_1", namespace).run()}
    assert_nothing_left(config)
    return found


def assert_nothing_left(config: CatalogConfig) -> None:
    catalog = load(config)
    assert "streamlake_trial_1" not in str([(n, catalog.list_tables(n)) for n in catalog.list_namespaces()])
    warehouse = Path(config.properties["warehouse"].removeprefix("file://"))
    assert not [path for path in warehouse.rglob("*") if "streamlake_trial_1" in str(path)]


def test_a_good_catalog(config: CatalogConfig) -> None:
    found = run(config)
    assert list(found) == NAMES
    assert [step.result for step in found.values() if step.passed is not True] == []
    assert found["create"].result.endswith("; a second creation is refused")
    assert found["stale commit"].result == "refused, as it must be"
    assert found["drop"].result == "table, namespace and files are gone"


def on_seaweedfs(server: "SeaweedFS") -> list[CatalogConfig]:
    """Its REST catalog, by OAuth2; and as S3 Tables, by the ARN of its table bucket and signed requests."""
    client = {"client.access-key-id": server.access_key, "client.secret-access-key": server.secret_key}
    files = {"s3.endpoint": server.s3_endpoint, "s3.access-key-id": server.access_key}
    files |= {"s3.secret-access-key": server.secret_key, "s3.region": server.region}
    rest = {**rest_lake.properties(server)}
    arn = f"arn:aws:s3tables:{server.region}:000000000000:bucket/{server.warehouse}"
    s3tables = {"warehouse": arn, "uri": server.iceberg_rest_uri, **client, **files}
    return [CatalogConfig("rest", "lake", rest), CatalogConfig("s3tables", "lake", s3tables)]


@pytest.mark.parametrize("number", [0, 1], ids=["rest", "s3tables"])
def test_real_catalogs(seaweedfs: "SeaweedFS", number: int) -> None:
    config = on_seaweedfs(seaweedfs)[number]
    name = f"streamlake_trial_{number}"

    def is_there() -> bool:
        """The server makes its table bucket a moment after it answers."""
        steps = list(Trial(config, name).run())
        return steps[0].passed is True and steps[1].passed is True

    wait_until(is_there, lambda: str(list(Trial(config, name).run())))
    found = {step.name: step for step in Trial(config, name).run()}
    assert [step for step in found.values() if step.passed is not True] == []
    assert found["create"].result.endswith("a second creation is answered with the table that is there")
    assert (name,) not in load(config).list_namespaces()
    bucket = S3Store(**seaweedfs.client(seaweedfs.warehouse))
    assert [item["path"] for batch in obstore.list(bucket) for item in batch if name in item["path"]] == []


def test_wrong_credentials_are_said_so_and_not_shown(seaweedfs: "SeaweedFS") -> None:
    right = on_seaweedfs(seaweedfs)
    rest = {**right[0].properties, "credential": "streamlake:wr0ng-s3cr3t"}
    s3tables = {**right[1].properties, "client.secret-access-key": "wr0ng-s3cr3t"}
    for kind, properties in (("rest", rest), ("s3tables", s3tables)):
        first, *_ = Trial(CatalogConfig(kind, "lake", properties, "lake.toml"), "streamlake_trial_9").run()
        assert first.passed is False
        assert "; check " in first.result and first.result.endswith(" in lake.toml")
        assert KEYS_OF[kind] in first.result
        assert "wr0ng" not in first.result


KEYS_OF = {"rest": "credential with oauth2-server-uri", "s3tables": "client.secret-access-key"}


def test_a_namespace_that_is_there(config: CatalogConfig) -> None:
    assert run(config, "shop")["namespace"] == Step(
        "namespace", False, "there is no namespace shop: leave --namespace out, or make it first"
    )
    load(config).create_namespace("shop")
    found = run(config, "shop")
    assert {step.passed for step in found.values()} == {True}
    assert found["drop"].result == "table and files are gone"
    assert load(config).list_namespaces() == [("shop",)]


def test_a_catalog_that_cannot_be_reached() -> None:
    config = CatalogConfig("rest", "lake", {"uri": "http://127.0.0.1:9"}, "lake.toml")
    steps = list(Trial(config, "streamlake_trial_1").run())
    assert [step.name for step in steps] == NAMES[:-1]
    assert steps[0].passed is False
    assert steps[0].result.endswith("; check uri in lake.toml, and that the catalog runs")
    assert {(step.passed, step.result) for step in steps[1:]} == {(None, "not tried: credentials failed")}


def test_a_catalog_that_takes_stale_commits(config: CatalogConfig, bent: Bent) -> None:
    bent.bend("commit_table", lambda right, table, _, updates: right(table, (), updates))
    found = run(config)
    assert not found["stale commit"].passed
    assert "tables would lose rows or have them twice" in found["stale commit"].result
    assert found["drop"].passed


def test_a_stale_commit_that_nobody_refused_clearly(config: CatalogConfig, bent: Bent) -> None:
    def commit(right: Any, table: Any, requirements: Any, updates: Any) -> Any:
        if any(getattr(update, "updates", {}) == {trial.STALE: "landed"} for update in updates):
            raise ConnectionError("lost")
        return right(table, requirements, updates)

    bent.bend("commit_table", commit)
    assert run(config)["stale commit"] == Step(
        "stale commit",
        False,
        "a commit for an older state of the table was not refused as a conflict: it ended with ConnectionError: lost",
    )


def test_a_catalog_that_drops_tags(config: CatalogConfig, bent: Bent) -> None:
    def commit(right: Any, table: Any, requirements: Any, updates: Any) -> Any:
        kept = tuple(u for u in updates if getattr(u, "ref_name", "") != trial.TAG)
        return right(table, requirements, kept)

    bent.bend("commit_table", commit)
    found = run(config)["tag"]
    assert (found.passed, found.result.partition(":")[0]) == (False, "not kept")
    assert "progress is kept by a table property all the same" in found.result


@pytest.mark.parametrize("tags", ["are dropped", "are refused"])
def test_what_is_known_of_a_catalog_is_no_failure(
    config: CatalogConfig, bent: Bent, monkeypatch: pytest.MonkeyPatch, tags: str
) -> None:
    """As of Nessie, whose versions differ in what they do with a tag."""
    known = trial.KINDS["sql"].capabilities
    as_nessie = trial.capabilities_of("sql", bent.inner).__class__(
        keeps_tags=False, keeps_history=False, create_is_conditional=False
    )
    monkeypatch.setattr(trial, "capabilities_of", lambda *_: as_nessie)

    def commit(right: Any, table: Any, requirements: Any, updates: Any) -> Any:
        kept = tuple(u for u in updates if getattr(u, "ref_name", "") != trial.TAG)
        if kept != updates and tags == "are refused":
            raise CommitFailedException("only the current snapshot-ref 'main' is supported")
        return right(table, requirements, kept)

    bent.bend("commit_table", commit)

    def create(right: Any, identifier: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return right(identifier, *args, **kwargs)
        except TableAlreadyExistsError:
            return bent.inner.load_table(identifier)

    bent.bend("create_table", create)
    found = run(config)
    assert {step.passed for step in found.values()} == {True}
    assert found["tag"].result.endswith("(as is known of this catalog)")
    assert found["create"].result.endswith("a second creation is answered with the table that is there")
    monkeypatch.setattr(trial, "capabilities_of", lambda *_: known)
    assert "a second creation of the same table is not refused" in run(config)["create"].result


@pytest.mark.parametrize(
    "name", ["create_namespace", "create_table", "load_table", "commit_table", "purge_table", "drop_namespace"]
)
@pytest.mark.parametrize("landed", [True, False])
@pytest.mark.parametrize("error", [ConnectionError("lost"), KeyboardInterrupt()])
def test_nothing_is_left_however_it_ends(
    config: CatalogConfig, bent: Bent, name: str, landed: bool, error: BaseException
) -> None:
    """The answer is lost, or somebody presses Ctrl-C, before and after it has happened."""
    once = iter([error])

    def fail(right: Any, *args: Any, **kwargs: Any) -> Any:
        result = right(*args, **kwargs) if landed else None
        if (raised := next(once, None)) is not None:
            raise raised
        return result if landed else right(*args, **kwargs)

    bent.bend(name, fail)
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            run(config)
        assert_nothing_left(config)
    else:
        run(config)


def test_nothing_is_left_if_the_caller_leaves(config: CatalogConfig) -> None:
    for count in range(1, len(NAMES)):
        with closing(Trial(config, "streamlake_trial_1").run()) as steps:
            for _ in range(count):
                next(steps)
        assert_nothing_left(config)


def test_what_cannot_be_removed_is_named(config: CatalogConfig, bent: Bent) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("not allowed")

    bent.bend("drop_table", refuse)
    bent.bend("purge_table", refuse)
    steps = {step.name: step for step in Trial(config, "streamlake_trial_1").run()}
    assert steps["drop"].result == (
        "table streamlake_trial_1.streamlake_trial_1 may be left, remove it: PermissionError: not allowed"
    )
    with pytest.raises(Unmet, match="may be left"), closing(Trial(config, "streamlake_trial_2").run()) as early:
        next(early), next(early), next(early)
