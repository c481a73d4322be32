"""The command that runs a model."""

from __future__ import annotations

import io
import json
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..outputs import write_output
from ..suggestions import suggestion
from .options import display_options, runtime_options, source_argument
from .running import require_outputs

if TYPE_CHECKING:
    from ..runtime import Feature, Model
    from ..runtime.features import Description

_TIMED_RUNS, _TIMED_SECONDS = 10, 5.0  # at most
_FEW = 8  # values, which are shown
_BEST = 5  # classes
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
_DOCUMENTS = (".npz", ".json")


@click.command()
@source_argument
@click.option(
    "--input",
    "given",
    metavar="NAME=VALUE",
    multiple=True,
    help="An input: the file of an image or of an array (.npy, .npz, .txt, .csv), numbers (1,2,3 or JSON), or text.",
)
@click.option(
    "-o",
    "--output",
    "output_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Save the outputs as FILE.npz or FILE.json, or an image as FILE.png.",
)
@click.option("--time", "timed", is_flag=True, help="Also measure how long loading and running take.")
@runtime_options
@display_options
def predict(
    source: Path,
    given: tuple[str, ...],
    output_file: Path | None,
    timed: bool,
    verbose: bool,
    as_json: bool,
    quiet: bool,
    **loading: Any,
) -> None:
    """Run a model on inputs and show its outputs.

    Runs ML programs, neural networks and pipelines of them on any machine, with PyTorch, and Core AI's assets with
    Core AI. Images must have the size that the model takes. Without --input, lists the inputs that the model needs.

    \b
    Examples:
      corepress predict Classifier.mlpackage --input image=photo.png
      corepress predict Encoder.mlpackage --input tokens=tokens.npy --output out.npz --time
      corepress predict Decoder.aimodel --input tokens=1,2,3
    """
    from ..coreai.format.asset import is_asset
    from ..extras import installed
    from ..extras import load as import_torch
    from ..runtime.model import describe, load

    require_outputs()
    _check_output(output_file, given)
    description = describe(source, loading["function_name"])
    inputs = dict(_parsed(description, given))
    _require_inputs(description, inputs)
    if timed and not is_asset(source) and installed("torch"):
        import_torch("load", "torch")  # so that the time is that of the model
    started = time.perf_counter()
    model = load(source, **loading)
    seconds = {"load": time.perf_counter() - started}
    outputs, seconds["first_run"] = _run(model, inputs)
    if timed:
        seconds["median_run"] = _median_run(model, inputs)
    if output_file is not None:
        _save(output_file, outputs)
    if as_json:
        click.echo(_document(model, outputs, seconds if timed else None))
    elif not quiet:
        click.echo("\n".join(_text(model, outputs, seconds if timed else None, output_file, verbose)))


def _check_output(path: Path | None, given: tuple[str, ...]) -> None:
    allowed = (*_DOCUMENTS, *_PICTURES)
    if path is not None and path.suffix.lower() not in allowed:
        raise click.UsageError(f"--output {path} must end with {', '.join(allowed[:-1])} or {allowed[-1]}")
    for each in given:
        file = each.partition("=")[2]
        if path is not None and path.exists() and os.path.isfile(file) and path.samefile(file):
            raise click.UsageError(f"--output {path} is the file of an input; name another file")


