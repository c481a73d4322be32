"""Are digits read right? `--metric score.py:accuracy`."""

from corepress.demo.score import accuracy

__all__ = ["accuracy"]
