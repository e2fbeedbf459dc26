"""Avro schemas as the registry takes them in: hostile JSON in, one canonical text out, or Invalid.

Two texts that differ only in white space, in the order of attributes or in the short spelling of a primitive are the
same schema and get the same id; docs, defaults and properties count, as at Confluent. A schema is accepted only if both
readers of it agree: Apache's `avro`, which decides compatibility, and `fastavro`, which reads the values.

Everything here may take milliseconds: call it through an Executor. References to other subjects are not resolved.
"""

import re
import warnings
from collections.abc import Mapping
from typing import Any

import avro.errors
import avro.name
import avro.schema
import fastavro
import msgspec
from fastavro.schema import UnknownType

from streamlake.core.errors import Invalid
from streamlake.registry.avro.types import LEVELS_MAX, check_json, check_types, understood

# A warning for each text that a client sends would be kept by Python for ever, once it was printed.
warnings.filterwarnings("ignore", category=avro.errors.AvroWarning)

ERROR_CHARS_MAX = 1_000
COMPARISONS_MAX = 50_000  # compatibility compares every branch of a union with every branch: half a second at most

NAMED = frozenset({"record", "enum", "fixed"})
COMPLEX = NAMED | {"array", "map", "error"}
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
        check_json(tree)
        canonical = _Canonical(normalize).schema(tree, "", "schema")
        plain = understood(canonical)
        check_types(fastavro.parse_schema(plain, _write_hint=False))
        _read(plain)
        return msgspec.json.encode(canonical).decode()
    except msgspec.MsgspecError as error:
        raise Invalid(f"the schema is not JSON: {error}") from None
    except RecursionError:
        raise Invalid(f"the schema is nested more than {LEVELS_MAX} levels deep") from None
    except Invalid:
        raise
    except UnknownType as error:
        raise Invalid(f"not a valid Avro schema: it names a type before it is defined: {_short(error)}") from None
    except Exception as error:  # fastavro fails on foreign input with whatever it stumbles over
        raise Invalid(f"not a valid Avro schema: {_short(error)}") from None


def read_schema(canonical: str) -> avro.schema.Schema:
    """The schema behind a canonical text, for compatibility.py."""
    return _read(understood(msgspec.json.decode(canonical)))


def _read(tree: Any) -> avro.schema.Schema:
    try:
        return avro.schema.make_avsc_object(tree, avro.name.Names())
    except (avro.errors.AvroException, AttributeError, TypeError, ValueError) as error:
        raise Invalid(f"not a valid Avro schema: {_short(error)}") from None


def _short(error: Exception) -> str:
    """Apache's errors repeat the whole schema once for each level."""
    text = str(error)
    return text if len(text) <= ERROR_CHARS_MAX else f"{text[:100]} … {text[100 - ERROR_CHARS_MAX :]}"


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
        if len(node) == 1 and kind not in COMPLEX:
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
