from pathlib import Path

import pytest

from streamlake.catalogs.config import CatalogConfig, embedded, read
from streamlake.core.errors import Invalid

EXAMPLES = Path(__file__).parents[2] / "catalogs"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "catalog.toml"
    path.write_text(text)
    return path


def test_a_file_with_dotted_keys_numbers_and_secrets(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        'kind = "rest"\nname = "lake"\n[properties]\nuri = "https://${HOST}/api"\ns3.endpoint = "http://s3"\n'
        's3.access-key-id = "${KEY}"\nrest.sigv4-enabled = true\ns3.connect-timeout = 5\n'
        'auth = { type = "basic", basic = { username = "u", password = "${SECRET}" } }\n',
    )
    config = read(path, {"HOST": "h", "KEY": "k", "SECRET": "s3cr3t"})
    assert (config.kind, config.name) == ("rest", "lake")
    assert config.properties == {
        "uri": "https://h/api",
        "s3.endpoint": "http://s3",
        "s3.access-key-id": "k",
        "rest.sigv4-enabled": "true",
        "s3.connect-timeout": "5",
        "auth": {"type": "basic", "basic": {"username": "u", "password": "s3cr3t"}},
    }
    assert "s3cr3t" not in repr(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('kind = "sql', "not valid TOML"),
        ('kind = "glow"', "must be one of sql, rest"),
        ("", "must be one of sql, rest"),
        ('kind = "sql"\ntype = "x"', "unknown key type"),
        ('kind = "sql"\nname = 7', "name must be a non-empty string"),
        ('kind = "sql"\nproperties = 7', "must be a table"),
        ('kind = "sql"\n[properties]\nwarehouse = "x"', "has no uri"),
        ('kind = "sql"\n[properties]\nuri = "${NOT_SET}"', "needs the environment variable NOT_SET"),
        ('kind = "sql"\n[properties]\nuri = ["x"]', "must be a string or a number"),
    ],
)
def test_mistakes_name_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(Invalid, match=message) as error:
        read(written(tmp_path, text), {})
    assert "catalog.toml" in str(error.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="does not exist"):
        read(tmp_path / "no.toml", {})


def test_the_examples_are_right() -> None:
    names = "LAKE_CATALOG_URI LAKE_WAREHOUSE LAKE_CLIENT_ID LAKE_CLIENT_SECRET LAKE_S3_ENDPOINT LAKE_S3_ACCESS_KEY_ID LAKE_S3_SECRET_ACCESS_KEY"
    environ = dict.fromkeys(names.split(), "x")
    kinds = {path.stem: read(path, environ).kind for path in EXAMPLES.glob("*.toml")}
    assert kinds == {"sql": "sql", "rest": "rest"}


def test_the_embedded_default_is_below_the_data_directory(tmp_path: Path) -> None:
    assert embedded(tmp_path, None) == CatalogConfig(
        "sql", "streamlake", {"uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": f"file://{tmp_path}/warehouse"}
    )
    assert embedded(tmp_path, "s3://lake").properties["warehouse"] == "s3://lake"
