from pathlib import Path
from typing import Any

import pytest

from streamlake.catalogs.named import configured
from streamlake.core.errors import Invalid

REST = {"kind": "rest", "properties": {"uri": "https://catalog.example.com", "token": "${TOKEN}"}}
ENVIRON = {"TOKEN": "s3cr3t"}


def written(folder: Path, text: str) -> str:
    path = folder / "lake.toml"
    path.write_text(text)
    return str(path)


def test_catalogs_by_name_and_the_default(tmp_path: Path) -> None:
    file = written(tmp_path, 'kind = "glue"\n[properties]\nwarehouse = "s3://lake"\n')
    found = configured({"lake": REST, "archive": {"file": file}}, "lake", ENVIRON)
    assert (found.default, found[""]) == ("lake", found["lake"])
    assert found["lake"].properties["token"] == "s3cr3t"
    assert found["lake"].where == "[catalogs.lake]"
    assert (found["archive"].kind, found["archive"].name, found["archive"].where) == ("glue", "archive", file)


def test_what_pyiceberg_calls_a_catalog_may_differ() -> None:
    assert configured({"lake": {**REST, "name": "other"}}, "lake", ENVIRON)["lake"].name == "other"


def test_the_default_may_be_the_path_of_a_file(tmp_path: Path) -> None:
    file = written(tmp_path, 'kind = "rest"\nname = "mine"\n[properties]\nuri = "http://x"\n')
    found = configured({"lake": REST}, file, ENVIRON)
    assert (found.default, found[""].where, set(found.by_name)) == ("mine", file, {"lake", "mine"})


def test_a_name_that_is_not_there() -> None:
    found = configured({"lake": REST}, "lake", ENVIRON)
    with pytest.raises(
        Invalid, match=r"there is no catalog 'lakes'; did you mean lake\? \[catalogs.NAME\] in the conf"
    ):
        found["lakes"]
    with pytest.raises(Invalid, match=r"there is no catalog 'zzz'; there are lake\. "):
        found["zzz"]


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"sql": REST}, r"^\[catalogs.sql\]: sql is the catalog beside the metadata: choose another name"),
        ({"tables": REST}, r"^\[catalogs.tables\]: tables is a word of the paths at /iceberg: choose another name"),
        ({"my lake": REST}, r"^\[catalogs.my lake\]: the name of a catalog must be letters"),
        ({"lake": "catalogs/rest.toml"}, r"^\[catalogs.lake\] must be a table: kind and properties, or"),
        ({"lake": {"file": "x.toml", "kind": "rest"}}, r"^\[catalogs.lake\]: file is the path .* no other key"),
        ({"lake": {"file": 7}}, r"^\[catalogs.lake\]: file is the path"),
        ({"lake": {"file": "nowhere/x.toml"}}, r"^\[catalogs.lake\]: nowhere/x.toml does not exist"),
        ({"lake": {"kind": "rest"}}, r"^\[catalogs.lake\]: \[properties\] has no uri"),
        ({"lake": {"kind": "rest", "uri": "x"}}, r"^\[catalogs.lake\]: unknown key uri; known are kind, name and"),
    ],
)
def test_mistakes_name_the_table(sections: dict[str, Any], says: str) -> None:
    with pytest.raises(Invalid, match=says):
        configured(sections, "sql", ENVIRON)


def test_a_file_whose_name_is_taken(tmp_path: Path) -> None:
    file = written(tmp_path, 'kind = "rest"\nname = "lake"\n[properties]\nuri = "http://x"\n')
    with pytest.raises(Invalid, match=r"lake.toml: its name is lake, as of \[catalogs.lake\]: rename one of them"):
        configured({"lake": REST}, file, ENVIRON)


def test_a_default_that_is_neither_a_name_nor_a_path() -> None:
    with pytest.raises(Invalid, match=r"tables.catalog is 'late': it must be 'sql' or 'lake', the name of a catalog"):
        configured({"lake": REST}, "late", ENVIRON)
