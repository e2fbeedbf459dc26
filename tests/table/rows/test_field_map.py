import pytest

from streamlake.core.errors import Corrupt
from streamlake.table.rows import field_map


def test_golden() -> None:
    fields = {"value/name": 2, "row/_kafka": 3, "3/offset": 4}
    text = '{"version":1,"fields":{"3/offset":4,"row/_kafka":3,"value/name":2}}'
    assert field_map.encode(fields) == text
    assert field_map.decode(text) == fields
    assert field_map.decode(None) == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version":2,"fields":{}}',
        '{"version":1,"fields":[1]}',
        '{"version":1,"fields":{"a/b":"1"}}',
        '{"version":1,"fields":{"a":1}}',
        '{"version":1,"fields":{"a/b":true}}',
    ],
)
def test_a_bad_map_says_what_to_do(text: str) -> None:
    with pytest.raises(Corrupt, match=r"streamlake\.fields.*Restore it"):
        field_map.decode(text)
