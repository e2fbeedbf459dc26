"""Commits to an Iceberg table and the progress they hold."""
