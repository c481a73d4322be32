"""Mixed-bit recipes, our own and Apple's files."""

import json

import pytest

from corepress import Config
from corepress.config.patterns import NamePatterns
from corepress.config.weight_config import KEEP, WeightConfig
from corepress.specs import Palettize

# The parts that matter of what mixed_bit_compression_pre_analysis of apple/ml-stable-diffusion writes.
APPLES = {
    "single_layer": {"1": {"conv_in": [52.1, 50.3], "metadata": {"nbits": 1, "cumulative": False}}},
    "cumulative": {},
    "model_version": "stabilityai/stable-diffusion-xl-base-1.0",
    "baselines": {"original": 82.2, "linear_8bit": 66.0, "recipe_4.50_bit_mixedpalette": 75.8},
    "recipes": {
        "recipe_4.50_bit_mixedpalette": {"conv_in": 16, "down_blocks.0.resnets.0.conv1": 4, "mid_block.proj_in": 6},
        "recipe_2.71_bit_mixedpalette": {"conv_in": 8, "down_blocks.0.resnets.0.conv1": 1, "mid_block.proj_in": 2},
    },
}


def _bits(config, name):
    (found,) = config.for_weight([name], [("op", "conv")])
    return None if found == KEEP else found.steps[0].nbits


def test_a_recipe_is_a_config_of_names():
    config = Config.from_dict({"first": 4, "second": 16, "third": 8})
    assert [_bits(config, name) for name in ("first", "second", "third", "fourth")] == [4, None, 8, None]


@pytest.mark.parametrize("key", ["recipe_2.71_bit_mixedpalette", "2.71", 2.71])
def test_one_of_apples_recipes(tmp_path, key):
    path = tmp_path / "stabilityai-stable-diffusion-xl-base-1.0_palettization_recipe.json"
    path.write_text(json.dumps(APPLES))
    config = Config.load(path, recipe=key)
    assert _bits(config, "unet_conv_in_weight_to_fp16") == 8
    assert _bits(config, "down_blocks_0_resnets_0_conv1_weight") == 1
    assert _bits(config, "unet_mid_block_proj_in_weight_to_fp16_palettized") == 2


def test_which_recipe_must_be_said_if_there_are_several(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(APPLES))
    available = "recipe_4.50_bit_mixedpalette, recipe_2.71_bit_mixedpalette"
    with pytest.raises(ValueError, match=f"recipe.json: recipe: choose one by its key or its bits; .* {available}"):
        Config.load(path)
    with pytest.raises(ValueError, match=r"recipe '4.5_bit': unknown; there are recipe_4.50"):
        Config.load(path, recipe="4.5_bit")
    with pytest.raises(ValueError, match=r"recipe 3.1: unknown"):
        Config.from_recipe(APPLES, 3.1)
    single = {"recipes": {"only": {"a": 4}}}
    assert Config.from_dict(single) == Config.from_recipe(single, "only")
    with pytest.raises(ValueError, match="has one recipe, without a key"):
        Config.from_recipe({"a": 4}, 4.5)


def test_options_for_all_palettes():
    config = Config.from_recipe({"a": 4, "b": 16}, granularity="per_grouped_channel", group_size=8)
    expected = Palettize(nbits=4, granularity="per_grouped_channel", group_size=8)
    assert config.for_weight(["a"], []) == (WeightConfig((expected,)),)
    assert config.for_weight(["b"], []) == (KEEP,)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"a": 5}, "recipe: bits of 'a' must be 16, 32, 1, 2, 3, 4, 6, 8, not 5"),
        ({"recipes": {"x": {"a": "4"}}}, "recipe: bits of 'a' must be .*, not '4'"),
        ({"recipes": {"x": 4}}, "recipe 'x': must be a dict of weight names to bits"),
        ({"recipes": {}}, "there are none"),
    ],
)
def test_wrong_recipes(recipe, message):
    with pytest.raises(ValueError, match=message):
        Config.from_dict(recipe)
    with pytest.raises(ValueError, match="must be a dict of weight names"):
        Config.from_recipe(["a"])


@pytest.mark.parametrize(
    ("module", "weight", "meant"),
    [
        ("conv_in", "conv_in_weight", True),
        ("conv_in", "conv_in", True),
        ("conv_in", "unet_conv_in_weight_to_fp16", True),
        ("conv_in.weight", "unet_conv_in_weight_to_fp16", True),
        ("conv_in", "conv_in_bias", False),
        ("conv_in", "conv_in_2_weight", False),
        ("conv_in", "conv_in_weight_0", True),
        ("conv_in", "my_conv_in_weight_palettized_0", True),
        ("conv_in", "myconv_in_weight", False),
        ("conv_in", "in_weight", False),
        ("odd.name.weight", "odd.name.weight", True),
        ("up.1.proj", "up_1_proj_weight_0", True),
        ("up.1.proj", "up_11_proj_weight_0", False),
        ("up.1.proj", "up_1_proj_out_weight", False),
    ],
)
def test_modules_and_weights(module, weight, meant):
    assert bool(list(NamePatterns([f"module:{module}"]).matching(weight))) == meant
    config = Config.from_dict({"weights": {f"module:{module}": {"palettize": {"nbits": 4}}}})
    assert _bits(config, weight) == (4 if meant else None)


def test_the_more_specific_name_wins():
    config = Config.from_recipe({"up.proj": 8, "proj": 2, "blocks.up.proj": 4})
    names = ("proj_weight", "up_proj_weight", "blocks_up_proj_weight", "unet_blocks_up_proj_weight")
    assert [_bits(config, name) for name in names] == [2, 8, 4, 4]
