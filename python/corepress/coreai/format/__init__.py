"""The Core AI file format: assets, and the bytecode in them. Nothing here imports Core AI."""