def _parsed(description: Description, given: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    features = {each.name: each for each in description.inputs}
    seen = set()
    for each in given:
        name, equals, text = each.partition("=")
        if not equals:
            raise click.UsageError(f"--input {each} must be NAME=VALUE")
        if name not in features:
            inputs = "; ".join(map(str, description.inputs)) or "none"
            raise click.UsageError(f"the model has no input {name!r}{suggestion(name, features)}; its inputs: {inputs}")
        if name in seen:
            raise click.UsageError(f"--input {name} is given twice; give it once")
        seen.add(name)
        yield name, _value(features[name], text)


def _require_inputs(description: Description, inputs: Mapping[str, Any]) -> None:
    missing = [each for each in description.inputs if each.name not in inputs and not each.optional]
    if missing:
        options = " ".join(f"--input {each.name}=…" for each in missing)
        raise click.UsageError(f"inputs are missing: {'; '.join(map(str, missing))}; give {options}")


def _value(feature: Feature, text: str) -> Any:
    if feature.kind == "image":
        return _image(feature, Path(text))
    if feature.kind == "string":
        return text
    path = Path(text)
    if path.suffix.lower() in (".npy", ".npz", ".txt", ".csv"):
        return _array_of(feature, path)
    value = _numbers(feature, text)
    if feature.kind == "array":
        return _fitted(feature, value)
    return value


def _image(feature: Feature, path: Path) -> Any:
    from ..extras import require

    require("--input", "PIL")
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.convert({"GRAYSCALE": "L", "GRAYSCALE_FLOAT16": "F"}.get(feature.color or "", "RGB"))
    except UnidentifiedImageError as error:
        raise click.UsageError(f"--input {feature.name}={path} is not an image") from error


def _array_of(feature: Feature, path: Path) -> Any:
    import numpy as np

    where, suffix = f"--input {feature.name}={path}", path.suffix.lower()
    try:
        if suffix in (".txt", ".csv"):
            return _fitted(feature, np.loadtxt(path, delimiter="," if suffix == ".csv" else None))
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded as arrays:
            names = list(arrays.files)
            if feature.name in names or len(names) == 1:
                return arrays[feature.name if feature.name in names else names[0]]
    except (ValueError, EOFError) as error:
        raise click.UsageError(f"{where} cannot be read ({error})") from error
    raise click.UsageError(f"{where} has the arrays {', '.join(names)}, none of which is called {feature.name!r}")


def _numbers(feature: Feature, text: str) -> Any:
    try:
        return json.loads(text if text.startswith(("[", "{")) or "," not in text else f"[{text}]")
    except ValueError as error:
        raise click.UsageError(
            f"--input {feature.name}={text} is neither a file of an array (.npy, .npz, .txt, .csv) nor numbers"
        ) from error


def _fitted(feature: Feature, value: Any) -> Any:
    """Numbers in the declared shape, if they are as many as it has."""
    import numpy as np

    try:
        array = np.asarray(value)
    except ValueError:
        return value
    if feature.shape is None or feature.accepts(array.shape) or array.ndim > 1:
        return array
    return array.reshape(feature.shape) if array.size == int(np.prod(feature.shape)) else array


def _run(model: Model, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
    state = model.make_state() if model.states else None
    started = time.perf_counter()
    outputs = model.predict(inputs, state)
    return outputs, time.perf_counter() - started


def _median_run(model: Model, inputs: Mapping[str, Any]) -> float:
    begun, found = time.perf_counter(), list[float]()
    while len(found) < _TIMED_RUNS and (not found or time.perf_counter() - begun < _TIMED_SECONDS):
        found.append(_run(model, inputs)[1])
    return statistics.median(found)


def _save(path: Path, outputs: Mapping[str, Any]) -> None:
    import numpy as np

    suffix = path.suffix.lower()
    if suffix == ".json":
        from ..reporting.documents import to_json

        write_output(path, to_json({"outputs": {name: _plain(value) for name, value in outputs.items()}}) + "\n")
        return
    buffer = io.BytesIO()
    if suffix in _PICTURES:
        pictures = [value for value in outputs.values() if hasattr(value, "convert")]
        if len(pictures) != 1:
            raise click.UsageError(f"--output {path} is an image, but the model has {len(pictures)} outputs of images")
        plain = {"RGBA": "RGB", "F": "L"}.get(pictures[0].mode, pictures[0].mode)
        pictures[0].convert(plain).save(buffer, format="JPEG" if suffix in (".jpg", ".jpeg") else suffix[1:].upper())
    else:
        np.savez(buffer, **dict(_arrays(outputs)))  # type: ignore[arg-type, unused-ignore]
    write_output(path, buffer.getvalue())


def _arrays(outputs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Outputs as arrays; dictionaries as two, of their values and of their keys."""
    import numpy as np

    from ..runtime.distances import pixels_of

    for name, value in outputs.items():
        if isinstance(value, Mapping):
            yield name, np.array(list(value.values()))
            yield f"{name}.classes", np.array(list(value))
        else:
            yield name, pixels_of(value)


def _plain(value: Any) -> Any:
    """An output for strict JSON: numbers that are not finite are null."""
    import math

    if hasattr(value, "convert"):
        from ..runtime.distances import pixels_of

        value = pixels_of(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if hasattr(value, "tolist"):
        return {"dtype": str(value.dtype), "shape": list(value.shape), "values": _plain(value.tolist())}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _document(model: Model, outputs: Mapping[str, Any], seconds: Mapping[str, float] | None) -> str:
    from ..reporting.documents import to_json

    document = {
        "model": model.name,
        "backend": model.backend,
        "precision": model.precision,
        "outputs": {name: _plain(value) for name, value in outputs.items()},
    }
    return to_json(document | ({} if seconds is None else {"seconds": dict(seconds)}))


def _text(
    model: Model, outputs: Mapping[str, Any], seconds: Mapping[str, float] | None, path: Path | None, verbose: bool
) -> Iterator[str]:
    from ..reporting.tables import Column, render

    features = {each.name: each for each in model.outputs}
    columns = (
        Column("output", lambda name: name),
        Column("kind", lambda name: _kind(features[name], outputs[name])),
        Column("values", lambda name: _summary(outputs[name], verbose)),
    )
    yield render(columns, outputs)
    if path is not None:
        yield f"wrote {path}"
    if seconds is not None:
        load, first, median = (f"{1000 * seconds[name]:.1f} ms" for name in ("load", "first_run", "median_run"))
        yield f"load {load}, first run {first}, later runs {median} (median)"
    how = "" if model.precision is None else f" in {model.precision}"
    yield f"run by {model.backend}{how}"


def _kind(feature: Feature, value: Any) -> str:
    if feature.kind == "array":
        return f"{value.dtype} {'x'.join(map(str, value.shape))}"
    if feature.kind == "image":
        return f"image {value.width}x{value.height}"
    return f"{len(value)} classes" if feature.kind == "dictionary" else feature.kind


def _summary(value: Any, verbose: bool) -> str:
    import numpy as np

    if isinstance(value, Mapping):
        best = sorted(value, key=lambda key: -value[key])[: None if verbose else _BEST]
        return ", ".join(f"{key} {value[key]:.4g}" for key in best)
    if hasattr(value, "convert"):
        return ""
    if not hasattr(value, "ndim"):
        return str(value)
    if value.size <= _FEW or verbose:
        return " ".join(f"{each:.6g}" for each in value.reshape(-1).tolist())
    numbers = value.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    lost = f", {numbers.size - finite.size} not finite" if finite.size < numbers.size else ""
    if not finite.size:
        return "none finite"
    return f"{finite.min():.6g} to {finite.max():.6g}, mean {finite.mean():.6g}{lost}"
