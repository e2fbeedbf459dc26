"""What was sealed is found again, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlake.coordinator.sealed import seal, unseal
from streamlake.core.errors import Corrupt

SEALED = seal(b"SLXX", 3, [1, "two"])


def test_the_bytes() -> None:
    assert SEALED[:-4].hex() == "534c5858000392" + "01" + "a374776f"
    assert unseal(SEALED, b"SLXX", 3, list, "things") == [1, "two"]


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_damage_is_found(at: int, flip: int) -> None:
    blob = bytearray(SEALED)
    blob[at] ^= flip
    with pytest.raises(Corrupt, match="things"):
        unseal(bytes(blob), b"SLXX", 3, list, "things")


@pytest.mark.parametrize(
    ("blob", "says"),
    [
        (b"", "damaged"),
        (SEALED[:-1], "damaged"),
        (seal(b"SLYY", 3, []), "damaged"),
        (seal(b"SLXX", 4, []), "have version 4, this program reads 3: upgrade it"),
        (seal(b"SLXX", 3, {}), "cannot be read"),
    ],
)
def test_what_is_something_else(blob: bytes, says: str) -> None:
    with pytest.raises(Corrupt, match=f"things .*{says}"):
        unseal(blob, b"SLXX", 3, list, "things")
