"""What the fuzzers fuzz: the files of packages, and single model files of neural networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

from driver import Target
from mutation import mutate
from network_mutation import mutate_network
from network_properties import check_network
from network_seeds import make_network_seeds
from seeds import Parts, make_seeds

Check = Callable[[Parts, Path, int, Path], str]


def packages(check: Check) -> Target:
    """Packages, each as one string."""

    def run(data: bytes, place: Path, choice: int, seeds: Path) -> str:
        return check(Parts.split(data), place, choice, seeds / "9.mlpackage")

    def damage(data: bytes, rng: Random, donor: bytes) -> bytes:
        return mutate(Parts.split(data), rng, Parts.split(donor)).join()

    run.__doc__ = check.__doc__
    return Target(lambda folder: [parts.join() for parts in make_seeds(folder).values()], damage, run)


NETWORKS = Target(lambda folder: list(make_network_seeds(folder).values()), mutate_network, check_network)
