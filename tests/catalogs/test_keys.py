"""The lists of keys are PyIceberg's: what it gains or loses is noticed here when its version changes."""

import inspect
import re
from importlib import import_module
from types import ModuleType

import pytest
from pyiceberg import io

from streamlake.catalogs.keys import KEYS, is_known
from streamlake.catalogs.kinds import KINDS

MODULES = {
    "sql": "pyiceberg.catalog.sql",
    "rest": "pyiceberg.catalog.rest",
    "s3tables": "pyiceberg.catalog.rest",
    "glue": "pyiceberg.catalog.glue",
    "hive": "pyiceberg.catalog.hive",
}
FILES = re.compile(r"(client|s3|hdfs|adls|gcs|hf)\.[a-z0-9._-]+")
OF_KIND = {
    "sql": re.compile("(?!)"),  # they are literals in its constructor
    "rest": re.compile(r"(rest\.|rest-|oauth2-|snapshot-loading|view-endpoints|namespace-sep)[a-z0-9.-]+"),
    "glue": re.compile(r"glue\.[a-z.-]+"),
    "hive": re.compile(r"(hive\.|lock-check)[a-z0-9.-]+"),
}
OF_KIND["s3tables"] = OF_KIND["rest"]


def constants(module: ModuleType, pattern: re.Pattern[str]) -> set[str]:
    return {
        value
        for name, value in vars(module).items()
        if name.isupper() and not name.endswith("_DEFAULT") and isinstance(value, str) and pattern.fullmatch(value)
    }


def test_each_kind_has_its_keys() -> None:
    assert set(KEYS) == set(KINDS) == set(MODULES)


@pytest.mark.parametrize("kind", KEYS)
def test_keys_are_pyicebergs(kind: str) -> None:
    expected = constants(io, FILES) | constants(import_module(MODULES[kind]), OF_KIND[kind])
    assert expected - KEYS[kind] == set()
    source = inspect.getsource(io) + inspect.getsource(import_module(MODULES[kind]))
    unused = {key for key in KEYS[kind] if f'"{key}"' not in source}
    assert unused <= {"uri", "token"}  # of all catalogs, in pyiceberg.catalog


@pytest.mark.parametrize(
    ("kind", "key", "known"),
    [
        ("rest", "header.Polaris-Realm", True),
        ("s3tables", "header.X", True),
        ("rest", "header.", False),
        ("sql", "header.X", False),
        ("glue", "glue.id", True),
        ("hive", "glue.id", False),
        ("sql", "warehose", False),
    ],
)
def test_what_is_known(kind: str, key: str, known: bool) -> None:
    assert is_known(kind, key) is known
