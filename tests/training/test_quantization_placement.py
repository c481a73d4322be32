"""Which tensors are quantized: what recording sees, and the rules."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from corepress.training import activation_hooks, dataflow, placement


class Of(nn.Module):
    """A model of some modules and a function."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)


def conv(inputs=3, outputs=3):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def image():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def planned(model, inputs=None, left_alone=(), options_of=lambda call: "options"):
    return placement.plan(dataflow.record(model, inputs or (image(),), left_alone), options_of)


def spots(plan):
    """Where tensors are quantized in training: names of modules, with the argument or None."""
    return [(each.call.name, each.argument) for each in plan.placements if not each.redundant]


def range_at(plan, name, argument=None):
    return next(each.range for each in plan.placements if each.call.name == name and each.argument == argument)


def test_recording_leaves_the_model_as_it_was():
    model = nn.Sequential(conv(), nn.BatchNorm2d(3), nn.Dropout(0.5))
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.random.get_rng_state()
    recording = dataflow.record(model, (image(),))
    assert [call.name for call in recording.calls] == ["0", "1", "2"]
    assert [each.training for each in model] == [True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())


def test_recording_leaves_no_hooks_after_an_error():
    model = nn.Sequential(conv(), nn.Linear(5, 5))
    recording = dataflow.record(model, (image(),))
    assert isinstance(recording.failure, RuntimeError)
    assert [call.name for call in recording.calls] == ["0"]
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())
    assert model.training


def test_recording_follows_tensors_through_functions_in_place_and_keywords():
    model = Of(
        lambda self, x, scale: self.second(functional.relu_(self.first(x)).mul_(scale)), first=conv(), second=conv()
    )
    recording = dataflow.record(model, {"x": image(), "scale": torch.tensor(2.0)})
    assert [call.function or call.name for call in recording.calls] == ["first", "relu", "mul", "second"]
    first, relu, product, second = recording.calls
    assert relu.inputs == first.outputs
    assert product.inputs[0] is relu.outputs[0]
    assert product.inputs[1].is_input
    assert second.arguments[0] is product.outputs[0]


def test_modules_of_pytorch_are_whole():
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 8))
    recording = dataflow.record(model, (torch.randn(2, 4, 8),))
    assert [call.name for call in recording.calls] == ["0", "1"]


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU(), nn.Hardswish()])
@pytest.mark.parametrize("norm", [True, False])
def test_a_step_is_quantized_at_its_ends(activation, norm):
    model = nn.Sequential(conv(), *([nn.BatchNorm2d(3)] if norm else []), activation)
    plan = planned(model)
    assert spots(plan) == [("0", 0), (str(len(model) - 1), None)]
    assert len(plan.batch_norms) == norm
    assert range_at(plan, str(len(model) - 1)).nonnegative == isinstance(activation, nn.ReLU)
    assert not range_at(plan, "0", 0).nonnegative


def test_functions_are_quantized_where_modules_take_them():
    model = Of(
        lambda self, x: self.fc(torch.flatten(functional.max_pool2d(functional.relu(self.norm(self.conv(x))), 2), 1)),
        conv=conv(),
        norm=nn.BatchNorm2d(3),
        fc=nn.Linear(48, 4),
    )
    plan = planned(model)
    assert spots(plan) == [("conv", 0), ("fc", 0), ("fc", None)]
    assert range_at(plan, "fc", 0).nonnegative


def test_what_several_modules_take_is_observed_once():
    def both(self, x):
        x = functional.relu(x)
        return self.one(x) + self.two(x)

    plan = planned(Of(both, one=conv(), two=conv()))
    taken = [each for each in plan.placements if each.argument == 0 and each.call.name in ("one", "two")]
    assert [each.observe for each in taken] == [True, False]
    assert taken[0].range is taken[1].range


def test_results_of_blocks_are_quantized_for_all_that_take_them():
    """A residual block: its sum goes into the next block's convolution, and into its sum."""
    block = Of(lambda self, x: functional.relu(self.conv(x) + x), conv=conv())
    other = Of(lambda self, x: functional.relu(self.conv(x) + x), conv=conv())
    plan = planned(nn.Sequential(conv(), block, other))
    assert spots(plan) == [("0", 0), ("0", None), ("1.conv", None), ("1", None), ("2.conv", None), ("2", None)]
    assert range_at(plan, "1").nonnegative


def test_results_in_tuples():
    model = Of(lambda self, x: (x.abs(), [self.conv(x) + 1.0]), conv=conv())
    assert spots(planned(model)) == [("conv", 0), ("conv", None)]
    model = Of(lambda self, x: (x, self.conv(x) * x), conv=conv())
    plan = planned(model)
    assert [(each.call.name, each.argument, each.item) for each in plan.placements][-1] == ("", None, 1)


def test_concatenations_have_one_range():
    model = Of(
        lambda self, x: self.last(torch.cat([self.one(x), self.two(x)], 1)), one=conv(), two=conv(), last=conv(6, 3)
    )
    plan = planned(model)
    shared = range_at(plan, "one")
    assert range_at(plan, "two") is shared
    assert range_at(plan, "last", 0) is shared
    assert ("last", 0) not in spots(plan)  # quantized already; conversion needs it all the same
    assert not shared.nonnegative
    model = Of(
        lambda self, x: torch.cat([self.relu(self.one(x)), self.two(x)], 1), one=conv(), two=conv(), relu=nn.ReLU()
    )
    assert not range_at(planned(model), "relu").nonnegative


