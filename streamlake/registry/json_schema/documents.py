"""A JSON Schema with all that it refers to: texts into trees, and which schema a `$ref` means.

A schema refers to others by the names of its references, relative to its own `$id` if it has one. Only what was
registered is looked at: nothing is ever fetched. Resolution itself is the library `referencing`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, TypeAlias
from urllib.parse import urljoin

import jsonschema.validators as validators
import jsonschema_specifications
import referencing.exceptions
import referencing.jsonschema
from referencing import Registry, Resource, Specification

from streamlake.core.errors import SHOWN_CHARS_MAX, Invalid
from streamlake.registry.avro.types import LEVELS_MAX, check_json
from streamlake.registry.port import File

Schema: TypeAlias = "bool | dict[str, Any]"

VALUES_MAX = 30_000  # with all that it refers to: four seconds of a processor at most
REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
SCHEMA_URI = re.compile(r"https?://json-schema\.org/(draft-0[467]|draft/2019-09|draft/2020-12)/schema#?")
DEFAULT_DRAFT = "draft-07"  # of a schema without $schema, as Confluent's registry and clients have it

_UNRESOLVED = (
    referencing.exceptions.Unresolvable,
    referencing.exceptions.CannotDetermineSpecification,
    referencing.jsonschema.UnknownDialect,
    ValueError,  # a URI that is none
    LookupError,
    TypeError,
    AttributeError,
)


@dataclass(frozen=True, slots=True)
class Draft:
    """`ref_alone`: what stands beside a `$ref` does not count. `checker` validates schemas; other keywords than
    `keywords` say nothing, and may hold anything."""

    name: str
    checker: Any
    specification: Specification[Any]
    keywords: frozenset[str]
    ref_alone: bool


def _draft(name: str, validator: Any, ref_alone: bool) -> Draft:
    uri = validator.META_SCHEMA.get("$schema")
    # With a registry of its own, as the validator's default one would fetch what it does not know.
    checker = validator(validator.META_SCHEMA, registry=jsonschema_specifications.REGISTRY)
    resolver = jsonschema_specifications.REGISTRY.resolver(uri)
    vocabularies = [resolver.lookup(each["$ref"]).contents for each in validator.META_SCHEMA.get("allOf", ())]
    keywords = frozenset(key for each in (validator.META_SCHEMA, *vocabularies) for key in each["properties"])
    return Draft(name, checker, referencing.jsonschema.specification_with(uri), keywords, ref_alone)


DRAFTS: Mapping[str, Draft] = {
    draft.name: draft
    for draft in (
        _draft("draft-04", validators.Draft4Validator, True),
        _draft("draft-06", validators.Draft6Validator, True),
        _draft("draft-07", validators.Draft7Validator, True),
        _draft("draft/2019-09", validators.Draft201909Validator, False),
        _draft("draft/2020-12", validators.Draft202012Validator, False),
    )
}


class Place(NamedTuple):
    """A schema within a document, and where its references start from."""

    schema: Schema
    resolver: Any


def decode(text: str) -> Schema:
    """The tree of a text. Raises Invalid."""
    try:
        tree = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
    except RecursionError:
        raise Invalid(f"the schema is nested more than {LEVELS_MAX} levels deep") from None
    except ValueError as error:
        raise Invalid(f"the schema is not JSON: {error}") from None
    if not isinstance(tree, dict | bool):
        raise Invalid("a JSON Schema is an object, true or false")
    check_json(tree, VALUES_MAX)
    return tree


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has {twice[:SHOWN_CHARS_MAX]!r} twice")
    return found


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:SHOWN_CHARS_MAX]} is too large a number")
    return number


def draft_of(tree: Schema) -> Draft:
    """Raises Invalid for one that is not supported."""
    uri = tree.get("$schema") if isinstance(tree, dict) else None
    if uri is None:
        return DRAFTS[DEFAULT_DRAFT]
    found = SCHEMA_URI.fullmatch(uri) if isinstance(uri, str) else None
    if found is None:
        raise Invalid(f"$schema {str(uri)[:SHOWN_CHARS_MAX]!r} is not supported: drafts are {', '.join(DRAFTS)}")
    return DRAFTS[found[1]]


class Documents:
    """A schema and the files that it may refer to, by name. Raises Invalid."""

    def __init__(self, tree: Schema, files: Mapping[str, File]) -> None:
        self.draft = draft_of(tree)
        trees = {name: decode(file.text) for name, file in files.items()}
        check_json([tree, *trees.values()], VALUES_MAX)
        self._understood: dict[int, dict[str, Any]] = {}
        resources = {name: draft_of(each).specification.create_resource(each) for name, each in trees.items()}
        root = self.draft.specification.create_resource(tree)
        try:
            registry = self._registry(root, resources)
            self.root = Place(tree, registry.resolver_with_root(root))
        except _UNRESOLVED as error:
            raise Invalid(f"not a valid JSON Schema: {_short(error)}") from None

    @staticmethod
    def _registry(root: Resource[Any], resources: Mapping[str, Resource[Any]]) -> Registry[Any]:
        bases = dict.fromkeys(["", *(found.id() or "" for found in (root, *resources.values()))])
        by_uri = {urljoin(base, name): found for base in bases for name, found in resources.items()}
        by_uri |= {uri: found for found in resources.values() if (uri := found.id())}
        known: Registry[Any] = jsonschema_specifications.REGISTRY
        return known.with_resources(by_uri.items()).crawl()

    def child(self, place: Place, schema: Schema) -> Place:
        """A schema inside that of `place`."""
        if not isinstance(schema, dict):
            return Place(schema, place.resolver)
        return Place(schema, place.resolver.in_subresource(self.draft.specification.create_resource(schema)))

    def targets(self, place: Place) -> list[Place]:
        """What the references of a place mean."""
        if not isinstance(place.schema, dict):
            return []
        return [self._target(place, place.schema[key]) for key in REFERENCES if key in place.schema]

    def _target(self, place: Place, reference: Any) -> Place:
        shown = str(reference)[:SHOWN_CHARS_MAX]
        try:
            found = place.resolver.lookup(reference)
        except _UNRESOLVED:
            raise Invalid(
                f"it refers to {shown!r}, which is neither in the schema nor the name of one of its references: "
                "nothing is fetched, so register it and name it as a reference"
            ) from None
        if not isinstance(found.contents, dict | bool):
            raise Invalid(f"it refers to {shown!r}, which is no schema")
        return Place(found.contents, found.resolver)

    def parts(self, place: Place) -> list[Place]:
        """The schemas that must all hold where `place` does: itself, what it refers to, and those of its `allOf`.
        Keywords beside a `$ref` are left out where they do not count; so are those of other drafts. REFERENCES and
        `allOf` of the parts are dealt with."""
        found: list[Place] = []
        seen: set[int] = set()
        waiting = [place]
        while waiting:
            part = waiting.pop()
            if isinstance(part.schema, dict):
                if id(part.schema) in seen:
                    continue
                seen.add(id(part.schema))
                targets = self.targets(part)
                waiting += targets
                if targets and self.draft.ref_alone:
                    continue
                waiting += [self.child(part, each) for each in reversed(part.schema.get("allOf", ()))]
            found.append(Place(self._keywords(part.schema), part.resolver))
        return found

    def _keywords(self, schema: Schema) -> Schema:
        """Without the keywords of other drafts: the same object each time."""
        if not isinstance(schema, dict) or self.draft.keywords.issuperset(schema):
            return schema
        known = self.draft.keywords
        return self._understood.setdefault(id(schema), {key: schema[key] for key in schema if key in known})

    def check(self) -> None:
        """Every schema that is there or referred to must be one of its draft. Raises Invalid."""
        self._check_schema(self.root.schema)
        seen: set[int] = set()
        targets = list(self._within(self.root, seen))
        while targets:
            target = targets.pop()
            if id(target.schema) not in seen:
                self._check_schema(target.schema)  # an unknown keyword, or a file, may hold anything
                targets += self._within(target, seen)

    def _within(self, place: Place, seen: set[int]) -> Iterator[Place]:
        """The targets of all references in a schema and in those inside it."""
        waiting = [place]
        while waiting:
            one = waiting.pop()
            if not isinstance(one.schema, dict) or id(one.schema) in seen:
                continue
            seen.add(id(one.schema))
            targets = self.targets(one)
            self._check_ends(one, targets)
            yield from targets
            inside = self.draft.specification.create_resource(one.schema).subresources()
            waiting += [self.child(one, each.contents) for each in inside]

    def _check_ends(self, place: Place, targets: list[Place]) -> None:
        """A schema that is only what it refers to, and that is itself, says nothing and never ends."""
        seen: set[int] = set()
        waiting = list(targets)
        while waiting:
            target = waiting.pop()
            if target.schema is place.schema:
                raise Invalid("a $ref leads back to itself with nothing in between")
            if isinstance(target.schema, dict) and id(target.schema) not in seen:
                seen.add(id(target.schema))
                waiting += self.targets(target)

    def _check_schema(self, schema: Schema) -> None:
        error = next(self.draft.checker.iter_errors(schema), None)
        if error is not None:
            where = "/".join(str(step) for step in error.absolute_path)
            raise Invalid(
                f"not a valid JSON Schema of {self.draft.name}: at /{where[:SHOWN_CHARS_MAX]}: {_short(error.message)}"
            )


def _short(error: object) -> str:
    return str(error)[:300]
