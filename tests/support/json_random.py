"""Plans of JSON values of any shape, and texts: mostly values of the plan, some of them not."""

import json
import random

from streamlake.table.formats.json.native import Op, Plan, PlanField

KEYS = ["a", "b", "aa", "id", "ünï", "x y", "", "_rest", "long" * 20, 'quo"te', "e\\s", "n\n"]
LEAVES = [Op.BOOLEAN, Op.LONG, Op.DOUBLE, Op.TEXT, Op.JSON]
NUMBERS = [
    "0", "-0", "1", "-1", "9007199254740992", "9007199254740993", "-9007199254740993", "9223372036854775807",
    "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "18446744073709551616", "1" * 40, "1" * 400,
    "1.0", "-0.0", "1.5", "0.1", "1e3", "1E+2", "1e-2", "2.5e22", "1e23", "123456789012345678901234567890e-20", "5e-324",
    "1e308", "1e309", "-1e400", "0.000000000000000000000000000000000001", "9007199254740991.0", "9007199254740992.0",
    "1.7976931348623157e308", "2.2250738585072011e-308", "0." + "1" * 80,
]  # fmt: skip
TEXTS = [
    '""', '"plain"', '"ünï"', '"\\u00fc"', '"\\ud83d\\ude00"', '"\\ud800"', '"\\udc00x"', '"\\n\\t\\b\\f\\r\\/\\\\\\""',
    '"\\u0000"', '"' + "x" * 100 + '"', '"' + "y" * 7 + '\\"' + "z" * 9 + '"', '"2026-03-01"', '"\\ud800\\u0041"', '"\U0001f600"',
]  # fmt: skip
BROKEN = [
    "", "nul", "tru", "True", "NaN", "Infinity", "-", "01", "1.", ".5", "1e", "+1", "0x1", '"', '"\\x"', '"\\u12"', '"a\tb"',
    "[", "[1,]", "[,]", "{", '{"a"}', '{"a":}', '{"a":1,}', "{1:2}", "'a'", "//", "1 2", "{} {}", "[]]", '"\\', "\ufeff1",
]  # fmt: skip


class RandomJson:
    def __init__(self, rng: random.Random) -> None:
        self._r = rng

    def plan(self, rest: bool, levels: int = 4) -> Plan:
        """Of an object if it has a rest."""
        if rest:
            fields = self._fields(levels)
            return Plan(Op.STRUCT, (*fields, PlanField("_rest", Plan(Op.REST))), rest=True)
        return self._any(levels)

    def _any(self, levels: int) -> Plan:
        kind = self._r.choice([*LEAVES, Op.STRUCT, Op.STRUCT, Op.LIST, Op.MAP]) if levels else self._r.choice(LEAVES)
        if kind in (Op.LIST, Op.MAP):
            return Plan(kind, child=self._any(levels - 1))
        return Plan(kind, self._fields(levels)) if kind == Op.STRUCT else Plan(kind)

    def _fields(self, levels: int) -> tuple[PlanField, ...]:
        names = [name for name in self._r.sample(KEYS, self._r.randint(1, 6)) if name != "_rest"]
        fields = [PlanField(name, self._any(levels - 1)) for name in names]
        fields.append(PlanField("leaf", Plan(self._r.choice(LEAVES))))  # else there might be no column
        if self._r.random() < 0.3:
            fields.append(PlanField("nothing", Plan(Op.NOTHING)))
        self._r.shuffle(fields)
        return tuple(fields)

    def text(self, plan: Plan, errors: float = 0.1) -> str:
        """`errors`: how many values are anything else."""
        r = self._r
        if r.random() < errors:
            return self.anything(2)
        if r.random() < 0.05:
            return "null"
        match plan.op:
            case Op.BOOLEAN:
                return r.choice(["true", "false"])
            case Op.LONG:
                return (
                    str(r.randint(-(10 ** r.randint(1, 19)), 10 ** r.randint(1, 18)))
                    if r.random() < 0.7
                    else r.choice(NUMBERS)
                )
            case Op.DOUBLE:
                return repr(r.uniform(-1, 1) * 10 ** r.randint(-30, 30)) if r.random() < 0.7 else r.choice(NUMBERS)
            case Op.TEXT:
                return r.choice(TEXTS)
            case Op.LIST:
                assert plan.child is not None
                return self._joined("[", [self.text(plan.child, errors) for _ in range(r.randint(0, 3))], "]")
            case Op.MAP:
                assert plan.child is not None
                keys = [r.choice(KEYS) for _ in range(r.randint(0, 3))]
                return self._joined("{", [self._pair(key, self.text(plan.child, errors)) for key in keys], "}")
            case Op.STRUCT:
                fields = [field for field in plan.fields if r.random() < 0.8]
                if r.random() < 0.2:
                    r.shuffle(fields)
                pairs = [self._pair(field.name, self.text(field.plan, errors)) for field in fields]
                while r.random() < errors * 2:
                    pairs.insert(r.randint(0, len(pairs)), self._pair(r.choice([*KEYS, "more"]), self.anything(2)))
                return self._joined("{", pairs, "}")
        return self.anything(2)

    def anything(self, levels: int) -> str:
        """Nearly always JSON."""
        r = self._r
        if r.random() < 0.02:
            return r.choice(BROKEN)
        if not levels or r.random() < 0.7:
            return r.choice([*NUMBERS, *TEXTS, "null", "true", "false", "{}", "[]", "[ ]", "{ }"])
        items = [self.anything(levels - 1) for _ in range(r.randint(1, 3))]
        if r.random() < 0.5:
            return self._joined("[", items, "]")
        return self._joined("{", [self._pair(r.choice(KEYS), item) for item in items], "}")

    def value(self, plan: Plan, errors: float = 0.1) -> bytes:
        text = self._space() + self.text(plan, errors) + self._space()
        return text.encode("utf-8", "surrogatepass")

    def _pair(self, key: str, value: str) -> str:
        written = json.dumps(key, ensure_ascii=self._r.random() < 0.1)
        return f"{written}{self._space()}:{self._space()}{value}"

    def _joined(self, opening: str, items: list[str], closing: str) -> str:
        return opening + self._space() + f",{self._space()}".join(items) + self._space() + closing

    def _space(self) -> str:
        return self._r.choice([" ", "\n", "\t\r\n "]) if self._r.random() < 0.1 else ""
