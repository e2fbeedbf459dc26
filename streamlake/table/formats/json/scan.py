"""JSON values in Python, by a plan: the kernel's twin, its oracle and the referee of errors.

The standard library's scanner checks the whole value first, so all that comes after may trust its syntax. Of a key that
an object has twice, the last counts. Numbers are read from their text: nothing is rounded that a column could hold.
"""

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed leaves it out
from typing import Any, NoReturn

from streamlake.table.formats.json.native import REST_COLUMN, Op, Plan
from streamlake.table.formats.twin import Decode, Undecodable

SHOWN_CHARS = 50
LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1
LONG_CHARS_MAX = 20
EXACT_MAX = 2**53  # whole numbers up to here are doubles

_SPACE = re.compile(r"[ \t\n\r]*")
_NAMES = {
    Op.BOOLEAN: "a boolean",
    Op.LONG: "an integer of 64 bits",
    Op.DOUBLE: "a number that a double holds",
    Op.TEXT: "a text",
    Op.STRUCT: "an object",
    Op.LIST: "an array",
    Op.MAP: "an object",
}


class Number(str):
    """The text of a number."""


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


_SCANNER = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=_constant)


class _Misfit(Exception):
    """A value that is not of its column."""


def decoder(plan: Plan) -> Decode:
    """Bytes → what pa.array makes values of `plan.type` of. If the plan has a rest, only objects are values."""

    def decode(data: bytes) -> Any:
        text, start = whole_value(data)
        scan = _Scan(text, plan.rest)
        if plan.rest:
            if text[start] != "{":
                raise Undecodable(f"is not a JSON object: {_shown(text[start:])}")
            return scan.row(plan, start)
        try:
            return scan.value(plan, start, "")
        except _Misfit as misfit:
            raise Undecodable(str(misfit)) from None

    return decode


def whole_value(data: bytes) -> tuple[str, int]:
    """A text with one JSON value and nothing else, and where it begins. Raises Undecodable."""
    try:
        text = data.decode().removeprefix("\ufeff")
        start = _space(text, 0)
        if start == len(text):
            raise Undecodable("there is no JSON value in it")
        _, end = _SCANNER.raw_decode(text, start)
    except UnicodeDecodeError as error:
        raise Undecodable(f"not UTF-8 text ({error.reason} at byte {error.start})") from None
    except RecursionError:
        raise Undecodable("the JSON value is nested too deeply") from None
    except ValueError as error:
        raise Undecodable(f"not JSON: {error}") from None
    end = _space(text, end)
    if end != len(text):
        raise Undecodable(f"not one JSON value: after it comes {_shown(text[end:])}")
    return text, start


def _space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _shown(text: str) -> str:
    return repr(text[:SHOWN_CHARS])


