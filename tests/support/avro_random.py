"""Random Avro schemas and bytes of their values, odd ones among them. All chance comes from the `rng`.

Faster than avro_cases.py and with more that is wrong, but without knowing what a table must show.
"""

import random
import struct
import uuid
from typing import Any

ODD_LONGS = [0, 1, -1, 63, 64, -65, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63 - 1, -(2**63), 719_163, -719_163]
DAY = 86_400_000_000
TIMES = [0, DAY - 1, DAY, -1, 999, 1_000, -719_162 * DAY, -719_162 * DAY - 1, 2_932_897 * DAY - 1, 2_932_897 * DAY]
TEXTS = [
    b"",
    b"a",
    "é€\U0001f600".encode(),
    b"x" * 40,
    b"\xff",
    b"\xed\xa0\x80",
    b"\xc0\x80",
    b"\xf4\x90\x80\x80",
    b"\0",
]
UUIDS = [str(uuid.UUID(int=n)).encode() for n in (0, 2**128 - 1, 12345)]
UUIDS += [UUIDS[1].upper(), UUIDS[1].replace(b"-", b""), b"{" + UUIDS[1] + b"}", b"urn:uuid:" + UUIDS[2], b"g" * 36]
LEAVES: list[Any] = [
    "boolean",
    "int",
    "long",
    "float",
    "double",
    "bytes",
    "string",
    {"type": "fixed", "size": 3},
    {"type": "fixed", "size": 16, "logicalType": "uuid"},
    {"type": "fixed", "size": 12, "logicalType": "duration"},
    {"type": "fixed", "size": 5, "logicalType": "decimal", "precision": 11, "scale": 3},
    {"type": "fixed", "size": 20, "logicalType": "decimal", "precision": 38, "scale": 0},
    {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2},
    {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 38},
    {"type": "enum", "symbols": ["A", "B", "C"]},
    {"type": "int", "logicalType": "date"},
    {"type": "int", "logicalType": "time-millis"},
    {"type": "string", "logicalType": "uuid"},
    *(
        {"type": "long", "logicalType": f"{local}timestamp-{unit}"}
        for local in ("", "local-")
        for unit in ("millis", "micros", "nanos")
    ),
    {"type": "long", "logicalType": "time-micros"},
]


class RandomAvro:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._names = 0

    def schema(self, depth: int = 3) -> Any:
        kinds = ["leaf"] * 3 + (["record", "record", "optional", "union", "array", "map"] if depth else [])
        match self._rng.choice(kinds):
            case "leaf":
                leaf = self._rng.choice(LEAVES)
                named = isinstance(leaf, dict) and leaf["type"] in ("fixed", "enum")
                return {**leaf, "name": self._name()} if named else leaf
            case "record":
                kinds = [self.schema(depth - 1) for _ in range(self._rng.randrange(1, 5))]
                kinds += self._rng.choice(([], [], ["null"], [["null"]], [self.empty()], [["null", self.empty()]]))
                self._rng.shuffle(kinds)
                fields = [{"name": f"f{i}", "type": kind} for i, kind in enumerate(kinds)]
                return {"type": "record", "name": self._name(), "fields": fields}
            case "optional":
                inner = self.schema(depth - 1)
                inner = "int" if isinstance(inner, list) else inner
                return self._rng.choice((["null", inner], [inner, "null"], [inner]))
            case "union":
                branches = ["null", "int", "string", self.empty(), {"type": "array", "items": self.schema(depth - 1)}]
                branches.append({"type": "record", "name": self._name(), "fields": [{"name": "n", "type": ["null"]}]})
                return self._rng.sample(branches, self._rng.randrange(3, len(branches) + 1))
            case "array":
                return {"type": "array", "items": self.schema(depth - 1)}
        return {"type": "map", "values": self.schema(depth - 1)}

    def empty(self) -> Any:
        return {"type": "record", "name": self._name(), "fields": []}

    def value(self, schema: Any) -> bytes:
        rng = self._rng
        if isinstance(schema, list):
            branch = rng.randrange(len(schema)) if rng.random() < 0.99 else rng.choice((-1, len(schema)))
            return zigzag(branch) + (self.value(schema[branch]) if 0 <= branch < len(schema) else b"")
        kind = schema if isinstance(schema, str) else schema["type"]
        logical = schema.get("logicalType", "") if isinstance(schema, dict) else ""
        match kind:
            case "boolean":
                return bytes([rng.choice((0, 1) if rng.random() < 0.98 else (2, 255))])
            case "int" | "long":
                return zigzag(self._number(kind, logical))
            case "float":
                return struct.pack("<f", rng.choice((0.0, -1.5, float("inf"), float("nan"), rng.random())))
            case "double":
                return struct.pack("<d", rng.choice((0.0, -1.5, float("inf"), float("nan"), rng.random())))
            case "bytes":
                return sized(rng.randbytes(rng.randrange(2 if rng.random() < 0.9 else 20)))
            case "string" if logical == "uuid":
                return sized(rng.choice(UUIDS[:3] if rng.random() < 0.9 else UUIDS))
            case "string":
                return sized(rng.choice(TEXTS[:4] if rng.random() < 0.97 else TEXTS))
            case "fixed":
                few = logical == "decimal" and rng.random() < 0.9
                if not few or not schema["size"]:
                    return rng.randbytes(schema["size"])
                fitting = (0, 1, -1, 10**6 if schema["size"] > 2 and schema["precision"] > 6 else 100)
                return rng.choice(fitting).to_bytes(schema["size"], "big", signed=True)
            case "enum":
                return zigzag(rng.choice((0, 1, 2) if rng.random() < 0.98 else (-1, 3)))
            case "array":
                return self._blocks(lambda _: self.value(schema["items"]))
            case "map":
                key = (lambda n: b"k%d" % n) if rng.random() < 0.9 else (lambda _: rng.choice(TEXTS))
                return self._blocks(lambda n: sized(key(n)) + self.value(schema["values"]))
            case "record":
                return b"".join(self.value(field["type"]) for field in schema["fields"])
        return b""

    def _number(self, kind: str, logical: str) -> int:
        rng = self._rng
        odd = rng.random() < 0.03
        if logical == "date":
            return rng.choice(ODD_LONGS if odd else (0, 20_000, -719_162, 2_932_896))
        if logical:
            unit = {"millis": 1_000, "micros": 1, "nanos": 1}[logical.rpartition("-")[2]]
            times = TIMES if odd else TIMES[:2] if logical.startswith("time-") else TIMES[:7]
            return rng.choice(times) // unit * (1_000 if logical.endswith("nanos") and rng.random() < 0.1 else 1)
        if odd or kind == "long":
            return rng.choice(ODD_LONGS)
        return rng.choice(ODD_LONGS[:7])

    def _blocks(self, item: Any) -> bytes:
        out, number = b"", 0
        while self._rng.random() < 0.6:
            count = self._rng.choice((1, 2, 3, 12))
            items = b"".join(item(number + i) for i in range(count))
            number += count
            out += zigzag(-count) + zigzag(len(items)) if self._rng.random() < 0.3 else zigzag(count)
            out += items
        return out + b"\0"

    def _name(self) -> str:
        self._names += 1
        return f"N{self._names}"


def zigzag(number: int) -> bytes:
    bits = number << 1 if number >= 0 else (-number << 1) - 1
    out = bytearray()
    while bits > 0x7F:
        out.append(bits & 0x7F | 0x80)
        bits >>= 7
    out.append(bits)
    return bytes(out)


def sized(data: bytes) -> bytes:
    return zigzag(len(data)) + data
