"""corepress in the place of coremltools' functions, each call compared with what coremltools makes of it."""

from __future__ import annotations

import copy
import functools
import inspect
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
from coreml_helpers import materialized

TOLERANCE = 5e-4  # how much larger a squared error may be, relative to coremltools'
FUNCTIONS = ("palettize_weights", "linear_quantize_weights", "prune_weights", "decompress_weights")
PASSES = FUNCTIONS[:3]

calls: list[dict[str, Any]] = []
current_test = ""
_inside = False  # a call of corepress, or of coremltools for comparison, which may call others


def _only_outside(call: Callable[..., Any]) -> Callable[..., Any]:
    """Calls from within another one go straight to the function that replaces coremltools'."""

    @functools.wraps(call)
    def guarded(ours, theirs, *arguments, **options):
        global _inside
        if _inside:
            return ours(*arguments, **options)
        _inside = True
        try:
            return call(ours, theirs, *arguments, **options)
        finally:
            _inside = False

    return guarded


def replace_functions() -> None:
    """Put the functions of `corepress.optimize.coreml` where coremltools' are, and below its graph passes."""
    import coremltools.optimize.coreml as peer
    from coremltools.optimize.coreml import _quantization_passes as passes

    import corepress.optimize.coreml as ours

    for name in PASSES:
        graph_pass = getattr(passes, name)
        function = functools.partial(_compared_pass, getattr(ours, name), graph_pass.apply)
        graph_pass.apply = _as_method(function)
    for name in FUNCTIONS:
        function = functools.partial(_compared_function, getattr(ours, name), getattr(peer, name))
        setattr(peer, name, functools.wraps(getattr(peer, name))(function))
    peer.get_weights_metadata = ours.get_weights_metadata


def _as_method(function):
    def apply(self, prog):
        return function(self, prog)

    return apply


@_only_outside
def _compared_function(ours, theirs, model, *arguments, **options):
    record = _new_record(ours.__name__, "refused")
    result = ours(model, *arguments, **options)
    record["status"] = "not compared"
    try:
        record |= _comparison(
            _program_of(model), _program_of(result), _program_of(theirs(model, *arguments, **options))
        )
    except Exception:
        record["reason"] = traceback.format_exc(limit=-2)[-600:]
    return result


def _compared_pass(ours, theirs, graph_pass, program):
    """Send a graph pass' program through the function, as a model; what is no model goes the old way."""
    record = None if _inside else _new_record(type(graph_pass).__name__, "not sent")
    config = graph_pass.config
    if _inside or graph_pass.fake_compression or config is None or config._is_deprecated or config._op_selector:
        return theirs(graph_pass, program)
    if any(frame.filename.endswith("pass_pipeline.py") for frame in inspect.stack(0)):
        return theirs(graph_pass, program)  # a part of a conversion, which goes on with the program
    try:
        model = _model_of(program)
    except Exception:
        record["reason"] = traceback.format_exc(limit=-2)[-600:]
        return theirs(graph_pass, program)
    return _sent_pass(ours, theirs, graph_pass, program, model, record)


@_only_outside
def _sent_pass(ours, theirs, graph_pass, program, model, record):
    record["status"] = "refused"
    before = copy.deepcopy(program)
    found = _program_of(ours(model, graph_pass.config, graph_pass.joint_compression))
    record["status"] = "not compared"
    try:
        expected = copy.deepcopy(before)
        theirs(graph_pass, expected)
        record |= _comparison(before, found, expected)
    except Exception:
        record["reason"] = traceback.format_exc(limit=-2)[-600:]
    for name in list(program.functions):
        program.functions[name] = found.functions[name]
    return None


def _model_of(program):
    import coremltools
    from coremltools.converters.mil.converter import mil_convert

    version = max(function.opset_version for function in program.functions.values())
    return mil_convert(
        copy.deepcopy(program),
        convert_to="mlprogram",
        convert_from="milinternal",
        specification_version=int(version.value),
        compute_units=coremltools.ComputeUnit.CPU_ONLY,
        pass_pipeline=coremltools.PassPipeline.EMPTY,
        skip_model_load=True,
    )


def _new_record(function: str, status: str) -> dict[str, Any]:
    record: dict[str, Any] = {"test": current_test, "function": function, "status": status}
    calls.append(record)
    return record


def _comparison(source, ours, theirs) -> dict[str, Any]:
    originals, mine, peers = map(weights_of, (source, ours, theirs))
    found: dict[str, Any] = {"status": "compared", "weights": 0, "largest_ratio": 0.0, "larger": [], "missing": []}
    for key, original in originals.items():
        if key in mine and key in peers and mine[key].shape == original.shape:
            _compare_errors(found, " ".join(key), mine[key], peers[key], original)
        else:
            found["missing"].append(" ".join(key))
    return found


