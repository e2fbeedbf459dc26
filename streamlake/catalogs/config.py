"""Which catalog, and how to reach it: a TOML file with pyiceberg's own keys, secrets from the environment.

    kind = "rest"
    name = "lake"
    [properties]
    uri = "https://catalog.example.com"
    token = "${LAKE_TOKEN}"
    s3.endpoint = "https://s3.example.com"

Every `${NAME}` is replaced by the environment variable; one that is not set is an error, never an empty secret.
Does not import pyiceberg: the server reads the configuration too.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamlake.catalogs.kinds import KINDS
from streamlake.core.errors import Invalid

DEFAULT_NAME = "streamlake"
NESTED_IN_PYICEBERG = ("auth", "ssl")  # the two settings of its REST catalog that are tables, not strings

_VARIABLE = re.compile(r"\$\{([^}]*)\}")


@dataclass(frozen=True, slots=True)
class CatalogConfig:
    """`properties` are pyiceberg's: flat dotted keys, string values (tables only under NESTED_IN_PYICEBERG)."""

    kind: str
    name: str
    properties: Mapping[str, Any] = field(repr=False)  # may hold secrets


def embedded(data_dir: Path, warehouse: str | None) -> CatalogConfig:
    """The catalog of the embedded default: one SQLite file and a local warehouse under the data directory."""
    root = data_dir.absolute()
    uri = f"sqlite:///{root}/catalog.db"
    return CatalogConfig("sql", DEFAULT_NAME, {"uri": uri, "warehouse": warehouse or f"file://{root}/warehouse"})


def beside_metadata(metadata_url: str, data_dir: Path, warehouse: str | None, s3: Mapping[str, Any]) -> CatalogConfig:
    """The default catalog of a broker whose metadata is on a server: in the same database, so that no state is here.

    `s3`: endpoint, region, access_key, secret_key of the object store, for a warehouse in a bucket."""
    names = {"endpoint": "s3.endpoint", "region": "s3.region", "access_key": "s3.access-key-id"}
    names["secret_key"] = "s3.secret-access-key"
    properties = {ours: s3[theirs] for theirs, ours in names.items() if s3.get(theirs)}
    uri = metadata_url.replace("postgresql://", "postgresql+psycopg://", 1)
    place = warehouse or f"file://{data_dir.absolute()}/warehouse"
    return CatalogConfig("sql", DEFAULT_NAME, {"uri": uri, "warehouse": place, **properties})


def read(path: Path, environ: Mapping[str, str]) -> CatalogConfig:
    """Read a catalog file. Raises Invalid that names the file and the key."""
    try:
        content = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise Invalid(f"{path} does not exist: tables.catalog is the path of a catalog file, or sql") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"{path} is not valid TOML: {error}") from None
    if unknown := sorted(set(content) - {"kind", "name", "properties"}):
        raise Invalid(f"{path}: unknown key {unknown[0]}; known are kind, name and [properties]")
    if content.get("kind") not in KINDS:
        raise Invalid(f"{path}: kind is {content.get('kind')!r}, it must be one of {', '.join(KINDS)}")
    name = content.get("name", DEFAULT_NAME)
    if not isinstance(name, str) or not name:
        raise Invalid(f"{path}: name must be a non-empty string")
    given = content.get("properties", {})
    if not isinstance(given, dict):
        raise Invalid(f"{path}: properties must be a table of pyiceberg's catalog properties")
    properties = {key: _expand(value, f"{path}: {key}", environ) for key, value in _flat(given)}
    if "uri" not in properties:
        raise Invalid(f"{path}: [properties] has no uri, the address of the catalog")
    return CatalogConfig(content["kind"], name, properties)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`s3.endpoint = …` nests in TOML; pyiceberg wants the dotted key."""
    for key, value in values.items():
        if isinstance(value, Mapping) and not (prefix == "" and key in NESTED_IN_PYICEBERG):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _expand(value: Any, where: str, environ: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _expand(item, f"{where}.{key}", environ) for key, item in value.items()}
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        raise Invalid(f"{where}: must be a string or a number, not {value!r}")

    def variable(found: re.Match[str]) -> str:
        if found[1] not in environ:
            raise Invalid(f"{where} needs the environment variable {found[1]}, which is not set")
        return environ[found[1]]

    return _VARIABLE.sub(variable, value)
