import pytest

from streamlake.core.errors import Corrupt
from streamlake.table.rows import field_map
from streamlake.table.rows.field_map import Namer


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


def test_what_named_columns_is_kept_by_message_and_schema() -> None:
    namers = {3: Namer(7, "shop.Order"), 4: Namer(7, "shop.Order"), 5: Namer(9, "In")}
    text = field_map.encode({"value/#1": 3}, namers)
    assert text == ('{"version":1,"fields":{"value/#1":3},"named_by":{"shop.Order":{"7":[3,4]},"In":{"9":[5]}}}')
    assert (field_map.decode(text), field_map.decode_namers(text)) == ({"value/#1": 3}, namers)


@pytest.mark.parametrize("named", ["1", "[]", '{"a":1}', '{"a":{"b":[1]}}', '{"a":{"1":["x"]}}', "null"])
def test_what_is_not_understood_names_nothing(named: str) -> None:
    assert field_map.decode_namers(f'{{"version":1,"fields":{{}},"named_by":{named}}}') == {}
    assert field_map.decode_namers(None) == {}