def _compare_errors(found, name, mine, theirs, original) -> None:
    error, allowed = squared_error(mine, original), squared_error(theirs, original)
    found["weights"] += 1
    if allowed > 0:
        found["largest_ratio"] = max(found["largest_ratio"], error / allowed)
    # A weight that coremltools spoiled says nothing about ours.
    if not error <= allowed * (1 + TOLERANCE) and not np.isnan(allowed):
        found["larger"].append([name, error, allowed])


def _program_of(model):
    if model._mil_program is not None:
        return model._mil_program
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.models import utils

    return utils._convert_model_spec_to_pymil_prog(model, model._spec.specificationVersion, load)


def squared_error(found, original) -> float:
    with np.errstate(all="ignore"):
        return float(((found.astype(np.float64) - original.astype(np.float64)) ** 2).sum())


def weights_of(program) -> dict[tuple[str, str, str], np.ndarray]:
    """Constant operands of some size, decompressed by coremltools, by function, operation and operand."""
    found: dict[tuple[str, str, str], np.ndarray] = {}
    for function_name, function in program.functions.items():
        pending = [function]
        while pending:
            for operation in pending.pop().operations:
                pending.extend(operation.blocks)
                if operation.op_type == "const" or operation.op_type.startswith("constexpr_"):
                    continue
                for operand, var in operation.inputs.items():
                    for index, each in enumerate(var if isinstance(var, (list, tuple)) else [var]):
                        value = _value(each)
                        if isinstance(value, np.ndarray) and value.ndim > 1 and value.dtype.kind == "f":
                            found[function_name, operation.name, f"{operand}{index}"] = value
    return found


def _value(var):
    if var is None or var.op is None:
        return None
    if var.op.op_type == "const":
        return var.op.outputs[0].val
    if var.op.op_type.startswith("constexpr_"):
        value = materialized(var.op)
        return value[var.op.outputs.index(var)] if isinstance(value, tuple) else value
    return None


def accelerate() -> None:
    """Put the native kernels below coremltools' own passes, each call compared with the function it replaces."""
    from coremltools.optimize.coreml import _quantization_passes as passes

    import corepress
    from corepress.acceleration.internals import internals
    from corepress.acceleration.swaps import place_of

    kmeans = passes._get_kmeans_lookup_table_and_weight
    originals = {(owner, name): vars(owner)[name] for owner, name in map(place_of, internals())}
    corepress.accelerate.install()
    decompressors = {
        "grouped_channelwise_compress": passes.palettize_weights.decompress,
        "compute_qparams_by_dtype": lambda result: passes.optimize_utils.dequantize_by_scale_and_zp(*result),
        "compress_by_threshold": passes.prune_weights.decompress,
        "compress_by_magnitude": passes.prune_weights.decompress,
        "compress_by_nm_sparsity": passes.prune_weights.decompress,
    }
    for (owner, name), original in originals.items():
        if name in decompressors:
            static = isinstance(original, staticmethod)
            theirs = _with_kmeans(passes, kmeans, getattr(original, "__func__", original))
            function = functools.partial(_compared_inner, getattr(owner, name), theirs, decompressors[name])
            setattr(owner, name, staticmethod(function) if static else function)


def _with_kmeans(passes, kmeans, function):
    """A function of coremltools that finds coremltools' own k-means."""

    def call(*arguments, **options):
        ours = passes._get_kmeans_lookup_table_and_weight
        passes._get_kmeans_lookup_table_and_weight = kmeans
        try:
            return function(*arguments, **options)
        finally:
            passes._get_kmeans_lookup_table_and_weight = ours

    call.__name__ = function.__name__
    return call


def _compared_inner(ours, theirs, decompress, *arguments, **options):
    record = _new_record(theirs.__name__, "refused")
    original = arguments[0] if arguments else next(iter(options.values()))  # the weight comes first
    result = ours(*arguments, **options)
    record |= {"status": "skipped", "weights": 0, "largest_ratio": 0.0, "larger": []}
    try:
        expected = theirs(*arguments, **options)
        if result is not None and expected is not None:
            _compare_errors(record, theirs.__name__, decompress(result), decompress(expected), original)
            record["status"] = "compared"
    except Exception:
        record |= {"status": "not compared", "reason": traceback.format_exc(limit=-2)[-600:]}
    return result
