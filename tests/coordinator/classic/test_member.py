import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlake.coordinator.classic.member import Member, decode_members, encode_members
from streamlake.core.errors import Corrupt

GOLDEN = (
    "534c474d0001"  # SLGM, version 1
    "91"  # one member, of 8 fields
    "98a16da169a163a22f68cd2710cd753091"
    "92a572616e6765c40172"
    "c40161"
    "215c98d4"  # CRC-32C
)


def member(**changes) -> Member:
    values = {
        "member_id": "m",
        "group_instance_id": "i",
        "client_id": "c",
        "client_host": "/h",
        "session_timeout_ms": 10_000,
        "rebalance_timeout_ms": 30_000,
        "protocols": (("range", b"r"),),
        "assignment": b"a",
        "deadline_ms": 10_005,
        "is_new": False,
    }
    return Member(**{**values, **changes})


def test_golden_bytes():
    assert encode_members([member()]).hex() == GOLDEN
    assert decode_members(bytes.fromhex(GOLDEN), 5) == [member()]


TEXT = st.text(max_size=8)
MEMBERS = st.builds(
    Member,
    member_id=TEXT,
    group_instance_id=st.none() | TEXT,
    client_id=TEXT,
    client_host=TEXT,
    session_timeout_ms=st.integers(0, 2**31 - 1),
    rebalance_timeout_ms=st.integers(0, 2**31 - 1),
    protocols=st.lists(st.tuples(TEXT, st.binary(max_size=8)), max_size=3).map(tuple),
    assignment=st.binary(max_size=8),
    deadline_ms=st.just(0),
    is_new=st.just(False),
)


@given(st.lists(MEMBERS, max_size=4))
def test_round_trip(members):
    read = decode_members(encode_members(members), 100)
    for m in members:
        m.deadline_ms = 100 + m.session_timeout_ms
    assert read == members


@given(st.binary(max_size=64))
def test_foreign_bytes_are_refused(blob):
    with pytest.raises(Corrupt):
        decode_members(blob, 0)


@given(st.integers(0, 45), st.integers(1, 255))
def test_damage_is_found(at, flip):
    blob = bytearray(bytes.fromhex(GOLDEN))
    blob[at % len(blob)] ^= flip
    with pytest.raises(Corrupt):
        decode_members(bytes(blob), 0)


def test_another_version_and_another_shape_are_refused(monkeypatch):
    from crc32c import crc32c

    def frame(version: int, body: bytes) -> bytes:
        blob = b"SLGM" + version.to_bytes(2, "big") + body
        return blob + crc32c(blob).to_bytes(4, "big")

    assert decode_members(frame(1, b"\x90"), 0) == []
    for wrong in [frame(2, b"\x90"), frame(1, b"\x91\x90"), frame(1, b""), frame(1, b"\xa1x")]:
        with pytest.raises(Corrupt):
            decode_members(wrong, 0)


def test_what_a_member_takes():
    assert member().size_bytes == len("range") + 2
    assert member().metadata("range") == b"r"
    assert member().metadata("none") == b""
