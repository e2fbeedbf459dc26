"""The metadata store: tables in SQL and what reads and writes them."""
