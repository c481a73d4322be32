"""Replacement for ``coremltools.optimize``; see `corepress.optimize.coreml`."""
