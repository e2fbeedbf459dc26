from streamlake.cluster.config.columns import AUTOMQ, NESTED, OWN_COLUMNS, STREAMLAKE, TIME


def test_columns_by_layout() -> None:
    assert STREAMLAKE.columns["_kafka.timestamp"] == TIME
    assert AUTOMQ.columns["_kafka_header"] == NESTED
    assert not {STREAMLAKE.key, STREAMLAKE.value} & set(STREAMLAKE.columns)


def test_names_that_no_other_column_takes() -> None:
    assert {"value", "_kafka", "_kafka_key", "_kafka_value", "_kafka_header", "_kafka_metadata"} == OWN_COLUMNS
