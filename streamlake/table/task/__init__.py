"""The tasks that keep tables up to date with their topics."""
