"""A broker: its services in start order, the partitions it owns, what listens, and the table worker it starts."""
