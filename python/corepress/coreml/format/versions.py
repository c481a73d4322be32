"""Specification versions, by the first system that loads each; its operations are those of ``CoreML<version - 1>``."""

IOS15, IOS16, IOS17, IOS18, IOS26 = 6, 7, 8, 9, 10
