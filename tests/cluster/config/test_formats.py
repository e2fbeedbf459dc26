from streamlake.cluster.config.formats import CONVERT_TYPES


def test_options_of_the_command_line_are_unique() -> None:
    assert len({found.option for found in CONVERT_TYPES.values()}) == len(CONVERT_TYPES)


def test_only_a_schema_tells_what_a_column_of_it_is() -> None:
    assert [name for name, found in CONVERT_TYPES.items() if found.by_schema] == [
        "by_schema_id", "by_latest_schema", "json",
    ]  # fmt: skip
