"""Which catalog, and how to reach it: a TOML file, or a table of the server's configuration, with pyiceberg's own keys.

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
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from streamlake.catalogs.keys import KEYS, is_known
from streamlake.catalogs.kinds import KINDS, check_installed
from streamlake.core.errors import Invalid

DEFAULT_NAME = "streamlake"
BESIDE_METADATA = "[storage] and [tables]"  # what configures the catalog that needs no configuration of its own
NESTED_IN_PYICEBERG = ("auth", "ssl")  # the two settings of its REST catalog that are tables, not strings

_VARIABLE = re.compile(r"\$\{([^}]*)\}")


@dataclass(frozen=True, slots=True)
class CatalogConfig:
    """`properties` are pyiceberg's: flat dotted keys, string values (tables only under NESTED_IN_PYICEBERG).
    `where`: the file, and the table in it, that configure this catalog, for messages."""

    kind: str
    name: str
    properties: Mapping[str, Any] = field(repr=False)  # may hold secrets
    where: str = BESIDE_METADATA


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


def read(path: Path, environ: Mapping[str, str], name: str = DEFAULT_NAME) -> CatalogConfig:
    """Read a catalog file; `name` is for one that gives none. Raises Invalid that names the file and the key."""
    try:
        content = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise Invalid(f"{path} does not exist: give the path of a catalog file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} cannot be read: {error}") from None
    except RecursionError:
        raise Invalid(f"{path} is not valid TOML: it is nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and what Python says of numbers of thousands of digits
        raise Invalid(f"{path} is not valid TOML: {error}") from None
    return parse(content, str(path), environ, name)


def parse(content: Mapping[str, Any], where: str, environ: Mapping[str, str], name: str) -> CatalogConfig:
    """A catalog from the keys of its file. Raises Invalid that begins with `where` and names the key."""
    if unknown := sorted(set(content) - {"kind", "name", "properties"}):
        raise Invalid(f"{where}: unknown key {unknown[0]}; known are kind, name and [properties]")
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise Invalid(f"{where}: kind is {kind!r}, it must be one of {', '.join(KINDS)}")
    name = content.get("name", name)
    if not isinstance(name, str) or not name:
        raise Invalid(f"{where}: name must be a non-empty string")
    given = content.get("properties", {})
    if not isinstance(given, Mapping):
        raise Invalid(f"{where}: properties must be a table of pyiceberg's catalog properties")
    try:
        flat = dict(_flat(given))
    except RecursionError:
        raise Invalid(f"{where}: [properties] is nested too deeply") from None
    for key in flat:
        _check_key(kind, key, where)
    properties = {key: _expand(value, f"{where}: {key}", environ) for key, value in flat.items()}
    _check_required(kind, properties, where)
    _check_warehouse(kind, properties, where)
    try:
        check_installed(kind, properties)
    except Invalid as error:
        raise Invalid(f"{where}: {error}") from None
    return CatalogConfig(kind, name, properties, where)


def _check_key(kind: str, key: str, where: str) -> None:
    if is_known(kind, key):
        return
    near = get_close_matches(key, KEYS[kind], n=1)
    elsewhere = [other for other in KINDS if is_known(other, key)]
    hint = f"it belongs to kind {' and '.join(elsewhere)}" if elsewhere else "keys are those of pyiceberg"
    raise Invalid(
        f"{where}: {key[:200]} is not a property of a catalog of kind {kind}; "
        + (f"did you mean {near[0]}?" if near else hint)
    )


def _check_required(kind: str, properties: Mapping[str, Any], where: str) -> None:
    expected = KINDS[kind]
    for key in expected.required:
        if not properties.get(key):
            example = f", such as {expected.example}" if key == "uri" else ""
            meaning = {"uri": "the address of the catalog", "warehouse": "the location of its tables"}[key]
            raise Invalid(f"{where}: [properties] has no {key}, {meaning}{example}")
    uri = str(properties.get("uri", ""))  # not shown: that of a database may hold a password
    schemes = [one.partition(":")[0] for one in uri.split(",")] if kind == "hive" else [uri.partition(":")[0]]
    if uri and ("://" not in uri or set(schemes) - set(expected.schemes)):
        beginnings = " or ".join(f"{scheme}://" for scheme in expected.schemes)
        raise Invalid(f"{where}: the uri of kind {kind} must begin with {beginnings}, such as {expected.example}")


def _check_warehouse(kind: str, properties: Mapping[str, Any], where: str) -> None:
    warehouse, expected = properties.get("warehouse"), KINDS[kind]
    if warehouse and "py-io-impl" not in properties and not expected.warehouse.fullmatch(warehouse):
        example = expected.warehouse_example
        raise Invalid(f"{where}: the warehouse of kind {kind} must be like {example}, not {warehouse[:200]!r}")


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
        raise Invalid(f"{where}: must be a string or a number")

    def variable(found: re.Match[str]) -> str:
        if found[1] not in environ:
            raise Invalid(f"{where} needs the environment variable {found[1]}, which is not set")
        return environ[found[1]]

    return _VARIABLE.sub(variable, value)
