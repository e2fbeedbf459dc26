"""The load library: what the benchmarks and the bench command share."""
