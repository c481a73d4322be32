"""Choosing how each weight is stored so that a model has a given size and loses as little as possible."""
