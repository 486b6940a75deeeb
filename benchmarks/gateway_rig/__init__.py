"""What the benchmarks of the gateway share: an engine, a bare relay, an open-loop client, and their processes."""
