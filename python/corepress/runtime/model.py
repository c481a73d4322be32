"""Load a model and run it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from ..coreai.format.asset import is_asset
from ..errors import FormatError, UnsupportedOperationError
from ..extras import installed, require
from ..sources import unchanged
from .backend import Backend, State
from .coreai_backend import KIND, VERSION, CoreAIAsset, CoreAIBackend
from .coreml_backend import CoreMLBackend
from .features import Description, Feature, as_array
from .opening import NETWORKS, PIPELINES, PROGRAM, ModelPart, OpenModel, open_model
from .pipeline import PipelineBackend, Stage
from .small_models import SmallModelBackend, is_small_model

PRECISIONS = ("float16", "float32")
BACKENDS = ("auto", "torch", "coreml", "coreai")


class Model:
    """A loaded model; `load` makes it.

    Attributes
    ----------
    name : str
        Name of its file.
    kind : str
        What it is, in words: "an ML program".
    version : int
        Its specification version; of a Core AI asset, that of its format.
    function_name : str or None
        The function that is run, for a model with several.
    inputs, outputs, states : tuple of Feature
        What it takes, returns and remembers.
    backend : str
        What runs it: "torch", "coreml", "coreai", or "numpy" for linear models and the like.
    precision : str or None
        "float16" or "float32", "float64" for linear models and the like; None where Core ML or Core AI decides.
    """

    def __init__(
        self,
        kind: str,
        version: int,
        description: Description,
        runner: Backend,
        *,
        name: str,
        function_name: str | None,
        precision: str | None,
    ) -> None:
        self.name, self.kind, self.version = name, kind, version
        self.function_name, self.precision = function_name, precision
        self.description, self._runner = description, runner

    @property
    def inputs(self) -> tuple[Feature, ...]:
        return self.description.inputs

    @property
    def outputs(self) -> tuple[Feature, ...]:
        return self.description.outputs

    @property
    def states(self) -> tuple[Feature, ...]:
        return self.description.states

    @property
    def backend(self) -> str:
        return self._runner.name

    @property
    def runner(self) -> Backend:
        """What runs it, for other modules of this package."""
        return self._runner

    @property
    def module(self) -> Any:
        """The model as a ``torch.nn.Module`` with the weights as parameters, by their names in the model.

        Raises
        ------
        AttributeError
            If what runs it has no module: Core ML, Core AI, or a pipeline, which is several models.
        """
        if self._runner.module is None:
            systems = {"coreml": "is run by Core ML", "coreai": "is run by Core AI"}
            reason = systems.get(self.backend, f"is {self.kind}")
            raise AttributeError(f"{self.name} {reason}, which has no torch module")
        return self._runner.module

    @overload
    def predict(self, inputs: Mapping[str, Any], state: State | None = None) -> dict[str, Any]: ...
    @overload
    def predict(self, inputs: Sequence[Mapping[str, Any]], state: State | None = None) -> list[dict[str, Any]]: ...
    def predict(self, inputs: Any, state: State | None = None) -> Any:
        """Run the model.

        Parameters
        ----------
        inputs : dict or list of dict
            Values by the names of the inputs: arrays, lists, numbers, text, dictionaries, or images. Inputs that are
            optional may be left out. Arrays of another type are converted: numbers are rounded to the precision of
            floating-point inputs; other types must have the values.
        state : State, optional
            What `make_state` returned; a run changes it. Several inputs are run one after another.

        Returns
        -------
        dict or list of dict
            Values by the names of the outputs, of the types that Core ML's ``predict`` returns: float16 arrays are
            float32, those of rank 0 have shape (1,), images with colours have mode RGBA.

        Raises
        ------
        ValueError
            If an input is missing, unknown, or of another shape; if a stateful model is run without a state.
        TypeError
            If an input is of another kind.
        """
        if isinstance(inputs, Mapping):
            self._check_state("predict", state)
            return self.description.results(self._runner.predict(self.description.arguments("predict", inputs), state))
        if isinstance(inputs, str | bytes) or not isinstance(inputs, Sequence):
            raise TypeError(f"predict: inputs must be a dict or a list of dicts, not {type(inputs).__name__}")
        wrong = next((each for each in inputs if not isinstance(each, Mapping)), None)
        if wrong is not None:
            raise TypeError(f"predict: inputs must be a list of dicts, but one is {type(wrong).__name__}")
        return [self.predict(each, state) for each in inputs]

    def make_state(self) -> State | None:
        """A fresh state, all zeros; None for a model without states."""
        return self._runner.make_state()

    def values(self, inputs: Mapping[str, Any], state: State | None = None) -> Iterator[tuple[str, Any]]:
        """Run the model, and yield every intermediate result.

        Parameters
        ----------
        inputs : dict
            As for `predict`.
        state : State, optional
            As for `predict`.

        Yields
        ------
        name : str
            Name of the operation's output; in a pipeline, of the model, a slash, and that.
        value : numpy.ndarray
            The result; a list of arrays where it is one.
        """
        self._check_state("values", state)
        arguments = self.description.arguments("values", inputs)
        return ((name, _plain(value)) for name, value in self._runner.values(arguments, state))

    def _check_state(self, function: str, state: State | None) -> None:
        names = ", ".join(each.name for each in self.states)
        if state is None and names:
            raise ValueError(f"{function}: the model has states ({names}); pass state=model.make_state()")
        if state is not None and not hasattr(state, "read_state"):
            raise TypeError(f"{function}: state must be what make_state() returned, not {type(state).__name__}")
        if state is not None and not names:
            raise ValueError(f"{function}: state is given, but the model has no states")

    def __repr__(self) -> str:
        function = "" if self.function_name is None else f", function {self.function_name}"
        how = self.backend if self.precision is None else f"{self.backend}, {self.precision}"
        what = "asset" if self.kind == KIND else "specification"
        lines = [f"<Model {self.name}: {self.kind}, {what} version {self.version}{function}, run by {how}"]
        for title, features in (("inputs", self.inputs), ("outputs", self.outputs), ("states", self.states)):
            lines += [f"  {title if index == 0 else '':8}{each}" for index, each in enumerate(features)]
        return "\n".join(lines) + ">"


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return as_array("values: a result", value) if hasattr(value, "shape") else value


@unchanged("path")
def load(
    path: str | os.PathLike[str] | Any,
    function_name: str | None = None,
    precision: str = "float16",
    backend: str = "auto",
    device: str = "cpu",
) -> Model:
    """Load a model to run it, on any machine.

    Parameters
    ----------
    path : path-like, spec or MLModel
        An ``.mlpackage`` or ``.mlmodel``: an ML program, a neural network, or a pipeline of them; or an ``.aimodel``, a
        Core AI asset.
    function_name : str, optional
        The function to run, for a model with several; None for its default.
    precision : str
        "float16" computes in float32 and rounds the result of an operation once where the program says float16; this is
        what is known of Apple's GPU and Neural Engine. "float32" never rounds. Neural networks are always computed in
        float32; Core AI computes as the asset says.
    backend : str
        "torch", or "coreml" for Core ML itself on macOS; "auto" is torch where it is installed, else Core ML on macOS.
        Assets are always run by Core AI, "coreai".
    device : str
        A device of torch, such as "cuda" or "mps"; for Core ML "cpu", "gpu", "ane" or "all"; for Core AI "cpu".

    Returns
    -------
    Model
        The model.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If it is of another kind, or damaged.
    UnsupportedOperationError
        If the model, or an operation or a layer of it, cannot be run.
    MissingExtraError
        If what runs it is not installed.
    ValueError
        If there is no such function, precision or backend.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"load: precision is {precision!r}, but {_must_be(PRECISIONS)}")
    if isinstance(path, str | os.PathLike) and is_asset(path):
        return _load_asset(path, function_name, precision, backend, device)
    chosen = _backend(backend, precision)
    with open_model(path) as opened:
        name = opened.path.name if opened.path is not None else type(path).__name__
        root = opened.root
        function = root.function(function_name)
        description = root.describe(function)
        if chosen == "coreml":
            given = opened.path if opened.path is not None else path
            runner: Backend = CoreMLBackend(given, description, function, device)
        else:
            from .torch.backend import require_device

            require_device(device)
            runner = _torch_backend(opened, root, name, function, precision, device)
        return Model(
            root.in_words,
            root.version,
            description,
            runner,
            name=name,
            function_name=function,
            precision=None if chosen == "coreml" else _precision_of(root, precision),
        )


