"""A leading ~ stands for the home folder in every path that a function takes."""

import shutil

import numpy as np
import pytest

from corepress import Config, coreml, neural_network
from corepress.neural_network.schema import Model

FOUR = {"palettize": {"nbits": 4}}


@pytest.fixture
def home(trained_package, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    shutil.copytree(trained_package, tmp_path / "a.mlpackage")
    message = Model(specificationVersion=1)
    layer = message.neuralNetwork.layers.add(name="fc")
    layer.innerProduct.inputChannels, layer.innerProduct.outputChannels = 60, 40
    layer.innerProduct.weights.floatValue.append(np.linspace(-1, 1, 2400, dtype="<f4").tobytes())
    (tmp_path / "a.mlmodel").write_bytes(message.SerializeToString())
    (tmp_path / "config.json").write_text('{"palettize": {"nbits": 4}}')
    return tmp_path


def test_packages(home):
    report = coreml.compress("~/a.mlpackage", "~/b.mlpackage", "~/config.json")
    assert (home / "b.mlpackage").is_dir()
    assert coreml.verify("~/a.mlpackage", "~/b.mlpackage").ok
    assert coreml.compare("~/a.mlpackage", "~/b.mlpackage").different
    assert coreml.inspect("~/b.mlpackage").weights
    assert coreml.plan("~/a.mlpackage", FOUR).compressed == report.compressed
    coreml.decompress("~/b.mlpackage", "~/c.mlpackage")
    report.save("~/report.json")
    assert coreml.Report.load("~/report.json") == report
    assert Config.load("~/config.json") == Config.from_dict(FOUR)
    with pytest.raises(ValueError, match="must not be, contain or be inside the source"):
        coreml.compress(home / "a.mlpackage", "~/a.mlpackage", FOUR, overwrite=True)
    assert {path.name for path in home.iterdir()} == {
        *("a.mlpackage", "b.mlpackage", "c.mlpackage", "a.mlmodel", "config.json", "report.json")
    }


def test_networks(home):
    neural_network.quantize_weights("~/a.mlmodel", 8, destination="~/b.mlmodel")
    assert neural_network.verify("~/a.mlmodel", "~/b.mlmodel").ok
    assert neural_network.inspect("~/b.mlmodel").weights
    assert neural_network.plan("~/a.mlmodel", 8).compressed == 1
    assert neural_network.compare_models("~/a.mlmodel", "~/b.mlmodel").weights
    neural_network.decompress("~/b.mlmodel", destination="~/c.mlmodel")
    neural_network.convert_to_fp16("~/a.mlmodel", destination="~/d.mlmodel")
    with pytest.raises(ValueError, match="must not be the source"):
        neural_network.quantize_weights(home / "a.mlmodel", 8, destination="~/a.mlmodel", overwrite=True)
    assert all((home / f"{name}.mlmodel").is_file() for name in "abcd")
