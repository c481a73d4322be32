"""Recognize files that a function does not accept by their contents, and name the next step for the user."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from ...errors import FormatError
from .messages import MESSAGE_LIMIT
from .weight_file import begins_weight_file
from .wire_format import BYTES, Field, fields

_PREFIX = 4096  # bytes that are looked at, whatever the size of the file
_MOST_FIELDS, _MOST_ENTRIES, _MOST_PARTS, _DEEPEST = 4096, 256, 8, 8
_NETWORKS = ("neuralNetwork", "neuralNetworkClassifier", "neuralNetworkRegressor")
_PIPELINES = ("pipelineClassifier", "pipelineRegressor", "pipeline")
# The types of Core ML's models: the number of the field, its name, and the kind in words.
MODEL_TYPES = {
    200: ("pipelineClassifier", "a pipeline"),
    201: ("pipelineRegressor", "a pipeline"),
    202: ("pipeline", "a pipeline"),
    300: ("glmRegressor", "a linear regression"),
    301: ("supportVectorRegressor", "a support vector regression"),
    302: ("treeEnsembleRegressor", "a regression by trees"),
    303: ("neuralNetworkRegressor", "a neural network"),
    304: ("bayesianProbitRegressor", "a probit regression"),
    400: ("glmClassifier", "a linear classifier"),
    401: ("supportVectorClassifier", "a support vector classifier"),
    402: ("treeEnsembleClassifier", "a classifier by trees"),
    403: ("neuralNetworkClassifier", "a neural network"),
    404: ("kNearestNeighborsClassifier", "a classifier by nearest neighbors"),
    500: ("neuralNetwork", "a neural network"),
    501: ("itemSimilarityRecommender", "a recommender"),
    502: ("mlProgram", "an ML program"),
    555: ("customModel", "a custom model"),
    556: ("linkedModel", "a link to another model"),
    560: ("classConfidenceThresholding", "thresholds of classes"),
    600: ("oneHotEncoder", "feature engineering"),
    601: ("imputer", "feature engineering"),
    602: ("featureVectorizer", "feature engineering"),
    603: ("dictVectorizer", "feature engineering"),
    604: ("scaler", "feature engineering"),
    606: ("categoricalMapping", "feature engineering"),
    607: ("normalizer", "feature engineering"),
    609: ("arrayFeatureExtractor", "feature engineering"),
    610: ("nonMaximumSuppression", "non-maximum suppression"),
    900: ("identity", "an identity"),
    2000: ("textClassifier", "a text classifier of Create ML"),
    2001: ("wordTagger", "a word tagger of Create ML"),
    2002: ("visionFeaturePrint", "a feature extractor of the system"),
    2003: ("soundAnalysisPreprocessing", "preprocessing of sound"),
    2004: ("gazetteer", "a gazetteer"),
    2005: ("wordEmbedding", "a word embedding of Create ML"),
    2006: ("audioFeaturePrint", "a feature extractor of the system"),
    3000: ("serializedModel", "a serialized model of the system"),
}
_CONVERT = "convert the model with coremltools"
_POINTERS = (
    (b"version https://git-lfs.github.com/spec/", "is a pointer of Git LFS, not the file itself; run 'git lfs pull'"),
    (b"/annex/objects/", "is a pointer of git-annex, not the file itself; run 'git annex get'"),
    (b"# xet version", "is a pointer of Xet, not the file itself; download the file"),
    (b"outs:\n", "is a pointer of DVC, not the file itself; run 'dvc pull'"),
)
_MAGIC = (
    *_POINTERS,
    (b"\x89HDF\r\n\x1a\n", f"is an HDF5 file, such as Keras writes; {_CONVERT}"),
    (b"GGUF", "is a GGUF file, which Core ML does not read"),
    (b"\x93NUMPY", "is a NumPy array; arrays are for corepress.palettize, quantize and prune"),
    (b"\x1f\x8b", "is compressed by gzip; unpack it first"),
    (b"BZh", "is compressed by bzip2; unpack it first"),
    (b"\xfd7zXZ\x00", "is compressed by xz; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive; unpack it first"),
    (b"program(1.", "is a part of a compiled model; give the .mlpackage it was made from"),
)
_ONNX = "is an ONNX model; convert the model that it was exported from with coremltools, which reads no ONNX"
_COMPILED = "is a compiled model; give the .mlpackage it was made from"
_COMPILED_FILES = ("coremldata.bin", "model.mil", "model.espresso.net")
_FOLDERS = (
    ("saved_model.pb", f"is a SavedModel of TensorFlow; {_CONVERT}"),
    ("pytorch_model.bin", f"is a folder of PyTorch weights; {_CONVERT}"),
    ("model.safetensors", f"is a folder of safetensors weights; {_CONVERT}"),
    ("weight.bin", "holds only the weight file of a package; give the .mlpackage folder that it belongs to"),
)


def obstacle_at(path: Path, *, of_any_kind: bool = False) -> str | None:
    """Why neither a package nor a neural network can be read at a path, and what to do; None if one may be there.

    Only a bounded part of a file is read. Damaged contents are left to its readers.

    Parameters
    ----------
    path : pathlib.Path
        The file or folder.
    of_any_kind : bool
        Whether files of all kinds of Core ML's models are accepted, and not only those with neural networks.
    """
    try:
        if path.is_dir():
            return _of_folder(path)
        if path.is_file():
            return _of_file(path, of_any_kind)
        return "is neither a file nor a folder" if path.exists() else None
    except OSError:
        return None


def refuse_foreign(path: Path, *, of_any_kind: bool = False) -> None:
    """Raise `FormatError` if a path holds something that functions for models do not accept; see `obstacle_at`."""
    obstacle = obstacle_at(path, of_any_kind=of_any_kind)
    if obstacle is not None:
        raise FormatError(f"{path} {obstacle}")


def refuse_pointer(path: Path) -> None:
    """Raise `FormatError` if a file of a package is empty, or is a version-control pointer to another one."""
    with path.open("rb") as file:
        prefix = file.read(max(len(magic) for magic, _ in _POINTERS))
    words = next((words for magic, words in _POINTERS if prefix.startswith(magic)), None)
    if words is not None or not prefix:
        raise FormatError(f"{path} {words or 'is empty; copy or download the package again'}")


def holds_networks(path: Path) -> bool:
    """Whether a file is a Core ML model of a neural network, or of a pipeline that has one."""
    return any(name in _NETWORKS for name in _names(_types_of(path)))


def model_in_words(path: Path) -> str:
    """The kind of a Core ML model, with the name of its type, and those of the parts of a pipeline."""
    return _in_words(_types_of(path))


def _of_folder(path: Path) -> str | None:
    names = {each.name for each in islice(os.scandir(path), _MOST_ENTRIES)}
    if "Manifest.json" in names:
        return None
    package = _package_around(path)
    if package is not None:
        return f"is a part of a package; give {package}"
    if path.suffix == ".mlmodelc" or names & {*_COMPILED_FILES}:
        return _COMPILED
    if path.suffix == ".aimodel":
        return "is a Core AI asset, not a Core ML model; corepress.coreai is for these"
    if not names and path.suffix != ".mlpackage":
        return "is an empty folder; give an .mlpackage or .mlmodel"
    models = sorted(name for name in names if name.endswith((".mlpackage", ".mlmodel")))
    if models:
        more = f" (or another of its {len(models)} models)" if len(models) > 1 else ""
        return f"is a folder of models; give {path / models[0]}{more}"
    if path.suffix == ".mlpackage":
        return None  # damaged: its manifest is missing
    return next(
        (words for name, words in _FOLDERS if name in names or (path / "weights" / name).is_file()),
        "is a folder, but no .mlpackage: it has no file Manifest.json",
    )


def _of_file(path: Path, of_any_kind: bool) -> str | None:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        prefix = file.read(_PREFIX)
    package = _package_around(path)
    foreign = _foreign(prefix, size, path)
    if foreign is not None and package is not None:
        return f"{foreign.partition(';')[0]}; it is a part of {package}"
    if foreign is not None:
        return foreign
    types = _types_of(path)
    if size >= MESSAGE_LIMIT:
        return None  # too large for any model file, as those say who read it
    if not types:
        return "is not a serialized Core ML model, or is cut short; copy or download it again"
    if any(name in _NETWORKS for name in _names(types)):
        return None
    if "mlProgram" in _names(types):
        return f"is a part of an ML program, without its weights; give {package or 'the .mlpackage folder'}"
    if of_any_kind:
        return None
    return f"is {_in_words(types)}, which holds no neural network weights to compress"


def _package_around(path: Path) -> Path | None:
    """The package that a file or folder is a part of, or None."""
    return next((each for each in islice(path.absolute().parents, 4) if (each / "Manifest.json").is_file()), None)


def _foreign(prefix: bytes, size: int, path: Path) -> str | None:
    """What a file is if it is not a Core ML model, or None."""
    if not prefix:
        return "is empty; copy or download it again"
    words = next((words for magic, words in _MAGIC if prefix.startswith(magic)), None)
    if words is not None:
        return words
    if prefix.startswith(b"PK\x03\x04"):
        return _of_zip(prefix)
    if prefix[4:8] == b"TFL3":
        return f"is a model of TensorFlow Lite; {_CONVERT}"
    if prefix[257:262] == b"ustar":
        return "is a tar archive; unpack it first"
    if prefix[8:9] == b"{" and len(prefix) > 8 and int.from_bytes(prefix[:8], "little") < size:
        return "is a safetensors file, tensors without a model; " + _CONVERT
    if prefix[:1] == b"\x80" and prefix[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return f"is a Python pickle, such as PyTorch writes; {_CONVERT}"
    if begins_weight_file(prefix):
        return "is the weight file of a package; give the .mlpackage folder that it belongs to"
    return _of_text(prefix) or (_ONNX if _is_onnx(path) else None)


def _of_zip(prefix: bytes) -> str:
    if b"data.pkl" in prefix or b"/data/" in prefix:
        return f"is a PyTorch file; {_CONVERT}"
    if b".npy" in prefix:
        return "is an .npz file of NumPy arrays; arrays are for corepress.palettize, quantize and prune"
    if b".keras" in prefix or b"config.json" in prefix:
        return f"is a Keras model; {_CONVERT}"
    return "is a zip archive; unzip it first and give the .mlpackage folder in it"


def _of_text(prefix: bytes) -> str | None:
    try:
        text = prefix.decode()
    except UnicodeDecodeError as error:
        if error.start < len(prefix) - 4 or len(prefix) < _PREFIX:  # not a character that the end of the prefix cuts
            return None
        text = prefix[: error.start].decode()
    if any(character < " " and character not in "\t\n\r\f" for character in text):
        return None
    begin = text.lstrip("\ufeff \t\r\n").lower()
    if begin.startswith(("<!doctype html", "<html")):
        return "is an HTML page, as a failed download leaves; download the model again"
    if begin.startswith("<?xml"):
        return "is XML, not a model"
    if begin.startswith(("{", "[")):
        return "is JSON, not a model"
    return "is text, not a model"


def _fields(file: BinaryIO, begin: int, end: int) -> Iterator[Field]:
    """The first fields of a message."""

    def read(start: int, stop: int) -> bytes:
        file.seek(start)
        return file.read(stop - start)

    return islice(fields(read, begin, end), _MOST_FIELDS)


_Types = list[tuple[str, list["_Types"]]]  # names, and the types of the parts of a pipeline; empty for what is none


def _types_of(path: Path) -> _Types:
    try:
        with path.open("rb") as file:
            return _types(file, 0, os.fstat(file.fileno()).st_size, 0)
    except FormatError:
        return []


def _types(file: BinaryIO, begin: int, end: int, depth: int) -> _Types:
    found: _Types = []
    for each in _fields(file, begin, end):
        if each.number not in MODEL_TYPES or each.wire_type != BYTES:
            continue
        name, parts = MODEL_TYPES[each.number][0], []
        if name in _PIPELINES and depth < _DEEPEST:
            outer = [each] if name == "pipeline" else _firsts(file, each)
            inner = [part for pipeline in outer for part in _firsts(file, pipeline)]
            parts = [_types(file, part.value, part.end, depth + 1) for part in inner]
        found.append((name, parts))
    return found


def _firsts(file: BinaryIO, message: Field) -> list[Field]:
    """The messages in a message that are its first field: the pipeline of a wrapped one, the models of a pipeline."""
    inside = _fields(file, message.value, message.end)
    return [each for each in inside if (each.number, each.wire_type) == (1, BYTES)]


def _names(types: _Types) -> set[str]:
    return {name for name, _ in types}.union(*(_names(part) for _, parts in types for part in parts))


def _in_words(types: _Types) -> str:
    if not types:
        return "a model of another kind"
    name, parts = types[-1]
    words = next(words for known, words in MODEL_TYPES.values() if known == name)
    if name in _PIPELINES:
        named = [_in_words(part) for part in parts[:_MOST_PARTS]]
        named += [f"{len(parts) - len(named)} more"] if len(parts) > len(named) else []
        return f"{words} of {' and '.join([', '.join(named[:-1]), named[-1]][len(named) < 2 :])}" if named else words
    return words if name in (*_NETWORKS, "mlProgram") else f"{words} ({name})"


def _is_onnx(path: Path) -> bool:
    """Whether a message has ONNX's version, graph and operator sets, and no type of a Core ML model."""
    try:
        with path.open("rb") as file:
            numbers = {each.number for each in _fields(file, 0, os.fstat(file.fileno()).st_size)}
    except FormatError:
        return False
    return {1, 7} <= numbers <= {*range(1, 26)} and not numbers & MODEL_TYPES.keys()
