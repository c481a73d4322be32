"""`coreml.verify` accepts what the functions in coremltools' place return, with the names that coremltools gives."""

import numpy as np
import pytest
from coreml_helpers import quiet
from dropin_helpers import normal

from corepress import coreml
from corepress.coreml.format import schema
from corepress.coreml.program.renames import restore_names


def palettized(cto, model):
    return cto.palettize_weights(model, cto.OptimizationConfig(cto.OpPalettizerConfig(nbits=4, weight_threshold=0)))


def quantized(cto, model):
    return cto.linear_quantize_weights(model, cto.OptimizationConfig(cto.OpLinearQuantizerConfig(weight_threshold=0)))


def pruned(cto, model):
    config = cto.OpMagnitudePrunerConfig(target_sparsity=0.6, weight_threshold=0)
    return cto.prune_weights(model, cto.OptimizationConfig(config))


def scaled(cto, model):
    config = cto.OpPalettizerConfig(nbits=4, enable_per_channel_scale=True, weight_threshold=0)
    return cto.palettize_weights(model, cto.OptimizationConfig(config))


def pruned_and_palettized(cto, model):
    config = cto.OptimizationConfig(cto.OpPalettizerConfig(nbits=4, weight_threshold=0))
    return cto.palettize_weights(pruned(cto, model), config, joint_compression=True)


def unchanged(cto, model):
    return cto.palettize_weights(model, cto.OptimizationConfig(cto.OpPalettizerConfig(nbits=4, weight_threshold=10**9)))


@pytest.fixture
def saved(tmp_path):
    def save(model, name):
        with quiet():
            model.save(str(tmp_path / name))
        return tmp_path / name

    return save


@pytest.mark.parametrize(
    "verb", [palettized, quantized, pruned, scaled, pruned_and_palettized, unchanged], ids=lambda verb: verb.__name__
)
def test_results_of_the_functions_are_verified(cto, two_layers, saved, verb):
    model = two_layers()
    source = saved(model, "source.mlpackage")
    with quiet():
        result = saved(verb(cto, model), "result.mlpackage")
    verification = coreml.verify(source, result)
    assert verification.ok, verification.all_problems
    found = {weight.name: weight.status for weight in verification.weights}
    expected = "identical" if verb is unchanged else "compressed"
    assert {found["conv_weight_0_to_fp16"], found["linear_weight_0_to_fp16"]} == {expected}
    comparison = coreml.compare(source, result)
    assert comparison.only_in_first == comparison.only_in_second == ()


@pytest.mark.parametrize("verb", [palettized, quantized, pruned, unchanged], ids=lambda verb: verb.__name__)
def test_results_that_were_raised_to_ios16_are_verified(cto, convert, saved, verb):
    def body(mb, x):
        table = mb.gather(x=normal(70, 64, seed=1), indices=np.arange(48, dtype=np.int32), axis=0)
        x = mb.transpose(x=mb.linear(x=x, weight=normal(64, 64, seed=3)), perm=[1, 0])  # without names of their own
        return mb.topk(x=mb.matmul(x=table, y=x), k=3)[0]

    model = convert(body, (8, 64), target="iOS15")
    source = saved(model, "source.mlpackage")
    with quiet():
        result = saved(verb(cto, model), "result.mlpackage")
    assert schema.read_model(result / "Data/com.apple.CoreML/model.mlmodel").specificationVersion == 7
    verification = coreml.verify(source, result)
    assert verification.ok, verification.all_problems


@pytest.fixture
def renamed_package(cto, two_layers, saved):
    """A package, its palettized form, and how to change the program of that."""
    model = two_layers()
    source = saved(model, "source.mlpackage")
    with quiet():
        result = saved(palettized(cto, model), "result.mlpackage")

    def edit(change):
        path = result / "Data/com.apple.CoreML/model.mlmodel"
        message = schema.read_model(path)
        (block,) = message.mlProgram.functions["main"].block_specializations.values()
        change(block)
        path.write_bytes(schema.serialize_model(message))
        return coreml.verify(source, result)

    return edit


def _operation(block, kind):
    return next(operation for operation in block.operations if operation.type == kind)


def test_a_constant_in_the_place_of_another_is_found(renamed_package):
    def swap(block):
        tables = [each for each in block.operations if each.type.startswith("constexpr_")]
        names = [each.outputs[0].name for each in tables]
        _operation(block, "conv").inputs["weight"].arguments[0].name = names[1]
        _operation(block, "linear").inputs["weight"].arguments[0].name = names[0]

    assert not renamed_package(swap).ok


def test_an_operation_under_another_name_is_found(renamed_package):
    def rename(block):
        old = _operation(block, "reduce_mean").outputs[0].name
        _operation(block, "reduce_mean").outputs[0].name = "other"
        for argument in _operation(block, "linear").inputs.values():
            for binding in argument.arguments:
                binding.name = "other" if binding.name == old else binding.name

    assert not renamed_package(rename).ok


def test_names_are_restored_only_where_they_are_free():
    def model(*names):
        message = schema.Model()
        function = message.mlProgram.functions["main"]
        function.inputs.add(name="x")
        block = function.block_specializations["CoreML7"]
        for name in names:
            block.operations.add(type="const").outputs.add(name=name)
        for name in names:
            use = block.operations.add(type="relu")
            use.inputs["x"].arguments.add().name = name
            use.outputs.add(name=f"out_{len(block.operations)}")
        return message

    def names(message):
        (block,) = message.mlProgram.functions["main"].block_specializations.values()
        return [each.outputs[0].name for each in block.operations if each.type == "const"]

    other = model("a_palettized", "b_quantized")
    assert restore_names(model("a", "b"), other)
    assert names(other) == ["a", "b"]
    swapped = model("b", "a")
    assert not restore_names(model("a", "b"), swapped)
    assert names(swapped) == ["b", "a"]
    assert not restore_names(model("a", "b"), model("a", "b"))
