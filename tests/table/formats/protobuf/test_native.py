"""The kernel takes nothing that its twin refuses, and makes the same of what it takes."""

import random
from typing import Any

import pytest
from google.protobuf.message_factory import GetMessageClass
from support.hostile import mutated
from support.kernel_twin import twin_and_kernel
from support.protobuf import compiled
from support.protobuf_random import RandomProtobuf, fill

from streamlake.core.errors import Invalid
from streamlake.registry.protobuf.files import plain
from streamlake.table.formats.protobuf import native
from streamlake.table.formats.protobuf.convert import ProtobufReader
from streamlake.table.formats.twin import Codec

pytestmark = pytest.mark.skipif(native._kernel is None, reason="no C compiler")


def assert_same(twin: Any, kernel: Any, what: Any) -> None:
    assert twin[0] == kernel[0], what
    assert twin[2] == kernel[2], what
    assert twin[1].type == kernel[1].type
    # NaNs are equal here. Equal values may differ in what lies under a null, so buffers are not compared.
    assert twin[1].equals(kernel[1]) or repr(twin[1].to_pylist()) == repr(kernel[1].to_pylist()), what


def usable(rng: random.Random) -> tuple[Codec, Any]:
    """A message, and its class."""
    while True:
        reader = ProtobufReader(plain(RandomProtobuf(rng).file()), {})
        for index, message in enumerate(reader._file.message_types_by_name.values()):
            try:
                codec = reader.codec((index,))
            except Invalid:
                continue
            if codec.native is not None:
                return codec, GetMessageClass(message)


@pytest.mark.parametrize("seed", range(8))
def test_kernel_equals_twin(seed: int) -> None:
    rng = random.Random(seed)
    alone = both = refused = 0
    for _ in range(40):
        codec, kind = usable(rng)
        bodies = [fill(kind(), rng).SerializePartialToString() for _ in range(12)]
        bodies += [mutated(rng, body) for body in bodies]
        bodies += [one + other for one, other in zip(bodies[:6], bodies[6:12], strict=True)]  # merged
        twin, kernel, taken = twin_and_kernel(codec, bodies)
        assert set(taken) <= set(twin[0]), bodies
        assert_same(twin, kernel, bodies)
        alone, both, refused = alone + len(taken), both + len(twin[0]), refused + len(twin[2])
    assert refused > 50
    assert alone > 0.5 * both, "the twin is needed for groups, JSON and odd values only"


def codec_of(text: str) -> Codec:
    return ProtobufReader(compiled(text), {}).codec((0,))


EVERY = """syntax = "proto3"; import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto";
enum E { A = 0; B = 5; }
message N { int32 x = 1; string s = 2; }
message Nothing { N hidden = 1; }
"""
SCALARS = [
    "double",
    "float",
    "int32",
    "int64",
    "uint32",
    "uint64",
    "sint32",
    "sint64",
    "fixed32",
    "fixed64",
    "sfixed32",
    "sfixed64",
    "bool",
    "string",
    "bytes",
    "E",
    "N",
    "google.protobuf.Timestamp",
    "google.protobuf.UInt64Value",
    "google.protobuf.StringValue",
]
NUMBERS = [0, 1, 127, 128, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]


def varint(number: int, longer: int = 0) -> bytes:
    out = bytearray()
    while number > 0x7F or longer > len(out):
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def payloads(tag: int) -> list[bytes]:
    """A field of every wire type, whole and cut."""
    whole = [varint(tag << 3) + varint(n) for n in NUMBERS]
    whole += [varint(tag << 3) + varint(n, longer) for n in (0, 5) for longer in (4, 5, 9, 10)]
    whole += [varint(tag << 3, longer) + b"\1" for longer in (4, 5, 6)]
    whole += [varint(tag << 3 | 1) + n.to_bytes(8, "little") for n in NUMBERS]
    whole += [varint(tag << 3 | 5) + n.to_bytes(4, "little") for n in NUMBERS[:7]]
    inside = [
        b"",
        b"x",
        b"\xc3\xbc",
        b"\xff",
        b"\x08\1",
        b"\x08\1\x12\1y",
        b"\x0a\1y",
        b"\x12\1\xff",
        b"\x10\xff\xff\xff\xff\x0f",
    ]
    inside += [varint(n) for n in NUMBERS] + [
        bytes(8),
        bytes(4),
        bytes(12),
        b"\0",
        b"\x08\1\x08\2",
        b"\x08\xff\xff\xff\xff\x0f",
    ]
    inside += [
        b"\x08\x80\x92\xb8\xc3\x98\xfe\xff\xff\xff\x01",
        b"\x10\xff\x93\xeb\xdc\x03",
        b"\x10\x80\x94\xeb\xdc\x03",
    ]
    whole += [varint(tag << 3 | 2) + varint(len(body)) + body for body in inside]
    whole += [varint(tag << 3 | 2) + varint(len(body), longer) + body for body in (b"", b"\x08\1") for longer in (4, 5)]
    whole += [
        varint(tag << 3 | 3) + varint(tag << 3 | 4),
        varint(tag << 3 | 4),
        varint(tag << 3 | 6),
        varint(2**32 << 3),
    ]
    return [*whole, *(body[:n] for body in whole for n in range(len(body)))]  # fmt: skip


