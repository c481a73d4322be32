"""What the formats, the shell, the demo and the benchmark share to say what was done."""
