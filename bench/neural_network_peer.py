"""The jobs of neural_network.py through coremltools: MODEL NBITS MODE OUTPUT."""

from __future__ import annotations

import math
import sys
import warnings


def cluster(spec: object, nbits: int) -> float:
    """What coremltools' k-means makes of all weights, as a signal-to-noise ratio; it cannot be stored."""
    import numpy as np
    from coremltools.models.neural_network import quantization_utils

    signal = noise = 0.0
    for layer in spec.neuralNetwork.layers:  # type: ignore[attr-defined]
        for params in (layer.convolution.weights, layer.convolution.bias):
            weights = np.array(params.floatValue, np.float64)
            table, codes = quantization_utils._get_kmeans_lookup_table_and_weight(nbits, weights)
            signal += float(np.square(weights).sum())
            noise += float(np.square(table.reshape(-1)[codes] - weights).sum())
    return 10 * math.log10(signal / noise)


def main() -> None:
    source, nbits, mode, output = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
    warnings.simplefilter("ignore")
    import coremltools
    from coremltools.models.neural_network import quantization_utils

    model = coremltools.models.MLModel(source, skip_model_load=True)
    if mode == "kmeans_lut":
        print("SNR", cluster(model.get_spec(), nbits))
        return
    quantization_utils.quantize_weights(model, nbits, mode).save(output)


if __name__ == "__main__":
    main()
