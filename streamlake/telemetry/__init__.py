"""Counters as plain integers, exported by observable callbacks; logs."""
