import pytest

from streamlake.registry.levels import DEFAULT_LEVEL, Level, incompatibilities

EARLIER = [(1, {1}), (2, {1, 2})]


def cannot_read(reader: set[int], writer: set[int]) -> str:
    """A reader reads what a smaller one has written."""
    return "" if writer <= reader else f"{sorted(reader)} < {sorted(writer)}"


@pytest.mark.parametrize(
    ("level", "new", "versions"),
    [
        (Level.NONE, {9}, []),
        (Level.BACKWARD, {2}, ["new 2"]),
        (Level.BACKWARD, {1, 2, 3}, []),
        (Level.BACKWARD_TRANSITIVE, {9}, ["new 2", "new 1"]),
        (Level.FORWARD, {1, 2, 3}, ["old 2"]),
        (Level.FORWARD, {2}, []),
        (Level.FORWARD_TRANSITIVE, {2}, ["old 1"]),
        (Level.FULL, {1, 2}, []),
        (Level.FULL, {9}, ["new 2", "old 2"]),
        (Level.FULL_TRANSITIVE, {1, 2}, ["old 1"]),
    ],
)
def test_each_level_compares_what_it_says(level: Level, new: set[int], versions: list[str]) -> None:
    found = incompatibilities(level, new, EARLIER, cannot_read)
    said = {
        **{f"the new schema cannot read data written with version {n}": f"new {n}" for n in (1, 2)},
        **{f"version {n} cannot read data written with the new schema": f"old {n}" for n in (1, 2)},
    }
    assert [said[message.partition(":")[0]] for message in found] == versions


def test_the_first_version_is_always_compatible() -> None:
    assert incompatibilities(Level.FULL_TRANSITIVE, {1}, [], cannot_read) == []
    assert DEFAULT_LEVEL is Level.BACKWARD
