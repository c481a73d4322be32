"""A source that changes while it is read: an error, never a signal, and nothing is written."""

import os
import random
import subprocess
import sys

import pytest
from changing_sources import build, change

from corepress import SourceChangedError, coreml

VERBS = {
    "compress": "coreml.compress(source, output, {'palettize': {'nbits': 4}}, progress=lambda _: meanwhile())",
    "decompress": "coreml.decompress(source, output, progress=lambda _: meanwhile())",
    "plan": "meanwhile_at(planning, 'stored_size'); coreml.plan(source, {'quantize': {}})",
    "inspect": "meanwhile_at(inspector, 'visible_weights'); coreml.inspect(source)",
    "verify": "meanwhile_at(verify, 'differences'); coreml.verify(source, same)",
    "compare": "meanwhile_at(compare_weights, 'visible_weights'); coreml.compare(source, same)",
}
CODE = """
import random, sys, importlib
sys.path.insert(0, sys.argv[4])
from pathlib import Path
from changing_sources import change
from corepress import SourceChangedError, coreml
planning, inspector, verify, compare_weights = (importlib.import_module(f"corepress.coreml.{name}") for name in (
    "plan", "inspector", "verify", "compare_weights"))
source, same, output = map(Path, sys.argv[1:4])
todo = [lambda: change(source, sys.argv[5], random.Random(0))]

def meanwhile():
    if todo:
        todo.pop()()

def meanwhile_at(module, name):
    original = getattr(module, name)
    setattr(module, name, lambda *arguments: (meanwhile(), original(*arguments))[1])

try:
    VERB
except SourceChangedError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return build(tmp_path_factory.mktemp("original") / "same.mlpackage", side=256, layers=3)


@pytest.mark.skipif(sys.platform == "win32", reason="files that are mapped cannot be cut short there")
@pytest.mark.parametrize("how", ["truncated", "rewritten", "replaced", "removed"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_change_is_an_error(original, tmp_path, verb, how):
    source = build(tmp_path / "source.mlpackage", side=256, layers=3)
    code = CODE.replace("VERB", VERBS[verb])
    fuzz = os.path.dirname(sys.modules["changing_sources"].__file__)
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code, source, original, tmp_path / "out.mlpackage", fuzz, how],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "nothing was written. Run again" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} <= {"source.mlpackage"}


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is mapped does not become shorter there")
def test_a_lost_page_is_found_without_a_change_of_times(tmp_path):
    """Even where the file is as long as before again when it is looked at."""
    source = build(tmp_path / "source.mlpackage", side=256, layers=3)
    state = os.stat(source / "Data/com.apple.CoreML/weights/weight.bin")

    def cut(progress):
        change(source, "truncated", random.Random(1))
        os.utime(source / "Data/com.apple.CoreML/weights/weight.bin", ns=(state.st_atime_ns, state.st_mtime_ns))

    with pytest.raises(SourceChangedError):
        coreml.compress(source, tmp_path / "out.mlpackage", {"quantize": {}}, progress=cut)