class _Scan:
    """`text` is known to be sound."""

    def __init__(self, text: str, has_rest: bool) -> None:
        self._text = text
        self._has_rest = has_rest

    def row(self, plan: Plan, at: int) -> Any:
        """An object with its rest."""
        value, rest = self._struct(plan, at, "", in_list=False)
        return {**value, REST_COLUMN: "{" + ",".join(rest) + "}" if rest else None}

    def value(self, plan: Plan, at: int, path: str, in_list: bool = False) -> Any:
        """Raises _Misfit."""
        found, end = _SCANNER.raw_decode(self._text, at)
        if found is None or plan.op == Op.NOTHING:
            return None
        match plan.op:
            case Op.JSON:
                return self._text[at:end]
            case Op.BOOLEAN if isinstance(found, bool):
                return found
            case Op.TEXT if type(found) is str and is_text(found):
                return found
            case Op.LONG if isinstance(found, Number):
                number = _long(found)
                if number is not None:
                    return number
            case Op.DOUBLE if isinstance(found, Number):
                double = _double(found, self._has_rest)
                if double is not None:
                    return double
            case Op.STRUCT if isinstance(found, dict):
                return self._struct(plan, at, path, in_list)[0]
            case Op.LIST if isinstance(found, list):
                assert plan.child is not None
                items = enumerate(self._items(at))
                return [self.value(plan.child, start, f"{path}[{n}]", in_list=True) for n, start in items]
            case Op.MAP if isinstance(found, dict):
                assert plan.child is not None
                return self._map(plan.child, at, path)
        raise _Misfit(
            f"{path or 'the value'} is {_shown(self._text[at:end])}, not {_NAMES.get(plan.op, 'a value of its column')}"
        )

    def _map(self, child: Plan, at: int, path: str) -> list[tuple[str, Any]]:
        pairs = [(key, start) for key, _, start, _ in self._pairs(at)]
        if not self._has_rest:
            pairs = list(dict(pairs).items())
        if not all(is_text(key) for key, _ in pairs):
            raise _Misfit(f"{path or 'the value'} has a key with half of a surrogate pair")
        found = {key: self.value(child, start, _joined(path, key), in_list=True) for key, start in pairs}
        return list(found.items())

    def _struct(self, plan: Plan, at: int, path: str, in_list: bool) -> tuple[dict[str, Any], list[str]]:
        """The fields, and the parts of the rest: keys and values as they are in the text. In a list, all must fit, also
        what another value of the same key hides: else the list is in the rest, with both."""
        fields = {field.name: field.plan for field in plan.fields}
        pairs = list(self._pairs(at))
        last = {key: start for key, _, start, _ in pairs}
        value: dict[str, Any] = {}
        rest: list[str] = []
        for key, shown_key, start, end in pairs:
            inner = fields.get(key)
            if inner is not None and last[key] != start and not (self._has_rest and in_list):
                continue
            text = self._text[start:end]
            if inner is None or inner.op == Op.REST:
                if self._has_rest and text != "null":
                    if in_list:
                        raise _Misfit(f"{_joined(path, key)} has no column")
                    rest.append(f"{shown_key}:{text}")
                continue
            where = _joined(path, key)
            if self._has_rest and not in_list and inner.op == Op.STRUCT and text[0] == "{":
                value[key], below = self._struct(inner, start, where, in_list)
                if below:
                    rest.append(shown_key + ":{" + ",".join(below) + "}")
                continue
            try:
                value[key] = self.value(inner, start, where, in_list)
            except _Misfit:
                if in_list or not self._has_rest:
                    raise
                rest.append(f"{shown_key}:{text}")
        return value, rest

    def _pairs(self, at: int) -> Any:
        """(key, the key as it is in the text, start and end of the value) of the object at `at`."""
        text = self._text
        at = _space(text, at + 1)
        while text[at] != "}":
            key, end = scanstring(text, at + 1, True)
            start = _space(text, _space(text, end) + 1)
            _, stop = _SCANNER.raw_decode(text, start)
            yield key, text[at:end], start, stop
            at = _space(text, stop)
            if text[at] == ",":
                at = _space(text, at + 1)

    def _items(self, at: int) -> Any:
        """Where the items of the array at `at` begin."""
        text = self._text
        at = _space(text, at + 1)
        while text[at] != "]":
            yield at
            _, stop = _SCANNER.raw_decode(text, at)
            at = _space(text, stop)
            if text[at] == ",":
                at = _space(text, at + 1)


def is_text(value: str) -> bool:
    """Without half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_whole(number: Number) -> bool:
    """Written without a fraction and an exponent."""
    return number.lstrip("-").isdecimal()


def _long(number: Number) -> int | None:
    if is_whole(number):
        value = int(number) if len(number) <= LONG_CHARS_MAX else LONG_MAX + 1
        return value if LONG_MIN <= value <= LONG_MAX else None
    double = float(number)
    return int(double) if double.is_integer() and abs(double) < EXACT_MAX else None


def _double(number: Number, exact: bool) -> float | None:
    """`exact`: not for whole numbers that it would round."""
    if exact and is_whole(number) and (len(number) > LONG_CHARS_MAX or abs(int(number)) > EXACT_MAX):
        return None
    double = float(number)
    return None if double in (float("inf"), float("-inf")) else double