@pytest.mark.parametrize("form", ["{0} f = 1;", "optional {0} f = 1;", "repeated {0} f = 1;", "oneof o {{ {0} f = 1; int32 g = 2; }}",
                                  "map<int32, {0}> f = 1;", "map<string, {0}> f = 1;", "map<bool, {0}> f = 1;"])  # fmt: skip
@pytest.mark.parametrize("kind", SCALARS)
def test_every_kind_at_its_edges(kind: str, form: str) -> None:
    label, _, _ = form.partition("{0}")
    if label == "optional " and "." in kind:
        form = form.removeprefix("optional ")
    codec = codec_of(f"{EVERY.replace('enum E', 'message M {' + form.format(kind) + '} enum E', 1)}")
    bodies = payloads(1)
    bodies += [one + other for one in bodies[:40:7] for other in bodies[::9]]
    bodies += [body + b"\x10\1" for body in bodies[:40:5]] + [b"\x10\1" + body for body in bodies[:40:5]]
    twin, kernel, taken = twin_and_kernel(codec, bodies)
    assert_same(twin, kernel, (kind, form))
    assert set(taken) <= set(twin[0])
    assert len(taken) > 10


def test_maps_of_many_keys() -> None:
    for key in ("string", "int32", "uint64"):
        codec = codec_of(f'syntax = "proto3"; message M {{ map<{key}, int32> m = 1; }}')
        kind = GetMessageClass(ProtobufReader(compiled(f'syntax = "proto3"; message M {{ map<{key}, int32> m = 1; }}'), {})._file.message_types_by_name["M"])  # fmt: skip
        message = kind()
        for n in range(1_000):
            message.m[str(n) if key == "string" else n] = n
        body = message.SerializeToString()
        twin, kernel, taken = twin_and_kernel(codec, [body, body + body[:20], b"", body])
        assert_same(twin, kernel, key)
        assert set(taken) >= {0, 2, 3}


def test_messages_without_columns_are_read_too() -> None:
    codec = codec_of('syntax = "proto3"; message M { Nothing n = 1; int32 x = 2; } message Nothing {}')
    twin, kernel, taken = twin_and_kernel(
        codec, [b"\x0a\0\x10\1", b"\x0a\2\x08\1\x10\2", b"\x0a\1\x08\x10\3", b"\x10\4"]
    )
    assert_same(twin, kernel, "nothing")
    assert taken == twin[0] == [0, 1, 3]
    assert kernel[1].to_pylist() == [{"#2": 1}, {"#2": 2}, {"#2": 4}]


def test_a_message_without_columns_has_no_kernel() -> None:
    assert codec_of('syntax = "proto3"; message M {}').native is None


def test_many_values_of_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the kernel takes for a sample; refused ones in between."""
    codec = codec_of('syntax = "proto3"; message M { string s = 1; repeated int64 n = 2; optional bool b = 3; }')
    bodies = [
        b"\x0a\3abc\x12\2" + bytes([n % 100, 5]) + b"\x18\1" * (n % 2) + b"\x0a" * (n % 7 == 3) for n in range(2_000)
    ]
    twin, kernel, taken = twin_and_kernel(codec, bodies)
    assert_same(twin, kernel, "many")
    assert taken == twin[0] == [n for n in range(2_000) if n % 7 != 3]


def test_a_required_field() -> None:
    codec = codec_of('syntax = "proto2"; message M { required int32 a = 1; optional I i = 2; message I { required string s = 1; } }')  # fmt: skip
    twin, kernel, taken = twin_and_kernel(codec, [b"\x08\1", b"", b"\x08\1\x12\0", b"\x08\1\x12\2\x0a\0"])
    assert_same(twin, kernel, "required")
    assert taken == [0, 3]


def test_a_member_of_a_oneof_that_another_replaces_is_looked_at_too() -> None:
    codec = codec_of('syntax = "proto3"; message M { oneof o { N n = 1; int32 x = 2; } } message N { int32 y = 1; }')
    twin, kernel, taken = twin_and_kernel(codec, [b"\x0a\1\x08\x10\1", b"\x0a\2\x08\1\x10\1", b"\x10\1\x0a\2\x08\1"])
    assert_same(twin, kernel, "oneof")
    assert (taken, twin[0]) == ([2], [1, 2])