def _load_asset(path: Any, function_name: str | None, precision: str, backend: str, device: str) -> Model:
    if backend not in ("auto", "coreai"):
        known = "an .aimodel is run by Core AI; leave it out" if backend in BACKENDS else _must_be(BACKENDS)
        raise ValueError(f"load: backend is {backend!r}, but {known}")
    if precision != "float16":
        raise ValueError(f"load: precision is {precision!r}, but Core AI computes as the asset says; leave it out")
    if device != "cpu":
        raise ValueError(f"load: device is {device!r}, but Core AI's assets are run on the CPU here; use 'cpu'")
    asset = CoreAIAsset(path)
    function = asset.function(function_name)
    runner = CoreAIBackend(asset, function)
    return Model(
        KIND, VERSION, runner.description, runner, name=asset.path.name, function_name=function, precision=None
    )


def _must_be(names: Sequence[str]) -> str:
    return f"must be one of {', '.join(names)}"


def _precision_of(part: ModelPart, asked: str) -> str:
    """How precisely a model is computed: only programs declare the types of their results."""
    return "float64" if is_small_model(part.kind) else "float32" if part.kind in NETWORKS else asked


@unchanged("path")
def describe(path: str | os.PathLike[str] | Any, function_name: str | None = None) -> Description:
    """What a model takes and returns, without loading it.

    Parameters
    ----------
    path, function_name
        As for `load`.
    """
    if isinstance(path, str | os.PathLike) and is_asset(path):
        asset = CoreAIAsset(path, "describe")
        return asset.descriptions[asset.function(function_name)]
    with open_model(path) as opened:
        return opened.root.describe(opened.root.function(function_name))


