"""Avro schemas as the registry takes them in: hostile JSON in, one canonical text out, or Invalid.

Two texts that differ only in white space, in the order of attributes or in the short spelling of a primitive are the
same schema and get the same id; docs, defaults and properties count, as at Confluent. A schema is accepted only if both
readers of it agree: Apache's `avro`, which decides compatibility, and `fastavro`, which reads the values.

Everything here may take milliseconds: call it through an Executor. References to other subjects are not resolved.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import avro.errors
import avro.schema
import fastavro
import msgspec

from streamlake.core.errors import Invalid

# A warning for each text that a client sends would be kept by Python for ever, once it was printed.
warnings.filterwarnings("ignore", category=avro.errors.AvroWarning)

DEPTH_MAX = 64
NODES_MAX = 10_000  # JSON values of one schema
COMPARISONS_MAX = 50_000  # compatibility compares every branch of a union with every branch: half a second at most

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
NAMED = frozenset({"record", "enum", "fixed"})
SCHEMA_ORDER = (
    "type",
    "name",
    "namespace",
    "doc",
    "aliases",
    "fields",
    "symbols",
    "items",
    "values",
    "size",
    "default",
)
FIELD_ORDER = ("name", "type", "doc", "default", "order", "aliases")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parse_schema(text: str, normalize: bool = False) -> str:
    """The canonical text. `normalize` also puts properties that Avro does not know in alphabetical order."""
    try:
        tree = msgspec.json.decode(text)
        _check_size(tree)
        canonical = msgspec.json.encode(_Canonical(normalize).schema(tree, "", "schema")).decode()
        read_schema(canonical)
        fastavro.parse_schema(msgspec.json.decode(canonical), _write_hint=False)
    except msgspec.MsgspecError as error:
        raise Invalid(f"the schema is not JSON: {error}") from None
    except RecursionError:
        raise Invalid(f"the schema is nested more than {DEPTH_MAX} levels deep") from None
    except Invalid:
        raise
    except Exception as error:  # fastavro fails on foreign input with whatever it stumbles over
        raise Invalid(f"not a valid Avro schema: {error}") from None
    return canonical


def read_schema(canonical: str) -> avro.schema.Schema:
    """The schema behind a canonical text, for compatibility.py."""
    try:
        return avro.schema.parse(canonical)
    except (avro.errors.AvroException, AttributeError, TypeError, ValueError) as error:
        raise Invalid(f"not a valid Avro schema: {error}") from None


def _check_size(tree: Any) -> None:
    """Without recursion: this is what makes recursion safe for all who come after."""
    nodes, level, depth = 0, [tree], 0
    while level:
        depth += 1
        nodes += len(level)
        if depth > DEPTH_MAX:
            raise Invalid(f"the schema is nested more than {DEPTH_MAX} levels deep")
        if nodes > NODES_MAX:
            raise Invalid(f"the schema has more than {NODES_MAX} elements")
        level = [child for node in level for child in _children(node)]


def _children(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        yield from node.values()
    elif isinstance(node, list):
        yield from node


class _Canonical:
    """Writes a schema tree anew. `where` is the path that error messages name."""

    def __init__(self, normalize: bool) -> None:
        self._normalize = normalize
        self._comparisons = 0

    def schema(self, node: Any, namespace: str, where: str) -> Any:
        if isinstance(node, str):
            return node
        if isinstance(node, list):
            return self._union(node, namespace, where)
        if not isinstance(node, dict):
            raise Invalid(f"{where}: a schema is a name, an object or a list (a union), not {node!r}")
        kind = node.get("type")
        if isinstance(kind, dict | list) and len(node) == 1:
            return self.schema(kind, namespace, where)  # {"type": {...}}: an extra pair of braces
        if not isinstance(kind, str):
            raise Invalid(f'{where}: "type" is missing or no name')
        if kind in PRIMITIVES and len(node) == 1:
            return kind
        if kind == "error":
            raise Invalid(f'{where}: "error" belongs into protocols, a schema for messages is a "record"')
        return self._complex(dict(node), kind, namespace, where)

    def _union(self, branches: list[Any], namespace: str, where: str) -> list[Any]:
        if not branches:
            raise Invalid(f"{where}: a union needs a branch")
        self._comparisons += len(branches) ** 2
        if self._comparisons > COMPARISONS_MAX:
            raise Invalid(
                f"{where}: this union, of {len(branches)} branches, makes the schema too large to be compared"
            )
        return [self.schema(branch, namespace, f"{where}[{n}]") for n, branch in enumerate(branches)]

    def _complex(self, node: dict[str, Any], kind: str, namespace: str, where: str) -> dict[str, Any]:
        if kind in NAMED:
            namespace = self._named(node, namespace, where)
        if kind == "record":
            node["fields"] = self._fields(node.get("fields"), namespace, where)
        elif kind == "enum" and not _is_names(node.get("symbols")):
            raise Invalid(f'{where}: "symbols" of an enum is a list of names')
        elif kind == "array":
            node["items"] = self.schema(node.get("items"), namespace, f"{where}.items")
        elif kind == "map":
            node["values"] = self.schema(node.get("values"), namespace, f"{where}.values")
        return self._ordered(node, SCHEMA_ORDER)

    def _named(self, node: dict[str, Any], namespace: str, where: str) -> str:
        """The namespace inside. Aliases become full names: then they mean the same to every reader."""
        name, own = node.get("name"), node.get("namespace")
        if not isinstance(name, str) or not all(_NAME.fullmatch(part) for part in name.split(".")):
            raise Invalid(f'{where}: "name" {name!r} is missing or no name')
        if own is not None and not isinstance(own, str):
            raise Invalid(f'{where}: "namespace" is text')
        inside = name.rpartition(".")[0] if "." in name else (namespace if own is None else own)
        aliases = node.get("aliases")
        if aliases is not None:
            if not _is_texts(aliases):
                raise Invalid(f'{where}: "aliases" is a list of names')
            node["aliases"] = [f"{inside}.{alias}" if inside and "." not in alias else alias for alias in aliases]
        return inside

    def _fields(self, fields: Any, namespace: str, where: str) -> list[Any]:
        if not isinstance(fields, list):
            raise Invalid(f'{where}: "fields" of a record is a list')
        return [self._field(field, namespace, f"{where}.fields[{n}]") for n, field in enumerate(fields)]

    def _field(self, field: Any, namespace: str, where: str) -> dict[str, Any]:
        if not isinstance(field, dict):
            raise Invalid(f"{where}: a field is an object, not {field!r}")
        name = field.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise Invalid(f'{where}: "name" {name!r} is missing or no name')
        if "aliases" in field and not _is_texts(field["aliases"]):
            raise Invalid(f'{where}: "aliases" is a list of names')
        typed = {**field, "type": self.schema(field.get("type"), namespace, f"{where} ({name})")}
        return self._ordered(typed, FIELD_ORDER)

    def _ordered(self, node: Mapping[str, Any], order: tuple[str, ...]) -> dict[str, Any]:
        known = {key: node[key] for key in order if key in node}
        others = [key for key in node if key not in known]
        return known | {key: node[key] for key in (sorted(others) if self._normalize else others)}


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_names(value: Any) -> bool:
    return _is_texts(value) and all(_NAME.fullmatch(item) for item in value)
