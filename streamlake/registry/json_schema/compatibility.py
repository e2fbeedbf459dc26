"""May this JSON Schema follow those? A reader understands a writer if its schema allows all that the writer's allows.

A schema is taken as its parts, which must all hold. Each part of the reader must follow from the parts of the writer: a
keyword of the same kind that asks as much, or a branch of a union. What cannot be shown is refused. Where the reader's
`properties` do not name what the writer may send, the reader's content model decides: open (anything may be there),
closed (`additionalProperties: false`), or partially open (a schema, or patterns). As Confluent's registry has it, a
property may become required if it has a default.
https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/serdes-json.html
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, TypeAlias

from streamlake.core.errors import SHOWN_CHARS_MAX, Invalid
from streamlake.registry import levels
from streamlake.registry.json_schema.documents import REFERENCES, Documents, Place, Schema, decode
from streamlake.registry.levels import Level
from streamlake.registry.port import Document

FAULTS_MAX = 20  # of one comparison; more would not be read
COMPARISONS_MAX = 20_000  # of two schemas inside: two seconds at most
LOOKS_MAX = 100  # at a name and a pattern, that cost as much as a comparison
PATTERN_CHARS_MAX = 200

TYPES = ("null", "boolean", "object", "array", "number", "integer", "string")
_ALL = frozenset(TYPES)
_ONLY: Mapping[str, dict[str, Any]] = {type: {"type": type} for type in TYPES}

# Keywords with a bound: the type they are about, and whether a reader may have it higher or lower.
BOUNDS: tuple[tuple[str, str, bool], ...] = (
    ("maxLength", "string", True),
    ("minLength", "string", False),
    ("maximum", "number", True),
    ("exclusiveMaximum", "number", True),
    ("minimum", "number", False),
    ("exclusiveMinimum", "number", False),
    ("maxItems", "array", True),
    ("minItems", "array", False),
    ("maxContains", "array", True),
    ("minContains", "array", False),
    ("maxProperties", "object", True),
    ("minProperties", "object", False),
)
COUNTED = frozenset({"minLength", "minItems", "minProperties"})  # zero says nothing
UNIONS = ("anyOf", "oneOf")
_IN_PLACE = (*REFERENCES, "allOf", *UNIONS, "not", "if", "dependentSchemas", "dependencies")

Faults: TypeAlias = list[str]
Places: TypeAlias = tuple[Place, ...]


def incompatibilities(level: Level, new: Document, earlier: Sequence[tuple[int, Document]]) -> list[str]:
    """What speaks against `new`, as registry.levels says. Raises Invalid, also for schemas too large to be compared."""
    if level is Level.NONE or not earlier:
        return []
    compared = earlier if level.transitive else earlier[-1:]
    read = [(version, _documents(old)) for version, old in compared]
    return levels.incompatibilities(level, _documents(new), read, _cannot_read)


def _documents(document: Document) -> Documents:
    return Documents(decode(document.text), document.files)


def _cannot_read(reader: Documents, writer: Documents) -> str:
    try:
        faults = _Comparison(reader, writer).accepts(reader.root, (writer.root,), "")
    except RecursionError:
        raise Invalid("the schemas refer to each other too deeply to be compared") from None
    return "; ".join(dict.fromkeys(faults[:FAULTS_MAX]))


class _Comparison:
    """`writer` schemas are lists of which all must hold."""

    def __init__(self, reader: Documents, writer: Documents) -> None:
        self._reader = reader
        self._writer = writer
        self._known: dict[tuple[int, ...], Faults] = {}
        self._patterns: dict[str, re.Pattern[str] | None] = {}
        self._count = 0

    def accepts(self, reader: Place, writer: Places, where: str) -> Faults:
        """Why `reader` does not allow all that `writer` does."""
        if reader.schema is True or reader.schema == {}:
            return []
        key = (id(reader.schema), *(id(place.schema) for place in writer))
        if key in self._known:  # also while it is being compared: then all that is new is inside
            return self._known[key]
        self._spend(1)
        self._known[key] = []
        parts = tuple(part for place in writer for part in self._writer.parts(place))
        faults: Faults = []
        if not any(part.schema is False for part in parts):
            for part in self._reader.parts(reader):
                faults += self._part(part, parts, where, frozenset())
        self._known[key] = faults
        return faults

    def _part(self, reader: Place, writer: Places, where: str, split: frozenset[tuple[int, str]]) -> Faults:
        """`split`: unions of the writer, one of whose branches is among its parts already."""
        if reader.schema is False:
            return [f"{where or '/'} is not allowed any more"]
        if not isinstance(reader.schema, dict):
            return []
        faults = self._keywords(reader, reader.schema, writer, where)
        return self._by_branches(reader, writer, where, split, faults) if faults else []

    def _by_branches(
        self, reader: Place, writer: Places, where: str, split: frozenset[tuple[int, str]], faults: Faults
    ) -> Faults:
        """The same, for each branch of the writer's first union; `faults` if it has none."""
        for place, key, branches in _unions(writer):
            if (id(place.schema), key) not in split:
                below = split | {(id(place.schema), key)}
                for branch in branches:
                    self._spend(1)
                    parts = self._writer.parts(self._writer.child(place, branch))
                    if any(part.schema is False for part in parts):
                        continue
                    if found := self._part(reader, (*writer, *parts), where, below):
                        return found
                return []
        return faults

    def _spend(self, count: int) -> None:
        self._count += count
        if self._count > COMPARISONS_MAX:
            raise Invalid("the schema, and the one it is compared with, have too many parts to be compared")

    def _keywords(self, place: Place, schema: dict[str, Any], writer: Places, where: str) -> Faults:
        others = [part.schema for part in writer if isinstance(part.schema, dict)]
        allowed = _ALL.intersection(*(_types(each) for each in others))
        faults = _types_lost(_types(schema, values=False), allowed, where)
        faults += _bounds(schema, others, allowed, where)
        faults += _values(schema, others, allowed, where)
        if "string" in allowed:
            faults += _pattern(schema, others, where)
        if "object" in allowed:
            faults += self._object(place, schema, writer, where)
        if "array" in allowed:
            faults += self._array(place, schema, writer, where)
        for key in UNIONS:
            if key in schema:
                faults += self._union(place, schema[key], writer, allowed, f"{where}/{key}")
        return faults + self._logic(place, schema, writer, allowed, where)

    def _union(
        self, place: Place, branches: list[Schema], writer: Places, allowed: frozenset[str], where: str
    ) -> Faults:
        """Some branch must allow all that the writer does, or one for each type of it."""
        children = [self._reader.child(place, branch) for branch in branches]
        if any(not self.accepts(child, writer, where) for child in children):
            return []
        if len(allowed) < len(TYPES):
            of_types = [(*writer, Place(_ONLY[type], place.resolver)) for type in sorted(allowed)]
            if all(any(not self.accepts(child, one, where) for child in children) for one in of_types):
                return []
        return [f"{where}: no branch allows all that was allowed"]

    def _logic(
        self, place: Place, schema: dict[str, Any], writer: Places, allowed: frozenset[str], where: str
    ) -> Faults:
        faults: Faults = []
        if "not" in schema:
            forbidden = self._reader.child(place, schema["not"])
            disjoint = isinstance(forbidden.schema, dict) and "type" in forbidden.schema
            if not (disjoint and not _types(forbidden.schema) & allowed) and not any(
                self._swapped().accepts(old, (forbidden,), where) == [] for old in self._inside(writer, "not")
            ):
                faults.append(f"{where}/not forbids what was allowed")
        if "if" in schema and ("then" in schema or "else" in schema):
            same = [
                part for part in writer if isinstance(part.schema, dict) and _same(part.schema.get("if"), schema["if"])
            ]
            for key in ("then", "else"):
                if key in schema:
                    condition = tuple(self._inside(same, "if")) if key == "then" else ()
                    old = (*condition, *self._inside(same, key))
                    if not old or self.accepts(self._reader.child(place, schema[key]), old, f"{where}/{key}"):
                        faults.append(f"{where}/{key} asks for what was not asked for")
        return faults

    def _swapped(self) -> "_Comparison":
        swapped = _Comparison(self._writer, self._reader)
        swapped._count = self._count
        return swapped

    def _inside(self, writer: Iterable[Place], key: str) -> Iterator[Place]:
        """What the writer has under a keyword."""
        for part in writer:
            if isinstance(part.schema, dict) and key in part.schema:
                yield self._writer.child(part, part.schema[key])

    # --- objects

    def _object(self, place: Place, schema: dict[str, Any], writer: Places, where: str) -> Faults:
        objects = [part for part in writer if isinstance(part.schema, dict)]
        faults: Faults = []
        names = dict.fromkeys(schema.get("properties", {}))
        for part in objects:
            names |= dict.fromkeys(part.schema.get("properties", {}))  # type: ignore[union-attr]
        schemas = [schema, *(part.schema for part in objects if isinstance(part.schema, dict))]
        patterns = sum(len(each.get("patternProperties", ())) for each in schemas)
        self._spend(len(names) * (patterns + len(objects)) // LOOKS_MAX)
        for name in names:
            theirs = tuple(
                each for part in objects for each in self._of_property(self._writer, part, name, reader=False)
            )
            for ours in self._of_property(self._reader, place, name, reader=True):
                faults += self.accepts(ours, theirs, f"{where}/properties/{name}")
        for pattern, ours_too in schema.get("patternProperties", {}).items():
            theirs = tuple(_of_pattern(self._writer, part, pattern) for part in objects)
            child = self._reader.child(place, ours_too)
            faults += self.accepts(child, theirs, f"{where}/patternProperties/{pattern}")
        rest = self._reader.child(place, _additional(schema))
        others = tuple(self._writer.child(part, _additional(part.schema)) for part in objects)
        if self.accepts(rest, others, f"{where}/additionalProperties"):
            faults.append(f"{where}/additionalProperties: allows less than before for properties that are not listed")
        if "propertyNames" in schema:
            text = Place(_ONLY["string"], place.resolver)
            child = self._reader.child(place, schema["propertyNames"])
            faults += self.accepts(child, (text, *self._inside(objects, "propertyNames")), f"{where}/propertyNames")
        faults += _required(schema, [part.schema for part in objects], where)
        return faults + self._dependent(place, schema, writer, where)

    def _dependent(self, place: Place, schema: dict[str, Any], writer: Places, where: str) -> Faults:
        faults: Faults = []
        others = [part.schema for part in writer if isinstance(part.schema, dict)]
        for name, needs in _dependencies(schema):
            before = [old for each in others for key, old in _dependencies(each) if key == name]
            if isinstance(needs, list):
                asked = {one for old in before if isinstance(old, list) for one in old}
                asked |= {one for each in others for one in each.get("required", ())}
                if lacking := [one for one in needs if one not in asked]:
                    faults.append(f"{where}: {name} needs {', '.join(map(str, lacking[:5]))} now")
            else:
                old = tuple(self._writer.child(writer[0], each) for each in before if not isinstance(each, list))
                faults += self.accepts(
                    self._reader.child(place, needs), (*writer, *old), f"{where}/dependencies/{name}"
                )
        return faults

    def _of_property(self, documents: Documents, place: Place, name: str, reader: bool) -> list[Place]:
        """The schemas that hold for a property; for a `reader` also those that may."""
        schema = place.schema
        assert isinstance(schema, dict)
        listed = name in schema.get("properties", {})
        found = [schema["properties"][name]] if listed else []
        unclear = False
        for pattern, each in schema.get("patternProperties", {}).items():
            matches = self._matches(pattern, name)
            unclear = unclear or matches is None
            if matches or (matches is None and reader):
                found.append(each)
        if not listed and (not found or unclear) and (reader or not unclear):
            found.append(_additional(schema))
        return [documents.child(place, each) for each in found]

    def _matches(self, pattern: str, name: str) -> bool | None:
        """None if that cannot be known: a pattern may take for ever, or be of a dialect that Python does not know."""
        if pattern not in self._patterns:
            self._patterns[pattern] = _compiled(pattern)
        compiled = self._patterns[pattern]
        return None if compiled is None else compiled.search(name) is not None

    # --- arrays

    def _array(self, place: Place, schema: dict[str, Any], writer: Places, where: str) -> Faults:
        arrays = [part for part in writer if isinstance(part.schema, dict)]
        first, rest = _items(schema)
        theirs = [(part, *_items(part.schema)) for part in arrays]
        faults: Faults = []
        for at in range(max([len(first), *(len(items) for _, items, _ in theirs)])):
            ours = self._reader.child(place, first[at] if at < len(first) else rest)
            old = tuple(
                self._writer.child(part, items[at] if at < len(items) else more) for part, items, more in theirs
            )
            faults += self.accepts(ours, old, f"{where}/items/{at}")
        old = tuple(self._writer.child(part, more) for part, _, more in theirs)
        faults += self.accepts(self._reader.child(place, rest), old, f"{where}/items")
        others = [part.schema for part in arrays]
        if schema.get("uniqueItems") and not any(each.get("uniqueItems") for each in others):  # type: ignore[union-attr]
            faults.append(f"{where}: items must be unique now")
        if "contains" in schema:
            child = self._reader.child(place, schema["contains"])
            if not any(not self.accepts(child, (old,), where) for old in self._inside(arrays, "contains")):
                faults.append(f"{where}/contains: asks for what was not asked for")
        return faults


def _unions(writer: Places) -> Iterator[tuple[Place, str, list[Schema]]]:
    for part in writer:
        if isinstance(part.schema, dict):
            for key in UNIONS:
                if key in part.schema:
                    yield part, key, part.schema[key]


# --- types and values


def _types(schema: Any, values: bool = True) -> frozenset[str]:
    """The types that a schema allows; `values`: also by its enum or const."""
    given = schema.get("type", TYPES)
    found = set([given] if isinstance(given, str) else given)
    if "number" in found:
        found.add("integer")
    if values and (listed := _listed(schema)) is not None:
        found &= {type for value in listed for type in _types_of(value)}
    return frozenset(found)


def _types_of(value: Any) -> tuple[str, ...]:
    match value:
        case None:
            return ("null",)
        case bool():
            return ("boolean",)
        case int():
            return ("integer",)
        case float():
            return ("integer",) if value.is_integer() else ("number",)
        case str():
            return ("string",)
    return ("object",) if isinstance(value, dict) else ("array",)


def _types_lost(reader: frozenset[str], writer: frozenset[str], where: str) -> Faults:
    lost = writer - reader
    if lost == {"number"} and "integer" in reader:
        return [f"{where or '/'} was a number, and is an integer now"]
    if not lost:
        return []
    return [f"{where or '/'} may not be {' or '.join(t for t in TYPES if t in lost)} any more"]


def _listed(schema: dict[str, Any]) -> list[Any] | None:
    """The values that a schema lists, if it does."""
    if "const" in schema:
        return [schema["const"]]
    listed = schema.get("enum")
    return listed if isinstance(listed, list) else None


def _canonical(value: Any) -> str:
    """Equal for equal values: 1.0 is 1."""
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case float() if value.is_integer():
            return int(value)
    return value


def _same(one: Any, other: Any) -> bool:
    return _canonical(one) == _canonical(other)


def _values(schema: dict[str, Any], others: list[Any], allowed: frozenset[str], where: str) -> Faults:
    listed = _listed(schema)
    if listed is None:
        return []
    known = {_canonical(value) for value in listed}
    before = [{_canonical(v) for v in values} for each in others if (values := _listed(each)) is not None]
    if any(values <= known for values in before):
        return []
    if not before:
        all_of_them = {"null": {"null"}, "boolean": {"true", "false"}}
        needed = [all_of_them.get(type) for type in allowed]
        if needed and all(values is not None and values <= known for values in needed):
            return []
        return [f"{where or '/'} may only be one of {len(known)} values now"]
    gone = sorted(before[0] - known)
    return [f"{where or '/'} may not be {', '.join(gone[:5])[:SHOWN_CHARS_MAX]} any more"]


def _bounds(schema: dict[str, Any], others: list[Any], allowed: frozenset[str], where: str) -> Faults:
    faults: Faults = []
    for key, type, may_grow in BOUNDS:
        bound = schema.get(key)
        concerned = type in allowed or (type == "number" and "integer" in allowed)
        if bound is None or not concerned or (key in COUNTED and bound <= 0):
            continue
        if isinstance(bound, bool):  # draft 4: whether `maximum` itself is excluded
            if bound and not any(each.get(key) for each in others):
                faults.append(f"{where}/{key} was not there before")
            continue
        before = [each[name] for each in others for name in _at_least(key) if _is_number(each.get(name))]
        if not before:
            faults.append(f"{where}/{key} was not there before")
        elif (min(before) > bound) if may_grow else (max(before) < bound):
            faults.append(f"{where}/{key} was {before[0]}, and is {bound} now")
    step = schema.get("multipleOf")
    if step is not None and allowed & {"number", "integer"}:
        before = [each["multipleOf"] for each in others if _is_number(each.get("multipleOf"))]
        if not any(_divides(step, one) for one in before) and not (step == 1 and "number" not in allowed):
            faults.append(f"{where}/multipleOf is {step} now")
    return faults


def _at_least(key: str) -> tuple[str, ...]:
    """Keywords that ask for as much."""
    return {"maximum": ("maximum", "exclusiveMaximum"), "minimum": ("minimum", "exclusiveMinimum")}.get(key, (key,))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _divides(step: float, of: float) -> bool:
    return step != 0 and (Fraction(str(of)) / Fraction(str(step))).denominator == 1


def _pattern(schema: dict[str, Any], others: list[Any], where: str) -> Faults:
    pattern = schema.get("pattern")
    if pattern is None or any(each.get("pattern") == pattern for each in others):
        return []
    return [f"{where}/pattern is {str(pattern)[:SHOWN_CHARS_MAX]!r} now"]


# --- properties and items


def _additional(schema: Any) -> Schema:
    """The content model: what properties may be that are not listed."""
    found = schema.get("additionalProperties", _unevaluated(schema, "unevaluatedProperties"))
    return found if isinstance(found, dict | bool) else True


def _unevaluated(schema: dict[str, Any], key: str) -> Any:
    """As good as `additional…` where nothing else of the schema evaluates anything; else it is not looked at."""
    return True if any(other in schema for other in _IN_PLACE) else schema.get(key, True)


def _of_pattern(documents: Documents, place: Place, pattern: str) -> Place:
    schema = place.schema
    assert isinstance(schema, dict)
    patterns = schema.get("patternProperties", {})
    return documents.child(place, patterns[pattern] if pattern in patterns else _additional(schema))


def _compiled(pattern: str) -> re.Pattern[str] | None:
    if len(pattern) > PATTERN_CHARS_MAX or sum(pattern.count(sign) for sign in "*+{?") > 1:
        return None
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return None


def _required(schema: dict[str, Any], others: list[Any], where: str) -> Faults:
    required = schema.get("required")
    if not isinstance(required, list):
        return []
    before = {name for each in others for name in each.get("required", ())}
    properties = schema.get("properties", {})
    faults = []
    for name in required:
        own = properties.get(name)
        if name not in before and not (isinstance(own, dict) and "default" in own):
            faults.append(f"{where}/properties/{name} is required now, and has no default")
    return faults


def _dependencies(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key in ("dependencies", "dependentRequired", "dependentSchemas"):
        yield from schema.get(key, {}).items()


def _items(schema: Any) -> tuple[list[Schema], Schema]:
    """The schemas of the first items, and that of the others."""
    items = schema.get("items")
    rest = _unevaluated(schema, "unevaluatedItems")
    if "prefixItems" in schema:
        return schema["prefixItems"], rest if items is None else items
    if isinstance(items, list):
        return items, schema.get("additionalItems", rest)
    # Without `items` it says nothing, but Confluent's registry compares it.
    return [], schema.get("additionalItems", rest) if items is None else items
