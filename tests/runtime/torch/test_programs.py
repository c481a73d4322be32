"""Programs as they run: binding, control flow, states, precision, and the module."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from corepress import FormatError, coreml
from corepress.coreml.format.package import Package
from corepress.coreml.format.schema import read_model, serialize_model
from corepress.errors import UnsupportedOperationError
from corepress.runtime.torch.schedule import OperationError

X = {"x": ((2, 3), "float32")}


def damage(path, change):
    """Edit the model of a package."""
    package = Package.open(path)
    model = read_model(package.model_path)
    change(next(iter(model.mlProgram.functions["main"].block_specializations.values())))
    package.model_path.write_bytes(serialize_model(model))


def test_a_program_of_several_outputs(mb, save, load, rng):
    x = rng.standard_normal((2, 3)).astype(np.float32)
    model = load(save(lambda x: (mb.relu(x=x, name="a"), mb.split(x=x, num_splits=3, axis=1, name="b")[1]), inputs=X))
    found = model.predict({"x": x})
    np.testing.assert_array_equal(found["a"], np.maximum(x, 0))
    np.testing.assert_array_equal(list(found.values())[1], x[:, 1:2])


def test_options_that_the_program_computes(mb, save, load, rng):
    x = rng.standard_normal((2, 3)).astype(np.float32)
    model = load(
        save(lambda x: mb.reshape(x=x, shape=mb.concat(values=[mb.shape(x=x), [1]], axis=0), name="y"), inputs=X)
    )
    assert model.predict({"x": x})["y"].shape == (2, 3, 1)


@pytest.mark.parametrize("sign", [1, -1])
def test_both_branches_see_outer_values(mb, save, load, sign):
    def body(x):
        total = mb.reduce_sum(x=x, axes=[0, 1])
        doubled = mb.mul(x=x, y=np.float32(2))
        positive = mb.greater(x=total, y=np.float32(0))
        return mb.cond(
            pred=positive, _true_fn=lambda: mb.add(x=doubled, y=x), _false_fn=lambda: mb.sub(x=doubled, y=x), name="y"
        )

    x = np.full((2, 3), sign, np.float32)
    np.testing.assert_array_equal(load(save(body, inputs=X)).predict({"x": x})["y"], x * (3 if sign > 0 else 1))


def test_a_loop_carries_variables_and_sees_outer_values(mb, save, load):
    def body(x):
        return mb.while_loop(
            _cond=lambda i, total: mb.less(x=i, y=np.float32(5)),
            _body=lambda i, total: (mb.add(x=i, y=np.float32(1)), mb.add(x=total, y=mb.mul(x=x, y=i))),
            loop_vars=(np.float32(0), mb.mul(x=x, y=np.float32(0))),
            name="y",
        )

    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = list(load(save(body, inputs=X)).predict({"x": x}).values())
    assert found[0] == 5
    np.testing.assert_array_equal(found[1], 10 * x)


def test_loops_nest(mb, save, load):
    def body(x):
        def outer(i, total):
            _, inner = mb.while_loop(
                _cond=lambda j, value: mb.less(x=j, y=i),
                _body=lambda j, value: (mb.add(x=j, y=np.float32(1)), mb.add(x=value, y=x)),
                loop_vars=(np.float32(0), total),
            )
            return mb.add(x=i, y=np.float32(1)), inner

        return mb.while_loop(
            _cond=lambda i, total: mb.less(x=i, y=np.float32(4)),
            _body=outer,
            loop_vars=(np.float32(0), mb.mul(x=x, y=np.float32(0))),
        )

    x = np.ones((2, 3), np.float32)
    found = list(load(save(body, inputs=X)).predict({"x": x}).values())
    np.testing.assert_array_equal(found[1], (0 + 1 + 2 + 3) * x)


def test_a_loop_without_end(mb, save, load, monkeypatch):
    def body(x):
        return mb.while_loop(
            _cond=lambda i: mb.less(x=i, y=np.float32(np.inf)),
            _body=lambda i: mb.mul(x=i, y=np.float32(1)),
            loop_vars=(mb.reduce_sum(x=x, axes=[0, 1]),),
            name="endless",
        )

    model = load(save(body, inputs=X))
    monkeypatch.setattr("corepress.runtime.torch.binding.MOST_ITERATIONS", 1000)
    with pytest.raises(OperationError, match=r"while_loop endless: has not ended after 1000 iterations"):
        model.predict({"x": np.ones((2, 3), np.float32)})


def test_states_last_between_runs_and_start_with_zeros(mb, save, load):
    def body(x, memory):
        updated = mb.add(x=mb.read_state(input=memory), y=mb.cast(x=x, dtype="fp16"))
        mb.coreml_update_state(state=memory, value=updated)
        return mb.mul(x=mb.read_state(input=memory), y=np.float16(2), name="y")

    path = save(body, inputs={**X, "memory": ((2, 3), "float16")}, states=("memory",))
    model = load(path)
    first, second = model.make_state(), model.make_state()
    x = np.ones((2, 3), np.float32)
    for times in (1, 2, 3):
        np.testing.assert_array_equal(model.predict({"x": x}, first)["y"], 2 * times * x)
    np.testing.assert_array_equal(model.predict({"x": x}, second)["y"], 2 * x)
    assert first.read_state("memory").dtype == np.float16
    np.testing.assert_array_equal(first.read_state("memory"), 3 * x)
    first.write_state("memory", np.full((2, 3), 7, np.float16))
    np.testing.assert_array_equal(model.predict({"x": x}, first)["y"], 16 * x)
    with pytest.raises(ValueError, match="no state 'other'; it has memory"):
        first.read_state("other")
    with pytest.raises(ValueError, match=r"memory has shape \(2, 3\), not \(3,\)"):
        first.write_state("memory", np.zeros(3))
    with pytest.raises(ValueError, match="has a state 'memory'"):
        model.predict({"x": x})


def test_functions_have_their_own_operations(mb, save, load):
    path = save(lambda x: mb.relu(x=x, name="y"), lambda x: mb.square(x=x, name="y"), inputs=X)
    x = np.full((2, 3), -3, np.float32)
    assert load(path).predict({"x": x})["y"][0, 0] == 0
    assert load(path, function_name="f1").predict({"x": x})["y"][0, 0] == 9
    with pytest.raises(ValueError, match="no function 'f2'; the model has f1, main"):
        load(path, function_name="f2")


def half_program(mb):
    def body(x):
        third = mb.mul(x=mb.cast(x=x, dtype="fp16"), y=np.float16(1 / 3), name="third")
        return mb.cast(x=mb.mul(x=third, y=third, name="ninth"), dtype="fp32", name="y")

    return body


def test_float16_is_rounded_to_once_per_operation(mb, save, load, rng):
    path = save(half_program(mb), inputs=X)
    x = rng.standard_normal((2, 3)).astype(np.float32)
    third = (x.astype(np.float16).astype(np.float32) * np.float16(1 / 3).astype(np.float32)).astype(np.float16)
    ninth = (third.astype(np.float32) ** 2).astype(np.float16)
    found = load(path, "float16").predict({"x": x})["y"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, ninth.astype(np.float32))


def test_float32_never_rounds(mb, save, load, rng):
    path = save(half_program(mb), inputs=X)
    x = rng.standard_normal((2, 3)).astype(np.float32)
    exact = (x * np.float32(np.float16(1 / 3))) ** 2
    np.testing.assert_allclose(load(path, "float32").predict({"x": x})["y"], exact, rtol=1e-6)


def test_float16_overflows_to_infinity(mb, save, load):
    path = save(lambda x: mb.mul(x=mb.cast(x=x, dtype="fp16"), y=np.float16(60000), name="y"), inputs=X)
    x = np.full((2, 3), 2, np.float32)
    assert np.isinf(load(path, "float16").predict({"x": x})["y"]).all()
    np.testing.assert_array_equal(load(path, "float32").module({"x": torch.tensor(x)})["y"], 120_000)


def test_every_value_by_name_and_in_order(mb, save, load):
    def body(x):
        doubled = mb.mul(x=x, y=np.float32(2), name="doubled")
        looped = mb.while_loop(
            _cond=lambda i: mb.less(x=i, y=np.float32(2), name="test"),
            _body=lambda i: mb.add(x=i, y=np.float32(1), name="next"),
            loop_vars=(np.float32(0),),
            name="loop",
        )
        return mb.add(x=doubled, y=looped, name="y")

    model = load(save(body, inputs=X))
    x = np.ones((2, 3), np.float32)
    found = list(model.values({"x": x}))
    assert [name for name, _ in found] == ["doubled", "test", "next", "test", "next", "test", "loop", "y"]
    np.testing.assert_array_equal(dict(found)["y"], model.predict({"x": x})["y"])


def test_values_are_freed_after_their_last_use(mb, save, load):
    def body(x):
        for _ in range(6):
            x = mb.sin(x=x)
        return mb.identity(x=x, name="y")

    module = load(save(body, inputs=X)).module
    alive = []
    module.observe(
        lambda step, values: alive.append(sum(isinstance(each, torch.Tensor) for each in values)),
        {"x": torch.ones(2, 3)},
    )
    assert max(alive) <= 2  # what an operation takes, and what it yields


def linear_program(mb, rng, dtype=np.float16):
    weight, bias = rng.standard_normal((40, 32)).astype(dtype), rng.standard_normal(40).astype(dtype)

    def body(x):
        kind = "fp16" if dtype is np.float16 else "fp32"
        x = mb.linear(
            x=mb.cast(x=x, dtype=kind), weight=mb.const(val=weight, name="weight"), bias=mb.const(val=bias, name="bias")
        )
        return mb.tanh(x=x, name="y")

    return body, weight, bias


WIDE = {"x": ((4, 32), "float32")}


def test_weights_are_parameters_in_their_stored_type(mb, save, load, rng):
    body, weight, _ = linear_program(mb, rng)
    module = load(save(body, inputs=WIDE)).module
    parameters = dict(module.named_parameters())
    assert set(parameters) == {"weight", "bias"}
    assert parameters["weight"].dtype == torch.float16
    np.testing.assert_array_equal(parameters["weight"].detach().numpy(), weight)
    assert set(module.state_dict()) == {"weight", "bias"}


def test_gradients_reach_weights_and_inputs(mb, save, load, rng):
    body, weight, bias = linear_program(mb, rng, np.float32)
    module = load(save(body, inputs=WIDE)).module
    x = torch.tensor(rng.standard_normal((4, 32)).astype(np.float32), requires_grad=True)
    module({"x": x})["y"].sum().backward()
    expected_x, expected_weight = x.detach().clone().requires_grad_(), torch.tensor(weight, requires_grad=True)
    torch.tanh(torch.nn.functional.linear(expected_x, expected_weight, torch.tensor(bias))).sum().backward()
    torch.testing.assert_close(x.grad, expected_x.grad)
    torch.testing.assert_close(module.get_parameter("weight").grad, expected_weight.grad)


def test_a_module_can_be_trained_in_float32(mb, save, load, rng):
    body, *_ = linear_program(mb, rng)
    module = load(save(body, inputs=WIDE)).module.float()
    x, wanted = torch.ones(4, 32), torch.zeros(4, 40)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    losses = []
    for _ in range(40):
        loss = (module({"x": x})["y"] - wanted).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_a_changed_parameter_changes_the_result(mb, save, load, rng):
    body, *_ = linear_program(mb, rng)
    model = load(save(body, inputs=WIDE))
    changed = {name: torch.zeros_like(each) for name, each in model.module.named_parameters()}
    x = torch.ones(4, 32)
    assert not torch.func.functional_call(model.module, changed, ({"x": x},))["y"].any()
    assert model.module({"x": x})["y"].all()
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.zero_()
    assert not model.predict({"x": x.numpy()})["y"].any()


def test_a_static_program_can_be_compiled(mb, save, load, rng):
    body, *_ = linear_program(mb, rng)
    module = load(save(body, inputs=WIDE), "float16").module
    x = {"x": torch.tensor(rng.standard_normal((4, 32)).astype(np.float32))}
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x)["y"], module(x)["y"], rtol=0, atol=0)


def test_functions_share_weights_by_the_first_name(mb, save, load, rng):
    body, *_ = linear_program(mb, rng)
    path = save(body, body, inputs=WIDE)
    first, second = (dict(load(path, function_name=name).module.named_parameters()) for name in ("main", "f1"))
    assert first.keys() == second.keys()


def test_weights_of_one_name_in_two_blocks_are_two(mb, save, load, rng):
    first, second = (rng.standard_normal((40, 32)).astype(np.float32) for _ in range(2))

    def body(x):
        def branch(weight):
            return lambda: mb.linear(x=x, weight=mb.const(val=weight), name="branch")

        positive = mb.greater(x=mb.reduce_sum(x=x, axes=[0, 1]), y=np.float32(0))
        return mb.cond(pred=positive, _true_fn=branch(first), _false_fn=branch(second), name="y")

    path = save(body, inputs=WIDE)

    def rename(block):
        for operation in (each for nested in block.operations[-1].blocks for each in nested.operations):
            if operation.type == "linear":
                operation.inputs["weight"].arguments[0].name = "weight"
            elif len(operation.outputs[0].type.tensorType.dimensions) == 2:
                operation.outputs[0].name = "weight"

    damage(path, rename)
    model = load(path)
    assert {"weight", "weight_1"} <= set(dict(model.module.named_parameters()))
    for sign, weight in ((1, first), (-1, second)):
        x = np.full((4, 32), sign, np.float32)
        np.testing.assert_allclose(model.predict({"x": x})["y"], x @ weight.T, rtol=1e-4)


FORMS = {
    "palette": {"palettize": {"nbits": 4}},
    "groups": {"palettize": {"nbits": 2, "granularity": "per_grouped_channel", "group_size": 8}},
    "vectors": {"palettize": {"nbits": 2, "cluster_dim": 2}},
    "int8": {"quantize": {}},
    "blocks": {"quantize": {"mode": "linear", "dtype": "int4", "granularity": "per_block", "block_size": 8}},
    "sparse": {"prune": {"target_sparsity": 0.5}},
    "sparse palette": [{"prune": {"target_sparsity": 0.5}}, {"palettize": {"nbits": 2}}],
    "sparse codes": [{"prune": {"target_sparsity": 0.5}}, {"quantize": {}}],
    "quantized palette": [{"palettize": {"nbits": 2}}, {"quantize": {}}],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_compressed_programs_equal_decompressed_ones(mb, save, load, rng, tmp_path, form):
    body, *_ = linear_program(mb, rng)
    source, small, full = save(body, inputs=WIDE), tmp_path / "small.mlpackage", tmp_path / "full.mlpackage"
    assert coreml.compress(
        source,
        small,
        {**({"global": form} if isinstance(form, list) else form)} if not isinstance(form, list) else form,
        weight_threshold=1,
    )
    coreml.decompress(small, full)
    x = rng.standard_normal((4, 32)).astype(np.float32)
    for precision in ("float32", "float16"):
        first, second, original = (load(path, precision).predict({"x": x})["y"] for path in (small, full, source))
        np.testing.assert_array_equal(first, second)
        assert (first != original).any()


def test_what_cannot_be_run_is_refused_when_loaded(mb, save, load):
    path = save(lambda x: mb.relu(x=x, name="y"), inputs=X)

    def change(block):
        block.operations[-1].type = "hyperbolic_fold"

    damage(path, change)
    with pytest.raises(
        UnsupportedOperationError, match=r"hyperbolic_fold of opset CoreML8 \(main/CoreML8: hyperbolic_fold y\)"
    ):
        load(path)


def test_an_operation_of_a_later_version_is_refused_where_it_does_not_exist_yet(mb, save, load):
    path = save(lambda x: mb.fill_like(ref_tensor=x, value=np.float32(1), name="y"), inputs=X, version=7)
    assert load(path).predict({"x": np.zeros((2, 3), np.float32)})["y"].all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda operation: operation.inputs["x"].arguments[0].__setattr__("name", "nothing"), "takes 'nothing'"),
        (lambda operation: operation.inputs["x"].arguments.add(name="x"), "x must be one value, not 2"),
        (lambda operation: operation.inputs.pop("x"), "has no input 'x'"),
        (lambda operation: operation.inputs["z"].arguments.add(name="x"), "has an input 'z'"),
    ],
    ids=["unknown name", "two values", "missing", "unknown input"],
)
def test_damaged_arguments_are_refused_when_loaded(mb, save, load, change, message):
    path = save(lambda x: mb.relu(x=x, name="y"), inputs=X)
    damage(path, lambda block: change(block.operations[-1]))
    with pytest.raises(FormatError, match=message):
        load(path)


def test_errors_of_a_run_name_the_operation(mb, save, load):
    path = save(lambda x: mb.matmul(x=x, y=np.ones((3, 2), np.float32), name="product"), inputs=X)
    with pytest.raises(OperationError, match=r"main/CoreML8: matmul product: "):
        load(path).module({"x": torch.ones(2, 5)})


def test_errors_of_an_observed_run_name_the_operation_that_failed(mb, save, load):
    def body(x):
        return mb.matmul(x=mb.relu(x=x, name="before"), y=np.ones((3, 2), np.float32), name="product")

    module = load(save(body, inputs=X)).module
    wrong = {"x": torch.ones(2, 5)}
    for run in (lambda: list(module.values(wrong)), lambda: module.observe(lambda step, values: None, wrong)):
        with pytest.raises(OperationError, match=r"main/CoreML8: matmul product: "):
            run()