@pytest.mark.parametrize(
    ("layer", "redundant"),
    [
        (nn.MaxPool2d(2), True),
        (nn.Flatten(2), True),
        (nn.Identity(), True),
        (nn.AvgPool2d(2), False),
        (nn.AdaptiveAvgPool2d(2), False),
    ],
)
def test_pooling_and_reshaping_share_the_range(layer, redundant):
    plan = planned(nn.Sequential(conv(), nn.ReLU(), layer))
    assert range_at(plan, "2") is range_at(plan, "1")
    last = plan.placements[-1]
    assert (last.redundant, last.observe) == (redundant, False)


def test_dropout_is_not_quantized():
    plan = planned(nn.Sequential(conv(), nn.ReLU(), nn.Dropout(0.5), conv()))
    assert spots(plan) == [("0", 0), ("1", None), ("3", None)]
    assert [each is None for each in plan.ranges] == [False, False, True, False]


@pytest.mark.parametrize(
    ("last", "fixed"), [(nn.Sigmoid(), (1 / 256, 0)), (nn.Tanh(), (2 / 256, 128)), (nn.ReLU(), None)]
)
def test_known_ranges(last, fixed):
    assert range_at(planned(nn.Sequential(conv(), last)), "1").fixed == fixed


def test_sums_of_what_is_not_negative_are_not():
    def model(one, two):
        return Of(lambda self, x: self.last(self.one(x) + self.two(x)), one=one, two=two, last=conv())

    assert range_at(planned(model(nn.ReLU(), nn.ReLU6())), "last", 0).nonnegative
    assert not range_at(planned(model(nn.ReLU(), nn.LeakyReLU())), "last", 0).nonnegative
    less = Of(lambda self, x: self.last(self.relu(x) + -1.0), relu=nn.ReLU(), last=conv())
    assert not range_at(planned(less), "last", 0).nonnegative


def test_embeddings_have_no_quantized_inputs():
    plan = planned(nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 4)), (torch.arange(3),))
    assert spots(plan) == [("0", None), ("1", None)]


def test_modules_left_alone():
    model = nn.Sequential(conv(), nn.Sequential(conv(), nn.ReLU()), conv())
    plan = planned(model, left_alone=["1"])
    assert spots(plan) == [("0", 0), ("0", None), ("2", 0), ("2", None)]


def test_calls_without_options():
    model = nn.Sequential(conv(), nn.ReLU(), conv())
    plan = planned(model, options_of=lambda call: None if call.name == "0" else "options")
    assert spots(plan) == [("1", None), ("2", None)]
    plan = planned(model, options_of=lambda call: None if call.name == "2" else "options")
    assert spots(plan) == [("0", 0), ("1", None)]


def test_batch_normalization_is_folded_only_where_it_can_be():
    norm = nn.BatchNorm2d(3)
    assert planned(nn.Sequential(conv(), norm)).batch_norms
    assert not planned(nn.Sequential(conv(), nn.ReLU(), norm)).batch_norms
    assert not planned(nn.Sequential(conv(), nn.BatchNorm2d(3, track_running_stats=False))).batch_norms
    shared = conv()
    assert not planned(nn.Sequential(shared, nn.BatchNorm2d(3), shared, nn.BatchNorm2d(3))).batch_norms
    twice = Of(lambda self, x: (lambda y: self.norm(y) + y)(self.conv(x)), conv=conv(), norm=nn.BatchNorm2d(3))
    assert not planned(twice).batch_norms
    rows = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
    assert planned(rows, (torch.randn(3, 4),)).batch_norms
    assert not planned(rows, (torch.randn(3, 5, 4),)).batch_norms


class Doubled(nn.Module):
    """What quantizes, for the tests of hooks: counts, and doubles."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, x, observe=True):
        self.seen += observe
        return 2 * x


def test_modules_that_are_called_twice_have_a_range_for_each_call():
    relu = nn.ReLU()
    model = nn.Sequential(conv(), relu, conv(), relu)
    plan = planned(model)
    made = activation_hooks.attach(model, plan, lambda each: Doubled())
    assert len(made) == 3
    children = [name for name, _ in relu.named_children()]
    assert children == ["activation_post_process", "activation_post_process_1"]
    for _ in range(2):
        model(image())
    assert [each.seen for each in made.values()] == [2, 2, 2]
    with pytest.raises(RuntimeError):  # a pass that ends early does not shift the calls of the next
        model(torch.zeros(2, 2, 8, 8))
    broken = model[2].register_forward_pre_hook(_raise)
    with pytest.raises(KeyError):
        model(image())
    broken.remove()
    model(image())
    assert [each.seen for each in made.values()][1:] == [4, 3]


def _raise(*_):
    raise KeyError


def test_sequences_get_no_children():
    class Returning(nn.Sequential):
        def forward(self, x):
            return functional.relu(super().forward(x))

    model = nn.Sequential(Returning(conv()), conv())
    plan = planned(model)
    activation_hooks.attach(model, plan, lambda each: Doubled())
    assert len(model) == 2
    assert len(model[0]) == 1
    model(image())
