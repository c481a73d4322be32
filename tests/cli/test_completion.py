"""What shells offer after Tab: commands, flags, and the values of flags."""

import pytest
from click.shell_completion import ShellComplete

from corepress.cli.group import corepress
from corepress.cli.options import MORE_VALUES
from corepress.neural_network.modes import QUANTIZATION_MODES
from corepress.specs import SPECS


def completions(*words):
    """What is offered for the last word: its values, or the kind of path."""
    *before, last = words
    found = ShellComplete(corepress, {}, "corepress", "_COREPRESS_COMPLETE").get_completions(list(before), last)
    return [item.value if item.type == "plain" else item.type for item in found]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("pal", ["palettize"]),
        ("palettize --gran", ["--granularity"]),
        ("palettize --granularity per_t", ["per_tensor"]),
        ("palettize --nbits ", ["1", "2", "3", "4", "6", "8"]),
        ("palettize --mode u", ["uniform", "unique"]),
        ("quantize --dtype i", ["int8", "int4", "int2"]),
        ("quantize --scale-search m", ["mse"]),
        ("quantize --mode k", ["kmeans_lut"]),
        ("palettize --mode k", ["kmeans"]),
        ("quantize --layer-type conv", ["convolution", "convolution3d"]),
        ("prune --dim ", ["0", "1"]),
        ("compress --config rec", ["file"]),
        ("compress --target a", ["ane"]),
        ("bench --model fl", ["flux1-dev"]),
        ("palettize UNet", ["file"]),
        ("palettize a --report r", ["file"]),
        ("demo --output f", ["dir"]),
    ],
)
def test_values_are_offered(line, offered):
    words = line.split(" ")
    assert [value for value in completions(*words) if not value.startswith("range")] == offered


def test_every_flag_with_a_list_of_values_offers_them():
    for name, command in corepress.commands.items():
        for option in command.params:
            if option.metavar and option.metavar.startswith("["):
                offered = completions(name, option.opts[0], "")
                values = [each.strip(".") for each in option.metavar.strip("[]").split("|")]
                assert set(values) <= set(offered), (name, option.opts[0])


def test_modes_of_networks_are_known():
    assert set(MORE_VALUES["quantize", "mode"]) <= set(QUANTIZATION_MODES)
    for verb, name in MORE_VALUES:
        assert name in {each.name for each in corepress.commands[SPECS[verb].verb].params}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_each_shell(process, shell):
    outcome = process(_COREPRESS_COMPLETE=f"{shell}_source")
    assert outcome.status == 0
    assert "_COREPRESS_COMPLETE" in outcome.out
