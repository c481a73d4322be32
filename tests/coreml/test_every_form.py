"""Every form of a compressed tensor in every specification version: written, and read back by coremltools and by us."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from coreml_helpers import assert_same_bits, blocks_of, digest, float_constants, operations_of, read_spec, weight_file

from corepress import coreml
from corepress.compression import apply
from corepress.coreml.decompressor import lift_definition
from corepress.coreml.format.package import Package
from corepress.coreml.format.values import ValueReader
from corepress.coreml.operations import check_steps, lower
from corepress.coreml.program.program import Program
from corepress.coreml.program.weights import weights_of
from corepress.coreml.rewrite.driver import Outcome, transform
from corepress.errors import Skip
from corepress.specs import Palettize, Prune, Quantize

VERSIONS = (7, 8, 9, 10)
LUT, SPARSE, SCALE = "constexpr_lut_to_dense", "constexpr_sparse_to_dense", "constexpr_blockwise_shift_scale"
LUT_SPARSE, SCALE_SPARSE = "constexpr_lut_to_sparse", "constexpr_sparse_blockwise_shift_scale"
AFFINE = "constexpr_affine_dequantize"
GROUPED = {"granularity": "per_grouped_channel", "group_size": 8}
SCALED = {"enable_per_channel_scale": True}
HALF = Prune(target_sparsity=0.5)


@dataclass(frozen=True)
class Form:
    """Steps, and the chain of operations of each specification version that can hold their result."""

    name: str
    steps: tuple
    ios18: tuple
    ios26: tuple
    ios16: tuple = field(default=())

    def chain(self, version):
        return self.ios16 if version < 9 else self.ios18 if version == 9 else self.ios26


FORMS = [
    Form("palette", (Palettize(nbits=4),), (LUT,), (LUT,), (LUT,)),
    Form("palette of 3 bits", (Palettize(nbits=3),), (LUT,), (LUT,)),
    Form("grouped palette", (Palettize(nbits=2, **GROUPED),), (LUT,), (LUT,)),
    Form("palette grouped along inputs", (Palettize(nbits=2, channel_axis=1, **GROUPED),), (LUT,), (LUT,)),
    Form("scaled palette", (Palettize(nbits=4, **SCALED),), (LUT,), (LUT, SCALE)),
    Form("scaled grouped palette", (Palettize(nbits=2, **SCALED, **GROUPED),), (LUT,), (LUT, SCALE)),
    Form("palette of vectors", (Palettize(nbits=4, cluster_dim=2),), (LUT,), (LUT,)),
    Form("grouped palette of vectors", (Palettize(nbits=2, cluster_dim=4, **GROUPED),), (LUT,), (LUT,)),
    Form("scaled palette of vectors", (Palettize(nbits=4, cluster_dim=2, **SCALED),), (), (LUT, SCALE)),
    Form("quantized table of vectors", (Palettize(nbits=4, cluster_dim=2), Quantize()), (SCALE, LUT), (LUT, SCALE)),
    Form("quantized", (Quantize(),), (SCALE,), (SCALE,), (AFFINE,)),
    Form("quantized linear", (Quantize(dtype="uint8", mode="linear"),), (SCALE,), (SCALE,), (AFFINE,)),
    Form("quantized blocks", (Quantize(dtype="int4", granularity="per_block", block_size=8),), (SCALE,), (SCALE,)),
    Form("sparse", (HALF,), (SPARSE,), (SPARSE,), (SPARSE,)),
    Form("sparse palette", (HALF, Palettize(nbits=4)), (LUT_SPARSE, SPARSE), (LUT_SPARSE, SPARSE)),
    Form("sparse grouped palette", (HALF, Palettize(nbits=2, **GROUPED)), (LUT_SPARSE, SPARSE), (LUT_SPARSE, SPARSE)),
    Form(
        "sparse palette grouped along inputs",
        (HALF, Palettize(nbits=3, channel_axis=1, **GROUPED)),
        (LUT_SPARSE, SPARSE),
        (LUT_SPARSE, SPARSE),
    ),
    Form("sparse scaled palette", (HALF, Palettize(nbits=2, **SCALED)), (LUT_SPARSE, SPARSE), (LUT_SPARSE, SPARSE)),
    Form("sparse quantized", (HALF, Quantize()), (SCALE_SPARSE, SPARSE), (SCALE_SPARSE, SPARSE)),
    Form(
        "sparse quantized blocks",
        (HALF, Quantize(dtype="uint4", mode="linear", granularity="per_block", block_size=16)),
        (SCALE_SPARSE, SPARSE),
        (SCALE_SPARSE, SPARSE),
    ),
    Form("quantized table", (Palettize(nbits=4), Quantize()), (SCALE, LUT), (LUT, SCALE)),
    Form("quantized tables", (Palettize(nbits=4, **GROUPED), Quantize()), (SCALE, LUT), (LUT, SCALE)),
    Form(
        "quantized tables of one scale",
        (Palettize(nbits=4, **GROUPED), Quantize(dtype="uint8", mode="linear", granularity="per_tensor")),
        (SCALE, LUT),
        (LUT, SCALE),
    ),
    Form("scaled quantized table", (Palettize(nbits=4, **SCALED), Quantize()), (LUT,), (LUT, SCALE, SCALE)),
    Form("palettized codes", (Quantize(granularity="per_tensor"), Palettize(nbits=4)), (SCALE, LUT), (LUT, SCALE)),
    Form("palettized codes of channels", (Quantize(), Palettize(nbits=4)), (SCALE, LUT), (LUT, SCALE)),
    Form(
        "palettized codes of channels in groups",
        (Quantize(dtype="uint8", mode="linear"), Palettize(nbits=2, **GROUPED)),
        (SCALE, LUT),
        (LUT, SCALE),
    ),
    Form("palette pruned", (Palettize(nbits=4, **GROUPED), HALF), (LUT_SPARSE, SPARSE), (LUT_SPARSE, SPARSE)),
    Form("quantized pruned", (Quantize(mode="linear"), HALF), (SCALE_SPARSE, SPARSE), (SCALE_SPARSE, SPARSE)),
    Form(
        "sparse quantized table",
        (HALF, Palettize(nbits=4, **GROUPED), Quantize()),
        (SCALE, LUT_SPARSE, SPARSE),
        (SCALE, LUT_SPARSE, SPARSE),
    ),
    Form(
        "quantized table pruned",
        (Palettize(nbits=4), Quantize(), HALF),
        (SCALE, LUT_SPARSE, SPARSE),
        (SCALE, LUT_SPARSE, SPARSE),
    ),
    Form(
        "sparse palettized codes",
        (HALF, Quantize(), Palettize(nbits=2)),
        (SCALE, LUT_SPARSE, SPARSE),
        (SCALE, LUT_SPARSE, SPARSE),
    ),
    Form(
        "palettized codes pruned",
        (Quantize(dtype="uint8", mode="linear"), Palettize(nbits=2), HALF),
        (SCALE, LUT_SPARSE, SPARSE),
        (SCALE, LUT_SPARSE, SPARSE),
    ),
]
MATRIX = [
    pytest.param(form, version, id=f"{form.name}-{version}".replace(" ", "_"))
    for form in FORMS
    for version in VERSIONS
    if form.chain(version)
]
REFUSED = [
    pytest.param(form, version, id=f"{form.name}-{version}".replace(" ", "_"))
    for form in FORMS
    for version in VERSIONS
    if not form.chain(version)
]


def _weights(*shape):
    rng = np.random.default_rng([5, *shape])
    weight = 0.05 * rng.standard_normal(shape) * np.exp(rng.standard_normal((shape[0],) + (1,) * (len(shape) - 1)))
    weight[1] = 0
    return weight.astype(np.float16)


LINEAR, CONV = _weights(64, 96), _weights(32, 16, 3, 3)


@pytest.fixture(scope="module")
def sources(build):
    """By specification version: a linear layer's weight twice, once in a branch, and a convolution's."""

    def body(mb, x, image):
        x = mb.cast(x=x, dtype="fp16")
        image = mb.cast(x=image, dtype="fp16")
        rows = mb.linear(x=x, weight=LINEAR, name="linear")
        chosen = mb.cond(
            pred=mb.less(x=mb.reduce_sum(x=rows), y=np.float16(0)),
            _true_fn=lambda: mb.linear(x=x, weight=-LINEAR, name="then"),
            _false_fn=lambda: mb.identity(x=rows),
        )
        return chosen, mb.conv(x=image, weight=CONV, pad_type="same", name="conv")

    inputs = {"x": ((2, 96), np.float32), "image": ((1, 16, 8, 8), np.float32)}
    return {version: build(body, inputs, version, name=f"spec{version}") for version in VERSIONS}


def _compress(source, destination, steps):
    """Compress every matrix by all steps; returns the tensors by name."""
    tensors = {}

    def decide(program, values, weight):
        if len(weight.first.shape) < 2:
            raise Skip("a vector", expected=True)

        def task(threads):
            tensor = values.read(weight.first.parameters["val"], weight.first.where).data
            for step in steps:
                tensor = apply(tensor, step)
            tensors[weight.first.name] = tensor
            return Outcome(lower(tensor, program.version), "compressed", "")

        return task

    transform(
        source, destination, decide, prepare=lambda program: None, progress=None, overwrite=False, num_threads=None
    )
    return tensors


def _chain_types(package, name):
    """Types of the operations that a constant is made of, in the order of the program."""
    for block in blocks_of(read_spec(package)):
        producers = {output.name: each for each in block.operations for output in each.outputs}
        if name not in producers:
            continue
        chain, pending = [], [producers[name]]
        while pending:
            operation = pending.pop()
            chain.append(operation)
            arguments = [binding for each in operation.inputs.values() for binding in each.arguments]
            pending += {
                id(producers[each.name]): producers[each.name]
                for each in arguments
                if each.WhichOneof("binding") == "name"
            }.values()
        order = [each.outputs[0].name for each in block.operations]
        places = [order.index(each.outputs[0].name) for each in chain]
        assert places == sorted(places, reverse=True), "producers stand before what uses them"
        return tuple(each.type for each in reversed(chain))
    raise AssertionError(f"no constant {name}")


def _lifted(package):
    program = Program(Package.open(package))
    with ValueReader(Package.open(package)) as values:
        return {
            weight.first.name: lift_definition(weight.first, values)
            for weight in weights_of(program)
            if weight.first.operation.type != "const" and not weight.feeds_definition
        }


@pytest.mark.parametrize(("form", "version"), MATRIX)
def test_coremltools_decompresses_to_the_same_bits(sources, tmp_path, form, version):
    check_steps(form.steps, version)
    path = tmp_path / "compressed.mlpackage"
    tensors = _compress(sources[version], path, form.steps)
    assert len(tensors) == 3
    decoded = float_constants(path)
    lifted = _lifted(path)
    for name, tensor in tensors.items():
        assert _chain_types(path, name) == form.chain(version)
        assert_same_bits(decoded[name], tensor.dense(), name)
        assert_same_bits(lifted[name].dense(), tensor.dense(), name)
    # Names stay unique, and the weight file holds what the records say and nothing else.
    for block in blocks_of(read_spec(path)):
        names = [output.name for operation in block.operations for output in operation.outputs]
        assert len(names) == len(set(names))
    stored = sum(each.bytes for each in coreml.inspect(path).weights if len(each.shape) > 1)
    assert weight_file(path).stat().st_size <= stored + 64 * 2 * 20 + 2000


@pytest.mark.parametrize(("form", "version"), REFUSED)
def test_older_versions_refuse_with_the_version_that_can(sources, tmp_path, form, version):
    with pytest.raises(ValueError, match=r"needs specification version (9|10) "):
        check_steps(form.steps, version)
    tensor = LINEAR
    for step in form.steps:
        tensor = apply(tensor, step)
    if form.name != "palette of 3 bits":  # which takes four bits there
        with pytest.raises(ValueError, match=r"needs? specification version (9|10)"):
            lower(tensor, version)


@pytest.mark.parametrize(("form", "version"), MATRIX)
def test_decompressing_takes_the_whole_chain_out(sources, tmp_path, form, version):
    path, dense = tmp_path / "compressed.mlpackage", tmp_path / "dense.mlpackage"
    tensors = _compress(sources[version], path, form.steps)
    before = digest(path)
    report = coreml.decompress(path, dense)
    assert digest(path) == before
    assert report.decompressed == 3
    assert not [each.type for each in operations_of(read_spec(dense)) if each.type.startswith("constexpr_")]
    decoded = float_constants(dense)
    for name, tensor in tensors.items():
        assert_same_bits(decoded[name], tensor.dense(), name)
    assert weight_file(dense).stat().st_size == weight_file(sources[version]).stat().st_size


@pytest.mark.parametrize(("form", "version"), [each for each in MATRIX if each.values[1] >= 9])
def test_what_is_read_back_can_be_written_again(sources, tmp_path, form, version):
    path = tmp_path / "compressed.mlpackage"
    _compress(sources[version], path, form.steps)
    for name, tensor in _lifted(path).items():
        again = lower(tensor, version)
        assert tuple(each.type for each in again.chain()) == form.chain(version), name


@pytest.mark.parametrize("version", [9, 10])
@pytest.mark.parametrize(
    "steps",
    [
        (Palettize(nbits=4),),
        (Quantize(dtype="int4"),),
        (Palettize(nbits=2), Quantize()),
        (Quantize(), Palettize(nbits=3)),
    ],
)
def test_weights_of_which_nothing_survives(sources, tmp_path, version, steps):
    path, dense = tmp_path / "compressed.mlpackage", tmp_path / "dense.mlpackage"
    tensors = _compress(sources[version], path, (Prune(target_sparsity=1.0), *steps))
    decoded, lifted = float_constants(path), _lifted(path)
    assert [decoded[name].any() for name in tensors] == [False] * 3
    assert [lifted[name].nnz for name in tensors] == [0] * 3
    assert coreml.decompress(path, dense).decompressed == 3
