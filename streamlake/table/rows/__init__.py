"""Record columns into rows of a table: layout, evolution, partitions and files."""
