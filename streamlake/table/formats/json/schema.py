"""A JSON Schema → the plan of its values: which columns they make.

Types, `properties`, `items`, `additionalProperties`, enums, `$ref` and `allOf` decide; values are not validated any
further. What says several things at once (unions of several types, tuples, patterns, objects without a list of
properties, recursion) is kept as JSON text. See docs/guides/types.md.
"""

from collections.abc import Iterable
from typing import Any

from streamlake.core.errors import Invalid
from streamlake.registry.avro.types import LEVELS_MAX, TYPES_MAX
from streamlake.registry.json_schema.documents import Documents, Place, Schema
from streamlake.table.formats.json.native import Op, Plan, PlanField

TYPES = frozenset({"null", "boolean", "object", "array", "number", "integer", "string"})
JSON_TEXT = Plan(Op.JSON)
NOTHING = Plan(Op.NOTHING)

# By the types that a value may be of, other than null.
_LEAVES: dict[frozenset[str], Plan] = {
    frozenset(): NOTHING,
    frozenset({"boolean"}): Plan(Op.BOOLEAN),
    frozenset({"integer"}): Plan(Op.LONG),
    frozenset({"number"}): Plan(Op.DOUBLE),
    frozenset({"number", "integer"}): Plan(Op.DOUBLE),
    frozenset({"string"}): Plan(Op.TEXT),
}


def plan_of(documents: Documents) -> Plan:
    """Raises Invalid, saying why values of this schema cannot go to a table."""
    try:
        return _Compiler(documents).plan(documents.root, 1)
    except RecursionError:
        raise Invalid(f"the JSON Schema is nested more than {LEVELS_MAX} levels deep") from None


class _Compiler:
    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._open: list[int] = []  # the schemas around this one, to see recursion
        self._types = 0

    def plan(self, place: Place, level: int) -> Plan:
        return self._described(place, level) or JSON_TEXT

    def _described(self, place: Place, level: int) -> Plan | None:
        """None if the schema does not say of what type its values are."""
        self._types += 1
        if self._types > TYPES_MAX:
            raise Invalid(f"the JSON Schema has more than {TYPES_MAX:,} types when its references are written out")
        if level > LEVELS_MAX:
            raise Invalid(f"the JSON Schema is nested more than {LEVELS_MAX} levels deep")
        places = self._documents.parts(place)
        if any(part.schema is False for part in places):
            return NOTHING
        parts = [part for part in places if isinstance(part.schema, dict)]
        within = [id(part.schema) for part in parts]
        if any(one in self._open for one in within):
            return JSON_TEXT
        self._open += within
        found = [self._own(parts, level)]
        for part in parts:
            assert isinstance(part.schema, dict)
            found += [self._union(part, part.schema[key], level) for key in ("anyOf", "oneOf") if key in part.schema]
        del self._open[len(self._open) - len(within) :]
        return _merged([plan for plan in found if plan is not None])

    def _union(self, part: Place, branches: list[Schema], level: int) -> Plan | None:
        """None if no branch says anything; branches of one type are of that type, and null makes it optional."""
        found = [self._described(self._documents.child(part, branch), level) for branch in branches]
        said = [plan for plan in found if plan is not None]
        if not said:
            return None
        some = [plan for plan in said if plan.op != Op.NOTHING]
        if not some:
            return NOTHING
        if len(said) < len(found):
            return JSON_TEXT
        if {plan.op for plan in some} == {Op.LONG, Op.DOUBLE}:
            return Plan(Op.DOUBLE)
        return some[0] if all(plan == some[0] for plan in some) else JSON_TEXT

    def _own(self, parts: list[Place], level: int) -> Plan | None:
        """By the keywords of the parts themselves."""
        schemas = [part.schema for part in parts if isinstance(part.schema, dict)]
        types = _types(schemas)
        if types is None:
            return None
        types -= {"null"}
        if types == {"object"}:
            return self._object(parts, level)
        if types == {"array"}:
            return self._array(parts, level)
        return _LEAVES.get(frozenset(types), JSON_TEXT)

    def _object(self, parts: list[Place], level: int) -> Plan:
        fields: dict[str, tuple[Plan, str | None]] = {}
        closed = False
        others: list[Plan | None] = []
        for part in parts:
            assert isinstance(part.schema, dict)
            for name, schema in part.schema.get("properties", {}).items():
                plan = self.plan(self._documents.child(part, schema), level + 1)
                if name in fields and fields[name][0] != plan:
                    plan = JSON_TEXT
                fields[name] = (plan, _doc(schema))
            additional = part.schema.get("additionalProperties", True)
            closed = closed or additional is False
            if isinstance(additional, dict):
                others.append(self._described(self._documents.child(part, additional), level + 2))
            if part.schema.get("patternProperties"):
                others += [None, None]
        if any(plan.type is not None for plan, _ in fields.values()):
            return Plan(Op.STRUCT, tuple(PlanField(name, plan, doc) for name, (plan, doc) in fields.items()))
        if fields or len(others) != 1:
            return NOTHING if closed and not others else JSON_TEXT
        (value,) = others
        return Plan(Op.MAP, child=value) if value is not None and value.type is not None else JSON_TEXT

    def _array(self, parts: list[Place], level: int) -> Plan:
        items = []
        for part in parts:
            assert isinstance(part.schema, dict)
            if "prefixItems" in part.schema or isinstance(part.schema.get("items"), list):
                return JSON_TEXT
            if "items" in part.schema:
                items.append(self._described(self._documents.child(part, part.schema["items"]), level + 2))
        if len(items) != 1 or items[0] is None or items[0].type is None:
            return JSON_TEXT
        return Plan(Op.LIST, child=items[0])


def _doc(schema: Schema) -> str | None:
    doc = schema.get("description") if isinstance(schema, dict) else None
    return doc if isinstance(doc, str) else None


def _types(schemas: list[dict[str, Any]]) -> set[str] | None:
    """The types that all allow, by `type`, `enum` and `const`, or else by keywords about one type."""
    found: set[str] | None = None
    for schema in schemas:
        for types in _said(schema):
            found = types if found is None else found & types
    if found is None and any("properties" in schema for schema in schemas):
        return {"object"}
    if found is None and any("items" in schema or "prefixItems" in schema for schema in schemas):
        return {"array"}
    return found


def _said(schema: dict[str, Any]) -> Iterable[set[str]]:
    if "type" in schema:
        given = schema["type"]
        types = {given} if isinstance(given, str) else set(given)
        yield types | {"integer"} if "number" in types else types
    if "const" in schema:
        yield _types_of(schema["const"])
    if isinstance(schema.get("enum"), list):
        yield {type for value in schema["enum"] for type in _types_of(value)}


def _types_of(value: Any) -> set[str]:
    match value:
        case None:
            return {"null"}
        case bool():
            return {"boolean"}
        case int():
            return {"integer"}
        case float():
            return {"number", "integer"} if value.is_integer() else {"number"}
        case str():
            return {"string"}
    return {"object"} if isinstance(value, dict) else {"array"}


def _merged(plans: list[Plan]) -> Plan | None:
    """What holds several descriptions of the same values."""
    if not plans:
        return None
    first = plans[0]
    return first if all(plan == first for plan in plans) else JSON_TEXT
