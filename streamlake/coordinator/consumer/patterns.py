"""Which topics a pattern means: Kafka's dialect, which is RE2's, by RE2 itself.

Python's `re` tracks back: a pattern of ten characters can keep it busy for years. RE2 takes time in proportion to
pattern and text, and has a limit for the size of what it compiles; Arrow, which is there for tables, brings it.
"""

from collections.abc import Sequence

from streamlake.core.errors import Invalid

PATTERN_CHARS_MAX = 4_096


def matching(pattern: str, names: Sequence[str]) -> frozenset[str]:
    """Those that the pattern matches as a whole. Invalid: it is none, or too long. The first call loads Arrow: not for
    the broker's loop."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if len(pattern) > PATTERN_CHARS_MAX:
        raise Invalid(f"a regular expression may have {PATTERN_CHARS_MAX} characters, this one has {len(pattern)}")
    try:
        pc.match_substring_regex(pa.array([""]), pattern)  # by itself: "a)(b" would be one within the group below
        found = pc.match_substring_regex(pa.array(names, pa.string()), rf"\A(?:{pattern})\z")
    except pa.ArrowInvalid as error:
        raise Invalid(f"{str(error).removeprefix('Invalid regular expression: ')}: not RE2's syntax") from None
    return frozenset(name for name, matches in zip(names, found.to_pylist(), strict=True) if matches)
