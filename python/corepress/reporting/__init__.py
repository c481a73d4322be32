"""Output helpers that the formats, the shell, the demo and the benchmark share."""
