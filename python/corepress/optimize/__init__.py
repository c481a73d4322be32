"""Stands in for ``coremltools.optimize``; see `corepress.optimize.coreml`."""
