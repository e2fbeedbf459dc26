"""Damage done to valid bytes: small steps that know where parsers believe what they read.

An `Op` is three integers: what to do, where (taken modulo the length), and with what. Integers shrink well, so the
same steps serve hypothesis (`inputs`), which shrinks them itself, and the runner, which draws them from a seed.
"""

import re
from collections.abc import Sequence
from random import Random

from hypothesis import strategies as st

Op = tuple[int, int, int]

SIZE_MAX = 1 << 20  # of a mutated input
OPS_MAX = 6
_CHOICE_MAX = (1 << 32) - 1

# What lengths, counts, offsets and timestamps go wrong with.
_EXTREMES = tuple(
    sorted(
        {
            sign * (1 << bits) + off
            for bits in (0, 7, 8, 15, 16, 31, 32, 40, 63)
            for sign in (1, -1)
            for off in (-1, 0, 1)
        }
    )
)
_VARINTS = (
    b"\x80" * 4 + b"\x00",
    b"\x80" * 9 + b"\x01",
    b"\xff" * 4 + b"\x0f",
    b"\xff" * 4 + b"\x7f",
    b"\xff" * 9 + b"\x01",
    b"\xff" * 9 + b"\x7f",
    b"\xff" * 12,
    b"\x80" * 12,
    b"\xfe\xff\xff\xff\x0f",
    b"\x01",
    b"\x03",
    b"\x81\x80\x00",
)
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[-+.\w]+|[\[\]{}:,=]|\n')


