"""Configuration comes from four places, and a mistake names its key."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from support.pages import code, rows

from streamlake import config
from streamlake.core.errors import Invalid

ROLE = "arn:aws:iam::111122223333:role/lake-clients"


def load(text: str = "", environ: dict[str, str] | None = None, tmp: Path | None = None, **overrides):
    path = None
    if tmp is not None:
        path = tmp / "streamlake.toml"
        path.write_text(text)
    return config.load(path, environ or {}, overrides)


def test_needs_nothing() -> None:
    loaded = load()
    assert loaded.server.node_id == 0
    assert loaded.server.port == 9092


def test_file_then_environment_then_command_line(tmp_path: Path) -> None:
    text = "[server]\nport = 1\nhttp_port = 2\nnode_id = 3\n"
    loaded = load(
        text,
        {"STREAMLAKE_SERVER_HTTP_PORT": "20", "STREAMLAKE_SERVER_NODE_ID": "30"},
        tmp_path,
        server={"node_id": 300, "host": None},
    )
    assert (loaded.server.port, loaded.server.http_port, loaded.server.node_id) == (1, 20, 300)
    assert loaded.server.host == "127.0.0.1"


def test_kafka_keys_as_kafka_writes_them(tmp_path: Path) -> None:
    loaded = load(
        '[kafka]\nnum.partitions = 4\n"log.retention.ms" = 5\nauto.create.topics.enable = false\n', tmp=tmp_path
    )
    assert loaded.kafka == {"num.partitions": "4", "log.retention.ms": "5", "auto.create.topics.enable": "false"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[server]\nprot = 1\n", "server.prot"),
        ("[server]\nport = 70000\n", "server.port"),
        ("[server]\nnode_id = -1\n", "server.node_id.*from 0 to 2147483647, or auto"),
        ("[server]\nnode_id = 2147483648\n", "server.node_id.*or auto"),
        ('[server]\nnode_id = "any"\n', "server.node_id.*or auto"),
        ("[server]\nnode_id = true\n", "server.node_id.*or auto"),
        ("[sever]\n", "sever"),
        ("[storage]\nwal_segment_bytes = 67108864\nwal_capacity_bytes = 67108864\n", "three segments"),
        ("this is not toml", "not valid TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        load(text, tmp=tmp_path)


def test_a_node_id_of_the_clusters_choice(tmp_path: Path) -> None:
    assert load(environ={"STREAMLAKE_SERVER_NODE_ID": "auto"}).server.node_id == "auto"
    server, shared = '[server]\nnode_id = "auto"\n[storage]\n', 'metadata_url = "postgresql://x/y"\n'
    for storage in (shared, shared + 'wal = "object"\n', shared + 'wal = "file:///mount?shared=true"\n'):
        config.check(load(server + storage, tmp=tmp_path), {})
    for storage, says in (
        ("", "set that, or a number"),
        (shared + 'wal = "file"\n', "set storage.wal = object, or a number"),
    ):
        with pytest.raises(Invalid, match=says):
            config.check(load(server + storage, tmp=tmp_path), {})


def test_unknown_variables_are_refused() -> None:
    with pytest.raises(Invalid, match="STREAMLAKE_SERVRE_PORT"):
        load(environ={"STREAMLAKE_SERVRE_PORT": "1"})


def test_variables_of_the_client_commands_are_none_of_the_servers() -> None:
    variables = {"STREAMLAKE_BOOTSTRAP": "lake:9092", "STREAMLAKE_HTTP": "http://lake:8081", "STREAMLAKE_TOKEN": "x"}
    assert load(environ=variables) == load()


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"tables": {"catalog": "glue"}}, r"tables.catalog is 'glue': it must be 'sql'.*path"),
        (
            {"tables": {"catalog": "rest"}},
            r"the path of a catalog file \(kinds are sql, rest, glue.* such as .*/rest.toml",
        ),
        (
            {"catalogs": {"lake": {"kind": "iceberg"}}},
            r"\[catalogs.lake\]: kind is 'iceberg', it must be one of sql, re",
        ),
        ({"tables": {"catalog": "nowhere/lake.toml"}}, r"nowhere/lake.toml does not exist"),
        ({"storage": {"wal": "tape"}}, r"storage.wal: 'tape' is not a valid WAL"),
        (
            {"kafka": {"num.partition": "1"}},
            r"\[kafka\] .*'num.partition' is not a broker config; did you mean num.partitions",
        ),
        ({"kafka": {"num.partitions": "x"}}, r"\[kafka\] .*num.partitions"),
    ],
)
def test_what_can_be_checked_before_a_start_is(overrides: dict[str, dict[str, Any]], says: str) -> None:
    loaded = load(**overrides)
    with pytest.raises(Invalid, match=says):
        config.check(loaded, {})


def test_what_is_right_passes_the_check(tmp_path: Path) -> None:
    catalog = tmp_path / "lake.toml"
    catalog.write_text('kind = "rest"\n[properties]\nuri = "http://127.0.0.1:1"\n')
    config.check(load(), {})
    config.check(load(tables={"catalog": str(catalog)}, kafka={"num.partitions": "3"}, storage={"wal": "object"}), {})
    config.check(load(tables={"enabled": False, "catalog": "glue"}), {})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"token": "t"}, "registry.token is for a registry elsewhere: set registry.url"),
        ({"url": "http://r", "token": "t", "username": "u"}, "both given"),
        ({"url": "http://r", "password": "p"}, "registry.password needs registry.username"),
        ({"url": "http://r", "key_file": "k"}, "needs registry.certificate_file"),
        ({"url": "http://r", "ca_file": "/nowhere.pem"}, "registry.ca_file = /nowhere.pem does not exist"),
        ({"url": "http://u:p@r"}, "registry.url"),
        ({"url": "r:8081"}, "registry.url"),
        ({"url": "http://r", "username": "a:b"}, "registry.username"),
    ],
)
def test_a_registry_elsewhere_that_cannot_be(given: dict[str, str], says: str) -> None:
    with pytest.raises(Invalid) as caught:
        config.check(config.load(None, {}, {"registry": given}), {})
    assert says in str(caught.value)


def test_automqs_registry_is_ours(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    key = config.AUTOMQ_REGISTRY_URL
    path.write_text(f'[kafka]\n"{key}" = "http://r:8081"\n"message.max.bytes" = 2000\n')
    found = config.load(path, {}, {})
    assert (found.registry.url, found.kafka) == ("http://r:8081", {"message.max.bytes": "2000"})
    with pytest.raises(Invalid, match="both given"):
        config.load(path, {}, {"registry": {"url": "http://other"}})


def test_tokens_come_as_a_list_or_with_commas(tmp_path: Path) -> None:
    one, two = "t0ken-of-sixteen-letters", "an0ther-of-the-same-kind"
    for loaded in (
        load(f'[http]\ntokens = ["{one}", "{two}"]\n', tmp=tmp_path),
        load(environ={"STREAMLAKE_HTTP_TOKENS": f"{one}, {two}"}),
    ):
        assert loaded.http.tokens == (one, two)
        assert one not in repr(loaded)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('vend_credentials = "short-lived"', "needs sts_role, the ARN of the role"),
        ("vend_credentials = true", "http.vend_credentials: input should be 'no', 'short-lived' or 'long-lived'"),
        ('sts_role = "admin"', "http.sts_role"),
        ('sts_endpoint = "sts.example.com"', "http.sts_endpoint"),
    ],
)
def test_access_to_files_that_cannot_be(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=says):
        load(f"[http]\n{text}\n", tmp=tmp_path)


@pytest.mark.parametrize("text", ["sign_requests = true", f'vend_credentials = "short-lived"\nsts_role = "{ROLE}"'])
def test_access_to_files_needs_boto3(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(f"[http]\n{text}\n", tmp=tmp_path)
    config.check(loaded, {})
    monkeypatch.setattr(config, "find_spec", lambda name: None)
    with pytest.raises(Invalid, match=rf"http.{text.split()[0]} needs the package boto3, .* pip install '.*\[glue\]'"):
        config.check(loaded, {})
    config.check(load("[http]\niceberg = true\n", tmp=tmp_path), {})


@pytest.mark.parametrize("token", ["short", "with a blank in the middle", "ümläute-und-mehr-davon", "x" * 15])
def test_tokens_that_are_none_are_not_repeated(token: str) -> None:
    with pytest.raises(Invalid, match=r"http\.tokens: .*at least 16 letters") as refused:
        load(environ={"STREAMLAKE_HTTP_TOKENS": token})
    assert token not in str(refused.value)


AUTOMQ = (
    '[kafka]\nnum.partitions = 3\nautomq.table.topic.catalog.type = "rest"\n'
    'automq.table.topic.catalog.uri = "http://127.0.0.1:1"\n'
)


def test_automqs_catalog_is_the_default(tmp_path: Path) -> None:
    loaded = load(AUTOMQ, tmp=tmp_path)
    assert loaded.kafka == {"num.partitions": "3"}
    catalogs = config.named_catalogs(loaded, {})
    assert (catalogs.default, catalogs["automq"].kind) == ("automq", "rest")
    config.check(loaded, {})


def test_another_catalog_may_be_the_default_beside_automqs(tmp_path: Path) -> None:
    loaded = load(AUTOMQ + '[tables]\ncatalog = "sql"\n', tmp=tmp_path)
    assert config.named_catalogs(loaded, {}).default == "sql"


def test_automqs_catalog_twice(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"\[catalogs.automq\] and automq.table.topic.catalog.\* are both given"):
        load(AUTOMQ + '[catalogs.automq]\nfile = "x"\n', tmp=tmp_path)


def test_secrets_of_catalogs_are_in_no_text(tmp_path: Path) -> None:
    loaded = load(
        '[catalogs.lake]\nkind = "rest"\nproperties.uri = "http://x"\nproperties.token = "s3cr3t"\n', tmp=tmp_path
    )
    assert "s3cr3t" not in repr(loaded) + repr(config.named_catalogs(loaded, {}))


def test_catalogs_have_no_variables() -> None:
    with pytest.raises(Invalid, match="STREAMLAKE_CATALOGS_LAKE is not a setting"):
        load(environ={"STREAMLAKE_CATALOGS_LAKE": "x"})


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="does not exist"):
        config.load(tmp_path / "nowhere.toml", {}, {})


def literal(cell: str) -> Any:
    """The value of a cell that holds nothing but one of TOML; None if it says in words how a default is found."""
    try:
        return tomllib.loads(f"value = {code(cell)}")["value"]
    except tomllib.TOMLDecodeError:
        return None


SECTIONS: dict[str, Any] = {name: field.annotation for name, field in config.Config.model_fields.items()}


@pytest.mark.parametrize("section", [name for name in SECTIONS if name not in config.FILE_ONLY])
def test_the_page_lists_every_key_with_its_default(section: str) -> None:
    defaults = SECTIONS[section]().model_dump(mode="json")
    on_page = rows("configuration.md", f"`[{section}]`")
    listed = {code(row["key"]): row for row in on_page}
    assert len(listed) == len(on_page), "a key is on the page twice"
    assert {key: literal(row["default"]) for key, row in listed.items()} == defaults
    for key, row in listed.items():
        value = defaults[key] if defaults[key] is not None else "1"
        written = ",".join(value) if isinstance(value, list) else str(value)
        loaded = load(environ={code(row["variable"]): written}).model_dump(mode="json")
        assert str(loaded[section][key]) == str(value)
