"""The catalogs of a server by name: `[catalogs.NAME]` of its configuration, and which one is the default.

    [tables]
    catalog = "lake"               # where the table of a topic is that has no streamlake.table.catalog

    [catalogs.lake]
    kind = "rest"
    properties.uri = "https://catalog.example.com"

    [catalogs.archive]
    file = "catalogs/glue.toml"

The catalog `sql`, beside the metadata, is always there. Each catalog is one that StreamLake knows by NAME; `name` in it
is what pyiceberg calls it, by default the same.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from streamlake.catalogs.config import CatalogConfig, parse, read
from streamlake.catalogs.kinds import KINDS
from streamlake.core.errors import Invalid
from streamlake.core.share import shared_files

SQL_CATALOG = "sql"  # needs no configuration
NAME = re.compile(r"[A-Za-z0-9_\-]{1,100}")
# How paths of the Iceberg REST catalog go on after their version, unless the name of a catalog does.
REST_WORDS = ("config", "namespaces", "oauth", "tables", "transactions", "views")


@dataclass(frozen=True, slots=True)
class NamedCatalogs:
    default: str
    by_name: Mapping[str, CatalogConfig]

    def __getitem__(self, name: str) -> CatalogConfig:
        """By the value of streamlake.table.catalog, "" being the default. Invalid names those there are."""
        name = name or self.default
        if name not in self.by_name:
            near = get_close_matches(name, self.by_name, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(self.by_name))}."
            raise Invalid(f"there is no catalog {name[:100]!r}; {hint} [catalogs.NAME] in the configuration adds one")
        return self.by_name[name]


def configured(sections: Mapping[str, Any], default: str, environ: Mapping[str, str]) -> NamedCatalogs:
    """Those of a configuration; SQL_CATALOG, whose place follows from the rest of it, is the caller's to add. Invalid
    names the file, the table or the key."""
    by_name = {name: _section(name, content, environ) for name, content in sections.items()}
    if default == SQL_CATALOG or default in by_name:
        return NamedCatalogs(default, by_name)
    path = Path(default)
    if not path.exists() and not path.suffix and len(path.parts) == 1:
        raise Invalid(
            f"tables.catalog is {default!r}: it must be {' or '.join(map(repr, (SQL_CATALOG, *by_name)))}, the name of "
            f"a catalog under [catalogs], or the path of a catalog file (kinds are {', '.join(KINDS)}), such as "
            f"{shared_files()}/catalogs/rest.toml"
        )
    found = read(path, environ)
    _check_name(found.name, f"{path}: name")
    if found.name in by_name:
        raise Invalid(f"{path}: its name is {found.name}, as of [catalogs.{found.name}]: rename one of them")
    return NamedCatalogs(found.name, {**by_name, found.name: found})


def _section(name: str, content: Any, environ: Mapping[str, str]) -> CatalogConfig:
    where = f"[catalogs.{name[:100]}]"
    _check_name(name, where)
    if not isinstance(content, Mapping):
        raise Invalid(f"{where} must be a table: kind and properties, or the path of a catalog file as file")
    if "file" not in content:
        return parse(content, where, environ, name)
    if set(content) != {"file"} or not isinstance(content["file"], str):
        raise Invalid(f"{where}: file is the path of a catalog file, and no other key can be beside it")
    try:
        return read(Path(content["file"]), environ, name)
    except Invalid as error:
        raise Invalid(f"{where}: {error}") from None


def _check_name(name: str, where: str) -> None:
    if not NAME.fullmatch(name):
        raise Invalid(f"{where}: the name of a catalog must be letters, digits, '_' or '-', at most 100")
    if name in REST_WORDS:
        raise Invalid(f"{where}: {name} is a word of the paths at /iceberg: choose another name for the catalog")
    if name == SQL_CATALOG:
        raise Invalid(f"{where}: {SQL_CATALOG} is the catalog beside the metadata: choose another name")