def _backend(backend: str, precision: str) -> str:
    """The backend to use: "torch" or "coreml"."""
    if backend not in BACKENDS:
        raise ValueError(f"load: backend is {backend!r}, but {_must_be(BACKENDS)}")
    if backend == "coreai":
        raise ValueError("load: backend is 'coreai', which runs only .aimodel assets; leave it out")
    on_mac = sys.platform == "darwin"
    if backend == "auto":
        falls_back = on_mac and precision == "float16" and not installed("torch") and installed("coremltools")
        backend = "coreml" if falls_back else "torch"
    if backend == "torch":
        require("load", "torch")
        return backend
    if not on_mac:
        raise ValueError("load: backend is 'coreml', which needs macOS; use 'torch'")
    if precision != "float16":
        raise ValueError(f"load: precision is {precision!r}, but Core ML chooses its own; use backend='torch'")
    require("load", "coremltools")
    return backend


def _torch_backend(
    opened: OpenModel, part: ModelPart, name: str, function: str | None, precision: str, device: str
) -> Backend:
    if part.kind == PROGRAM:
        from ..coreml.format.messages import parse_message
        from ..coreml.format.schema import Model as ProgramModel
        from .torch.backend import load_program

        if opened.package is None:
            raise FormatError(f"{name}: an ML program is stored in an .mlpackage, not in a single file")
        message = parse_message(part.data(), ProgramModel)
        names = sorted(message.mlProgram.functions)
        chosen = function or ("main" if "main" in names or not names else names[0])
        return load_program(opened.package, message, chosen, precision, device, part.describe(function))
    if part.kind in NETWORKS:
        from .torch.network_backend import load_network

        return load_network(part.network(), device)
    if part.kind in PIPELINES:
        stages = [
            Stage(each.name, each.describe(None), _torch_backend(opened, each, each.name, None, precision, device))
            for each in part.parts
        ]
        return PipelineBackend(part.describe(None), stages)
    if is_small_model(part.kind):
        return SmallModelBackend(part.data(), part.describe(None))
    where = f"its part {part.name!r}" if part.name else name
    raise UnsupportedOperationError(
        f"load: {where} is {part.in_words} ({part.kind}); only ML programs, neural networks, linear models, "
        "feature engineering and pipelines of these can be run here"
    )
