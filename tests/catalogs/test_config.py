import re
from pathlib import Path

import pytest

from streamlake.catalogs.config import CatalogConfig, embedded, read
from streamlake.catalogs.kinds import KINDS
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
        ('kind = "glow"', "must be one of sql, rest, glue, hive, s3tables"),
        ("", "must be one of sql, rest, glue, hive, s3tables"),
        ("kind = []", "must be one of sql, rest"),
        ('kind = "sql"\ntype = "x"', "unknown key type"),
        ('kind = "sql"\nname = 7', "name must be a non-empty string"),
        ('kind = "sql"\nproperties = 7', "must be a table"),
        ('kind = "sql"\n[properties]\nwarehouse = "x"', "has no uri, the address .* such as sqlite:///"),
        ('kind = "sql"\n[properties]\nuri = "sqlite:///x.db"', "has no warehouse, the location of its tables"),
        ('kind = "glue"', "has no warehouse"),
        (
            'kind = "s3tables"\n[properties]\nwarehouse = "s3://lake"',
            "the warehouse of kind s3tables must be like arn:aws:s3tables:us-east-1:111122223333:bucket/NAME, not 's3:",
        ),
        ('kind = "glue"\n[properties]\nwarehouse = "s4://lake"', "must be like s3://bucket/warehouse, not 's4://lake'"),
        ('kind = "rest"\n[properties]\nuri = ""', "has no uri"),
        ('kind = "rest"\n[properties]\nuri = "lake:8181"', "uri of kind rest must begin with http:// or https://"),
        ('kind = "hive"\n[properties]\nuri = "thrift://a:1,b:2"', "uri of kind hive must begin with thrift://"),
        ('kind = "sql"\n[properties]\nuri = "mysql://u:SECRET@x/y"\nwarehouse = "x"', "begin with sqlite:// or postg"),
        ('kind = "rest"\n[properties]\nuir = "http://x"', "uir is not a property .* did you mean uri"),
        ('kind = "rest"\n[properties]\nglue.id = "1"', "glue.id is not a property .* it belongs to kind glue"),
        ('kind = "rest"\n[properties]\nzzzzz = "SECRET"', "zzzzz is not a property .* keys are those of pyiceberg"),
        ('kind = "sql"\n[properties]\nuri = "${NOT_SET}"', "needs the environment variable NOT_SET"),
        ('kind = "sql"\n[properties]\nuri = ["x"]', "must be a string or a number"),
    ],
)
def test_mistakes_name_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(Invalid, match=message) as error:
        read(written(tmp_path, text), {})
    assert "catalog.toml" in str(error.value)
    assert "SECRET" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="does not exist"):
        read(tmp_path / "no.toml", {})


VALUES = {
    "LAKE_CATALOG_URI": "https://catalog.example.com",
    "LAKE_METASTORE_URI": "thrift://metastore.example.com:9083",
    "LAKE_TABLE_BUCKET_ARN": "arn:aws:s3tables:us-east-1:111122223333:bucket/lake",
    "LAKE_AWS_REGION": "us-east-1",
    "LAKE_WAREHOUSE": "s3://lake/warehouse",
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_an_example_that_is_right_once_its_variables_are_set(kind: str) -> None:
    text = (EXAMPLES / f"{kind}.toml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    variables = {name for line in lines for name in re.findall(r"\$\{(\w+)\}", line)}
    config = read(EXAMPLES / f"{kind}.toml", {name: VALUES.get(name, "x") for name in variables})
    assert config.kind == kind


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_example_has_as_a_comment_is_right_too(kind: str, tmp_path: Path) -> None:
    """Each commented-out key by itself: those that exclude each other cannot all be there."""
    text = (EXAMPLES / f"{kind}.toml").read_text()
    commented = re.findall(r"^# ([\w.-]+ = .*)$", text, re.MULTILINE)
    assert commented
    for line in commented:
        key = line.split(" = ")[0]
        kept = [old for old in text.splitlines() if not old.startswith(f"{key} = ")]
        path = written(tmp_path, "\n".join([*kept, line]))
        environ = {name: VALUES.get(name, "x") for name in re.findall(r"\$\{(\w+)\}", path.read_text())}
        assert key in read(path, environ).properties


def test_the_embedded_default_is_below_the_data_directory(tmp_path: Path) -> None:
    assert embedded(tmp_path, None) == CatalogConfig(
        "sql", "streamlake", {"uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": f"file://{tmp_path}/warehouse"}
    )
    assert embedded(tmp_path, "s3://lake").properties["warehouse"] == "s3://lake"
