"""Models run by PyTorch; no other part of `corepress.runtime` imports it."""
