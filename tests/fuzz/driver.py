"""Runs a check on ever new inputs: guided by coverage where atheris is installed, else by chance alone."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random


@dataclass(frozen=True)
class Target:
    """What is fuzzed. Inputs are bytes, whatever they stand for.

    Attributes
    ----------
    make_seeds : callable
        Writes what it needs into an empty folder, and returns sound inputs.
    mutate : callable
        Given an input, random numbers and another input, returns a damaged one.
    check : callable
        Given an input, an empty folder, a number to choose by, and the folder of the seeds; raises if something is
        wrong.
    """

    make_seeds: Callable[[Path], list[bytes]]
    mutate: Callable[[bytes, Random, bytes], bytes]
    check: Callable[[bytes, Path, int, Path], str]


def main(target: Target) -> None:
    """Parse the command line, make seeds, and fuzz until the time is over or something is found.

    What breaks a check is kept, as ``crash-...`` by atheris, else as ``found-NUMBER``. Name such a file to run it
    again.
    """
    parser = argparse.ArgumentParser(description=target.check.__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers")
    parser.add_argument("--corpus", type=Path, help="folder to keep what reached new code")
    parser.add_argument("--no-atheris", action="store_true")
    parser.add_argument("again", nargs="*", type=Path, help="inputs to run once")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "seeds").mkdir()
        seeds = target.make_seeds(folder / "seeds")

        def one(data: bytes) -> None:
            with tempfile.TemporaryDirectory(dir=folder) as place:
                target.check(data, Path(place), len(data) + sum(data[-8:]), folder / "seeds")

        if arguments.again:
            for path in arguments.again:
                one(path.read_bytes())
        elif arguments.no_atheris or not _has_atheris():
            _by_chance(target, one, seeds, arguments)
        else:
            _guided(target, one, seeds, arguments, folder)


def _has_atheris() -> bool:
    try:
        import atheris  # noqa: F401
    except ImportError:
        print("atheris is not installed: mutations by chance, not guided by coverage")
        return False
    return True


def _by_chance(target: Target, one: Callable[[bytes], None], seeds: list[bytes], arguments: argparse.Namespace) -> None:
    rng, count, end = Random(arguments.seed), 0, time.monotonic() + arguments.seconds
    while time.monotonic() < end:
        data = target.mutate(rng.choice(seeds), rng, rng.choice(seeds))
        try:
            one(data)
        except BaseException:
            Path(f"found-{count}").write_bytes(data)
            raise
        count += 1
    print(f"{count} inputs, nothing found")


def _guided(
    target: Target, one: Callable[[bytes], None], seeds: list[bytes], arguments: argparse.Namespace, folder: Path
) -> None:
    import atheris

    corpus = arguments.corpus or folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for index, seed in enumerate(seeds):
        (corpus / f"seed-{index}").write_bytes(seed)

    def mutator(data: bytes, limit: int, seed: int) -> bytes:
        rng = Random(seed)
        return target.mutate(data, rng, rng.choice(seeds))[:limit]

    flags = [f"-max_total_time={arguments.seconds}", f"-seed={arguments.seed}", "-max_len=65536", "-rss_limit_mb=4096"]
    atheris.Setup([sys.argv[0], *flags, "-timeout=600", str(corpus)], one, custom_mutator=mutator)
    atheris.Fuzz()