def apply(data: bytes, ops: Sequence[Op], others: Sequence[bytes], dictionary: Sequence[bytes] = ()) -> bytes:
    """`data` after `ops`. `others` are further inputs of the same kind, `dictionary` tokens of a text format."""
    for kind, where, what in ops:
        steps = _TEXT_STEPS if dictionary and kind % 2 else _BYTE_STEPS
        data = steps[kind // 2 % len(steps)](data, where, what, others, dictionary)[:SIZE_MAX]
    return data


def random_ops(rng: Random) -> list[Op]:
    count = min(OPS_MAX, 1 + int(rng.expovariate(0.7)))
    return [(rng.randrange(256), rng.getrandbits(32), rng.getrandbits(32)) for _ in range(count)]


@st.composite
def inputs(draw: st.DrawFn, seeds: Sequence[bytes], dictionary: Sequence[bytes] = ()) -> bytes:
    """A seed, damaged or not; now and then bytes that never were a seed."""
    data = draw(st.sampled_from(seeds))
    choice = st.integers(0, _CHOICE_MAX)
    ops = draw(st.lists(st.tuples(st.integers(0, 255), choice, choice), max_size=OPS_MAX))
    others = [draw(st.sampled_from(seeds))] if ops else []
    return apply(data, ops, others, dictionary)


# -- one step each: (data, where, what, others, dictionary) -> data ------------------------------------------------------


def _flip(data: bytes, where: int, what: int, others: Sequence[bytes], _: Sequence[bytes]) -> bytes:
    if not data:
        return data
    out = bytearray(data)
    out[where % len(out)] ^= 1 << what % 8
    return bytes(out)


def _set(data: bytes, where: int, what: int, others: Sequence[bytes], _: Sequence[bytes]) -> bytes:
    at = where % (len(data) + 1)
    return data[:at] + bytes([what % 256]) + data[at + 1 :]


def _truncate(data: bytes, where: int, what: int, others: Sequence[bytes], _: Sequence[bytes]) -> bytes:
    return data[: where % (len(data) + 1)]


def _delete(data: bytes, where: int, what: int, others: Sequence[bytes], _: Sequence[bytes]) -> bytes:
    at = where % (len(data) + 1)
    return data[:at] + data[at + 1 + what % 16 :]


def _repeat(data: bytes, where: int, what: int, others: Sequence[bytes], _: Sequence[bytes]) -> bytes:
    """A piece again and again: arrays that nest, tags that come twice, elements without end."""
    at = where % (len(data) + 1)
    piece = data[at : at + 1 + what % 64]
    times = (1, 2, 5, 70, 300, 5000)[what // 64 % 6]
    return data[:at] + piece * times + data[at:]


def _extreme(data: bytes, where: int, what: int, others: Sequence[bytes], _: Sequence[bytes]) -> bytes:
    """A number of fixed width where a length, a count or an offset may be."""
    width = (1, 2, 4, 4, 8, 8)[what % 6]
    value = _EXTREMES[what // 6 % len(_EXTREMES)] % (1 << 8 * width)
    at = where % (len(data) + 1)
    order = "little" if what // 1000 % 2 else "big"
    return data[:at] + value.to_bytes(width, order) + data[at + width :]


def _varint(data: bytes, where: int, what: int, others: Sequence[bytes], _: Sequence[bytes]) -> bytes:
    """A varint that is long, negative as zigzag, or never ends; in place of one byte, or before it."""
    at = where % (len(data) + 1)
    return data[:at] + _VARINTS[what % len(_VARINTS)] + data[at + what // 16 % 2 :]


def _insert(data: bytes, where: int, what: int, others: Sequence[bytes], _: Sequence[bytes]) -> bytes:
    at = where % (len(data) + 1)
    return data[:at] + (what.to_bytes(4, "big") * 8)[: 1 + what % 32] + data[at:]


def _splice(data: bytes, where: int, what: int, others: Sequence[bytes], _: Sequence[bytes]) -> bytes:
    """The beginning of one input and the end of another."""
    if not others:
        return data
    other = others[what % len(others)]
    return data[: where % (len(data) + 1)] + other[what // 7 % (len(other) + 1) :]


def _move(data: bytes, where: int, what: int, others: Sequence[bytes], _: Sequence[bytes]) -> bytes:
    """A piece of the input itself, copied over another place."""
    at, source = where % (len(data) + 1), what % (len(data) + 1)
    piece = data[source : source + 1 + what // 3 % 40]
    return data[:at] + piece + data[at + len(piece) :]


def _token(data: bytes, where: int, what: int, others: Sequence[bytes], dictionary: Sequence[bytes]) -> bytes:
    """Another token in place of one."""
    found = [match.span() for match in _TOKEN.finditer(data)] or [(0, 0)]
    start, end = found[where % len(found)]
    return data[:start] + dictionary[what % len(dictionary)] + data[end:]


def _token_copy(data: bytes, where: int, what: int, others: Sequence[bytes], dictionary: Sequence[bytes]) -> bytes:
    """A run of the input's own tokens in place of one: keys that come twice, values of a wrong type."""
    found = [match.span() for match in _TOKEN.finditer(data)] or [(0, 0)]
    start, end = found[where % len(found)]
    first = what % len(found)
    last = min(len(found) - 1, first + what // 1000 % 12)
    return data[:start] + data[found[first][0] : found[last][1]] + data[end:]


def _nest(data: bytes, where: int, what: int, others: Sequence[bytes], dictionary: Sequence[bytes]) -> bytes:
    """A run of tokens inside more and more brackets."""
    found = [match.span() for match in _TOKEN.finditer(data)] or [(0, 0)]
    start, _ = found[where % len(found)]
    _, end = found[min(len(found) - 1, where % len(found) + what % 8)]
    opening, closing = ((b"[", b"]"), (b'{"a":', b"}"), (b'{"type":', b"}"), (b'["null",', b"]"))[what // 8 % 4]
    depth = (1, 2, 63, 70, 1100, 20_000)[what // 32 % 6]
    return data[:start] + opening * depth + data[start:end] + closing * depth + data[end:]


_BYTE_STEPS = (
    _flip, _set, _extreme, _extreme, _varint, _varint, _truncate, _delete, _insert, _repeat, _splice, _move,
)  # fmt: skip
_TEXT_STEPS = (_token, _token, _token_copy, _token_copy, _nest, _splice, _delete)
