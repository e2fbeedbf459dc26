"""Random Avro schemas as people write them: with names, namespaces, aliases, docs, defaults, and logical types that make
sense or none. All chance comes from the `rng`.
"""

import random
from typing import Any

from support.avro_random import RandomAvro

LOGICAL = ["decimal", "uuid", "date", "time-millis", "time-micros", "timestamp-millis", "timestamp-nanos", "duration"]
LOGICAL += ["local-timestamp-micros", "big-decimal", "no-such", "", 5, None, True, [], {"x": 1}]
PRECISIONS = [3, 3, 10, 38, 39, 0, -1, 5.0, "5", None, True, 2**31, [5], {}]
SCALES = [0, 2, 3, 4, 11, -1, 1.0, "2", None, True, 2**40]
WORDS = ["record", "enum", "fixed", "array", "map", "error", "union", "value", "_kafka", "F0", "f0", "x" * 300]
SPACES = ["", "a", "a.b", "fixed", "x.y"]


class DressedAvro:
    """`schema` has no odd size: sizes are limited where they are tested."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._known: list[str] = []  # full names, defined before
        self._words = rng.sample(WORDS, len(WORDS))

    def schema(self, depth: int = 3) -> Any:
        return self._dress(RandomAvro(self._rng).schema(depth), "", reference=False)

    def _dress(self, schema: Any, space: str, reference: bool = True) -> Any:
        rng = self._rng
        if isinstance(schema, list):
            return [self._dress(branch, space, reference=False) for branch in schema]
        if reference and self._known and rng.random() < 0.07:
            return rng.choice(self._known)
        if isinstance(schema, str):
            if rng.random() < 0.7:
                return schema
            return self._attributes({"type": schema})
        schema = dict(schema)
        if schema["type"] in ("record", "enum", "fixed"):
            space = self._named(schema, space)
        if schema["type"] == "fixed" and rng.random() < 0.3:
            schema["size"] = rng.choice((0, 1, 2, 12, 16))
        if schema["type"] == "record":
            taken = {field["name"] for field in schema["fields"]}
            schema["fields"] = [self._field(field, space, taken) for field in schema["fields"]]
        for key in ("items", "values"):
            if key in schema:
                schema[key] = self._dress(schema[key], space)
        return self._attributes(schema) if rng.random() < 0.5 else schema

    def _named(self, schema: dict[str, Any], space: str) -> str:
        """Gives it a name; the namespace inside."""
        rng = self._rng
        if self._words and rng.random() < 0.2:
            schema["name"] = self._words.pop()
        match rng.choice(("plain", "plain", "space", "dotted")):
            case "space":
                space = schema["namespace"] = rng.choice(SPACES)
            case "dotted":
                space = rng.choice(SPACES[1:])
                schema["name"] = f"{space}.{schema['name']}"
        if rng.random() < 0.2:
            schema["aliases"] = rng.choice(([], ["Old"], ["z.Old", "Old", "Old"]))
        short = schema["name"].rpartition(".")[2]
        if short not in WORDS:  # fastavro itself cannot read a reference to a type called "record"
            self._known.append(f"{space}.{short}" if space else short)
        return space

    def _field(self, field: dict[str, Any], space: str, taken: set[str]) -> dict[str, Any]:
        rng = self._rng
        field = {**field, "type": self._dress(field["type"], space)}
        if rng.random() < 0.2 and (name := rng.choice(WORDS)) not in taken:
            taken.add(name)
            field["name"] = name
        if rng.random() < 0.1:
            field["order"] = rng.choice(("ascending", "descending", "ignore", "no-order"))
        if rng.random() < 0.2:
            field["aliases"] = rng.choice(([], ["old"], ["old", "f0"]))
        if rng.random() < 0.1:
            field["default"] = rng.choice((None, None, 0, -1, 1.5, True, "", "A", "ÿ", [], {}, {"n": None}, 2**70))
        if rng.random() < 0.2:
            field["doc"] = rng.choice(("about it", "", 5, None))
        return self._attributes(field) if rng.random() < 0.2 else field

    def _attributes(self, schema: dict[str, Any]) -> dict[str, Any]:
        rng = self._rng
        more: dict[str, Any] = {}
        if rng.random() < 0.8:
            more["logicalType"] = rng.choice(LOGICAL)
        if more.get("logicalType") == "decimal" or rng.random() < 0.2:
            more["precision"] = rng.choice(PRECISIONS)
        if rng.random() < 0.4:
            more["scale"] = rng.choice(SCALES)
        if rng.random() < 0.2:
            more["doc"] = rng.choice(("about it", 5, None))
        if rng.random() < 0.2:
            more["connect.version"] = rng.choice((1, {"a": [1]}, None))
        return {**schema, **more}


class Usual(random.Random):
    """Chance that keeps clear of what RandomAvro does seldom: odd values."""

    def random(self) -> float:
        return 0.04 + 0.85 * super().random()
