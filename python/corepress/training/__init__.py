"""Compression of PyTorch models, in and after training; what `corepress.optimize.torch` is built on."""
