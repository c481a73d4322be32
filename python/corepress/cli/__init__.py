"""The `corepress` command: a thin shell around `corepress.coreml` and `corepress.demo`."""
