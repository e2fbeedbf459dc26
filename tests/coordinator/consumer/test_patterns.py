import pytest

from streamlake.coordinator.consumer.patterns import PATTERN_CHARS_MAX, matching
from streamlake.core.errors import Invalid

NAMES = ["a", "ab", "ba", "A", "a.b", "größe"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.*", {"a", "ab", "a.b"}),
        ("^a$", {"a"}),
        ("a|b", {"a"}),
        ("(?i)a", {"a", "A"}),
        (r"a\.b", {"a.b"}),
        (r"\p{L}+", {"a", "ab", "ba", "A", "größe"}),
        ("", set()),
    ],
)
def test_the_whole_name_matches(pattern: str, names: set[str]) -> None:
    assert matching(pattern, NAMES) == names


@pytest.mark.parametrize("pattern", ["(a", "a)(b", r"(a)\1", "(?<!a)b", "a{1001}", "[[:no:]]", "((a{99}){99}){99}"])
def test_what_re2_does_not_know_is_invalid(pattern: str) -> None:
    with pytest.raises(Invalid, match="not RE2's syntax"):
        matching(pattern, NAMES)


def test_a_pattern_has_a_limit() -> None:
    assert matching("a" * PATTERN_CHARS_MAX, NAMES) == frozenset()
    with pytest.raises(Invalid, match="may have 4096 characters"):
        matching("a" * (PATTERN_CHARS_MAX + 1), NAMES)


def test_nothing_tracks_back() -> None:
    """Python's re would take longer than the universe is old."""
    assert matching("(a*)*(a*)*(a*)*b", ["a" * 249]) == frozenset()
