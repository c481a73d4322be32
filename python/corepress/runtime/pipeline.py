"""Pipelines: models that are run one after another, whose features flow from model to model by their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from .backend import Backend, State
from .features import Description


@dataclass(frozen=True)
class Stage:
    """A model of a pipeline: its name, what it takes and returns, and what runs it."""

    name: str
    description: Description
    backend: Backend


class PipelineState:
    """The states of the models of a pipeline, by the names of the states.

    Parameters
    ----------
    states : list of State or None
        Those of each model.
    names : list of list of str
        Their names.
    """

    def __init__(self, states: Sequence[State | None], names: Sequence[Sequence[str]]) -> None:
        self.states = list(states)
        self._owner = {name: state for state, known in zip(states, names, strict=True) if state for name in known}

    def read_state(self, name: str) -> NDArray[Any]:
        """A copy of a state."""
        return self._of(name).read_state(name)

    def write_state(self, name: str, value: NDArray[Any]) -> None:
        """Replace a state."""
        self._of(name).write_state(name, value)

    def _of(self, name: str) -> State:
        if name not in self._owner:
            raise ValueError(f"there is no state {name!r}; the states are {', '.join(self._owner) or 'none'}")
        return self._owner[name]


class PipelineBackend:
    """Runs the models of a pipeline. Images are rounded to whole values between two models, as on a device.

    Parameters
    ----------
    description : Description
        Of the pipeline.
    stages : list of Stage
        Its models.
    """

    module = None

    def __init__(self, description: Description, stages: Sequence[Stage]) -> None:
        self._description, self._stages = description, list(stages)
        names = [stage.backend.name for stage in self._stages]
        self.name = next((name for name in names if name != "numpy"), names[0])

    def predict(self, inputs: Mapping[str, Any], state: State | None) -> dict[str, Any]:
        """Run once."""
        known = self._known(inputs)
        for index, stage in enumerate(self._stages):
            outputs = stage.backend.predict(_arguments(stage, known), _state_of(state, index))
            known |= stage.description.results(outputs, as_images=False)
        return self._outputs(known)

    def values(self, inputs: Mapping[str, Any], state: State | None) -> Iterator[tuple[str, Any]]:
        """Run once, and yield every intermediate result by its model's name, a slash, and the operation's output."""
        known = self._known(inputs)
        for index, stage in enumerate(self._stages):
            arguments, own_state = _arguments(stage, known), _state_of(state, index)
            is_last = index == len(self._stages) - 1
            before = {} if own_state is None or is_last else _saved(stage, own_state)
            for name, value in stage.backend.values(arguments, own_state):
                yield f"{stage.name}/{name}", value
            if not is_last:  # once more, since the outputs need not be among the values
                for name, value in before.items():
                    own_state.write_state(name, value)  # type: ignore[union-attr]
                known |= stage.description.results(stage.backend.predict(arguments, own_state), as_images=False)

    def make_state(self) -> State | None:
        """A fresh state."""
        states = [stage.backend.make_state() for stage in self._stages]
        names = [[each.name for each in stage.description.states] for stage in self._stages]
        return PipelineState(states, names) if any(state is not None for state in states) else None

    def _known(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The features of the pipeline's inputs, as its models take them."""
        images = [each for each in self._description.inputs if each.kind == "image"]
        of_images = Description(inputs=(), outputs=tuple(images))
        return {**inputs, **of_images.results(inputs, as_images=False)}

    def _outputs(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """The pipeline's outputs, as those of a backend."""
        images = tuple(each for each in self._description.outputs if each.kind == "image" and each.name in known)
        given = {each.name: known[each.name] for each in images}
        return {**known, **Description(inputs=images, outputs=()).arguments("predict", given)}


def _arguments(stage: Stage, known: Mapping[str, Any]) -> dict[str, Any]:
    given = {each.name: known[each.name] for each in stage.description.inputs if each.name in known}
    return stage.description.arguments(f"predict: {stage.name}", given)


def _state_of(state: State | None, index: int) -> State | None:
    return state.states[index] if isinstance(state, PipelineState) else None


def _saved(stage: Stage, state: State) -> dict[str, NDArray[Any]]:
    return {each.name: state.read_state(each.name) for each in stage.description.states}
