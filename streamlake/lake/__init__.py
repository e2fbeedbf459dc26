"""A server and its tables as Python programs and commands use them: DuckDB, PyIceberg, and `streamlake.local()`."""
