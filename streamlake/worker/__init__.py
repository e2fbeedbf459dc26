"""The table worker: the process that turns topics into Iceberg tables."""
