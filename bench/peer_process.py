"""The jobs of models.py through coremltools, as its users write them; takes the same arguments as our shell."""

from __future__ import annotations

import argparse
import warnings
from typing import Any


def config_for(options: argparse.Namespace, cto: Any) -> Any:
    if options.verb == "palettize":
        return cto.OpPalettizerConfig(
            mode="kmeans", nbits=options.nbits, granularity=options.granularity, group_size=options.group_size
        )
    if options.verb == "quantize":
        return cto.OpLinearQuantizerConfig(
            mode="linear_symmetric", dtype=options.dtype, granularity=options.granularity, block_size=options.block_size
        )
    return cto.OpMagnitudePrunerConfig(target_sparsity=options.target_sparsity)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=["palettize", "quantize", "prune"])
    parser.add_argument("source")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--nbits", type=int, default=4)
    parser.add_argument("--dtype", default="int8")
    parser.add_argument("--granularity")
    parser.add_argument("--group-size", type=int, default=32)
    parser.add_argument("--block-size", type=int, default=32)
    parser.add_argument("--target-sparsity", type=float, default=0.5)
    options = parser.parse_args()
    options.granularity = options.granularity or ("per_tensor" if options.verb == "palettize" else "per_channel")
    warnings.simplefilter("ignore")
    import coremltools as ct
    import coremltools.optimize.coreml as cto

    compress = {
        "palettize": cto.palettize_weights,
        "quantize": cto.linear_quantize_weights,
        "prune": cto.prune_weights,
    }[options.verb]
    model = ct.models.MLModel(options.source, skip_model_load=True)
    config = cto.OptimizationConfig(global_config=config_for(options, cto))
    compress(model, config).save(options.output)


if __name__ == "__main__":
    main()
