"""What must hold for any files: success, or an error that says why; bounded memory and time; nothing left behind."""

from __future__ import annotations

import linecache
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from seeds import Parts

import corepress
from corepress import FormatError, coreml
from corepress.coreml.decoded import Undecodable, stored_form
from corepress.coreml.format.package import Package
from corepress.coreml.format.values import ValueReader
from corepress.coreml.format.weight_file import WeightFileReader
from corepress.coreml.program.program import Definition, Program
from corepress.coreml.program.storage import steps
from corepress.coreml.program.weights import weights_of
from corepress.tensors import CompressedTensor

MEMORY = 1 << 30  # that one run may ask for beyond what the process has: the seeds are a few kilobytes
CPU_SECONDS = 20  # of one run, however busy the machine is with others
WALL_SECONDS = 300  # for what waits and does not compute
CONFIGS: tuple[Any, ...] = (
    {"palettize": {"nbits": 2}},
    {"quantize": {}},
    [{"prune": {"target_sparsity": 0.5}}, {"palettize": {"nbits": 2}}],
    [{"prune": {"target_sparsity": 0.5}}, {"quantize": {}}],
    [{"palettize": {"nbits": 2}}, {"quantize": {}}],
    {"palettize": {"nbits": 2, "granularity": "per_grouped_channel", "group_size": 2}},
    {"quantize": {"granularity": "per_block", "block_size": 2, "dtype": "int4"}},
)
_OURS = str(Path(corepress.__file__).parent)


class Hang(BaseException):
    """A run took too long; not an `Exception`, so that nothing catches it."""


def _alarm(number: int, *_: object) -> None:
    raise Hang(f"more than {WALL_SECONDS} s" if number == signal.SIGALRM else f"more than {CPU_SECONDS} s of CPU time")


@contextmanager
def limits() -> Iterator[None]:
    """Limit the address space and the time of what runs inside, where the system can; warnings are errors."""
    before = None
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    except (ImportError, OSError):
        pass
    timers = {}
    if hasattr(signal, "setitimer"):
        timers = {signal.SIGPROF: (signal.ITIMER_PROF, CPU_SECONDS), signal.SIGALRM: (signal.ITIMER_REAL, WALL_SECONDS)}
    handlers = {number: signal.signal(number, _alarm) for number in timers}
    for timer, seconds in timers.values():
        signal.setitimer(timer, seconds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        for timer, _ in timers.values():
            signal.setitimer(timer, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if before is not None:
            resource.setrlimit(resource.RLIMIT_AS, before)


def refused(run: Callable[[], Any]) -> str:
    """Run something; the message of an error that corepress itself raised on purpose, or "" if it succeeds.

    A bare `ValueError` counts only where a `raise` of corepress stands: one from within NumPy tells a user nothing.
    """
    try:
        run()
    except FormatError as error:
        return str(error)
    except ValueError as error:
        last = error.__traceback__
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        assert last is not None
        code, line = last.tb_frame.f_code, linecache.getline(last.tb_frame.f_code.co_filename, last.tb_lineno)
        if not code.co_filename.startswith(_OURS) or not line.lstrip().startswith("raise"):
            raise
        return str(error)
    return ""


def check_reader(parts: Parts, folder: Path) -> str:
    """Open a package, read every constant and every record; the message of what refused it, or ""."""
    package = folder / "source.mlpackage"
    parts.write(package)
    with limits():
        message = refused(lambda: _read_all(package))
        refused(lambda: _read_records(package / "Data/com.apple.CoreML/weights/weight.bin"))
    shutil.rmtree(package)
    return message


def _read_all(path: Path) -> None:
    package = Package.open(path)
    program = Program(package)
    with ValueReader(package) as values:
        for weight in weights_of(program):
            refused(lambda weight=weight: _decode(weight.first, values))
            for step in steps(weight.first):
                for name, value in step.parameters.items():
                    refused(lambda value=value, name=name, step=step: values.read(value, f"{step.where}: {name}"))


def _decode(definition: Definition, values: ValueReader) -> None:
    with suppress(Undecodable):
        form = stored_form(definition, values)
        array = form.dense(num_threads=1) if isinstance(form, CompressedTensor) else form
        assert (array.shape, array.dtype) == (definition.shape, definition.data_type.dtype)


def _read_records(path: Path) -> None:
    with WeightFileReader(path) as reader:
        for record in reader:
            assert reader.array(record).nbytes == record.size
        for offset in range(0, reader.size + 64, 32):
            refused(lambda offset=offset: reader.record(offset))


def check_compress(parts: Parts, folder: Path, choice: int, sound: Path) -> str:
    """Compress, decompress, inspect, plan, verify and compare a package; `sound` is one to compare it with.

    Returns the message of what refused to compress it, or "".
    """
    package = folder / "source.mlpackage"
    parts.write(package)
    config = CONFIGS[choice % len(CONFIGS)]
    options = {"weight_threshold": 0, "joint_compression": bool(choice // len(CONFIGS) % 2)}
    runs: tuple[tuple[str, Callable[[Path], Any]], ...] = (
        ("", lambda _: coreml.inspect(package).to_json()),
        ("", lambda _: coreml.plan(package, config, **options).to_json()),
        ("compressed.mlpackage", lambda path: coreml.compress(package, path, config, num_threads=2, **options)),
        ("dense.mlpackage", lambda path: coreml.decompress(package, path, num_threads=2)),
        ("", lambda _: coreml.verify(sound, package).to_json()),
        ("", lambda _: coreml.verify(package, package).to_json()),
        ("", lambda _: coreml.compare(sound, package).to_json()),
    )
    made, message = {package.name}, ""
    with limits():
        for name, run in runs:
            failed = refused(lambda run=run, name=name: run(folder / name))
            if name == "compressed.mlpackage":
                message = failed
            if name and not failed:
                made.add(name)
                unreadable = refused(lambda name=name: coreml.inspect(folder / name))
                assert not unreadable, f"{name} cannot be read: {unreadable}"
            found = {path.name for path in folder.iterdir()}
            assert found == made, f"{sorted(found)} instead of {sorted(made)} ({failed})"
    assert Parts.read(package) == parts, "the source changed"
    for name in made:
        shutil.rmtree(folder / name)
    return message
