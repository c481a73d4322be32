"""A decoder with a stateful cache of keys and values as a package, with drawn weights: Llama 3.2 1B, or a smaller one.

    python bench/decoder_package.py DECODER.mlpackage [--functions decode prefill] [--context 1024] [--layers 16]

Shapes and names are those of transformers' LlamaForCausalLM. The head is the embedding, stored once. ``decode`` takes
one token, ``prefill`` 64 at once; both update the same states. Needs coremltools, and memory for the weights twice.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corepress.benchmark.architectures import LLAMA_1B, DecoderConfig, decoder_parameters
from corepress.benchmark.drawn_weights import WeightPool

TOKENS = {"decode": 1, "prefill": 64}
ROTARY_BASE, EPSILON = 500_000.0, 1e-5


class Decoder:
    """Builds the operations of a decoder; parameters are drawn when they are first asked for, and kept.

    Parameters
    ----------
    config : DecoderConfig
        The shapes.
    context : int
        How many keys and values the states hold.
    """

    def __init__(self, config: DecoderConfig, context: int) -> None:
        self.config, self.context = config, context
        self.head_width = config.width // config.heads
        shapes, pool = decoder_parameters(config), WeightPool()
        self._parameters = {
            name: pool.draw(shape, index) if len(shape) > 1 else np.ones(shape, np.float16)
            for index, (name, shape) in enumerate(shapes.items())
        }

    def rotary_tables(self) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        """Cosines and sines of every position."""
        frequencies = ROTARY_BASE ** -(np.arange(0, self.head_width, 2) / self.head_width)
        angles = np.tile(np.arange(self.context)[:, None] * frequencies, 2)
        return np.cos(angles).astype(np.float16), np.sin(angles).astype(np.float16)

    def program(self, tokens: int) -> Any:
        """The function that takes so many tokens, as a program of coremltools."""
        import coremltools as ct
        from coremltools.converters.mil import Builder as mb
        from coremltools.converters.mil.mil import types

        config = self.config
        cache = (config.layers * config.key_heads, self.context, self.head_width)
        states = {name: mb.StateTensorSpec(cache, dtype=types.fp16) for name in ("keys", "values")}
        inputs = {
            "tokens": mb.TensorSpec((tokens,), dtype=types.int32),
            "positions": mb.TensorSpec((tokens,), dtype=types.int32),
            "mask": mb.TensorSpec((1, 1, tokens, self.context), dtype=types.fp16),
        }

        def body(tokens: Any, positions: Any, mask: Any, keys: Any, values: Any) -> Any:
            return _Function(self, mb, positions, mask, {"keys": keys, "values": values}).logits(tokens)

        specs = [*inputs.values(), *states.values()]
        return mb.program(input_specs=specs, opset_version=ct.target.iOS18)(body)

    def parameter(self, name: str) -> NDArray[np.float16]:
        """A parameter by its name in transformers."""
        return self._parameters[f"{name}.weight"]


class _Function:
    """The operations of one function."""

    def __init__(self, decoder: Decoder, mb: Any, positions: Any, mask: Any, states: dict[str, Any]) -> None:
        self._decoder, self._mb, self._mask, self._states = decoder, mb, mask, states
        # Read once: coremltools takes two reads of a state for the same, whatever is written between them.
        self._known = {name: mb.read_state(input=state) for name, state in states.items()}
        cosines, sines = decoder.rotary_tables()
        self._turns = [
            mb.gather(x=mb.const(val=table, name=name), indices=positions, axis=0)
            for name, table in (("cos", cosines), ("sin", sines))
        ]
        self._begin = mb.slice_by_index(x=positions, begin=[0], end=[1])
        self._end = mb.add(x=self._begin, y=np.int32(positions.shape[0]))

    def logits(self, tokens: Any) -> Any:
        mb, config = self._mb, self._decoder.config
        table = mb.const(val=self._decoder.parameter("model.embed_tokens"), name="model_embed_tokens_weight")
        hidden = mb.gather(x=table, indices=tokens, axis=0)
        for index in range(config.layers):
            block = f"model.layers.{index}"
            attended = self._attention(self._normalized(hidden, f"{block}.input_layernorm"), index)
            hidden = mb.add(x=hidden, y=attended)
            fed = self._feed_forward(self._normalized(hidden, f"{block}.post_attention_layernorm"), f"{block}.mlp")
            hidden = mb.add(x=hidden, y=fed)
        return mb.linear(x=self._normalized(hidden, "model.norm"), weight=table, name="logits")

    def _linear(self, x: Any, name: str) -> Any:
        weight = self._mb.const(val=self._decoder.parameter(name), name=f"{name}.weight".replace(".", "_"))
        return self._mb.linear(x=x, weight=weight, name=name.replace(".", "_"))

    def _normalized(self, x: Any, name: str) -> Any:
        mb = self._mb
        wide = mb.cast(x=x, dtype="fp32")
        mean = mb.reduce_mean(x=mb.square(x=wide), axes=[-1], keep_dims=True)
        narrow = mb.cast(x=mb.mul(x=wide, y=mb.rsqrt(x=mean, epsilon=EPSILON)), dtype="fp16")
        return mb.mul(x=narrow, y=self._decoder.parameter(name))

    def _feed_forward(self, x: Any, name: str) -> Any:
        mb = self._mb
        gated = mb.mul(x=mb.silu(x=self._linear(x, f"{name}.gate_proj")), y=self._linear(x, f"{name}.up_proj"))
        return self._linear(gated, f"{name}.down_proj")

    def _attention(self, x: Any, layer: int) -> Any:
        mb, config = self._mb, self._decoder.config
        name, tokens, width = f"model.layers.{layer}.self_attn", x.shape[0], self._decoder.head_width
        queries = self._turned(self._heads(self._linear(x, f"{name}.q_proj"), config.heads))
        keys = self._turned(self._heads(self._linear(x, f"{name}.k_proj"), config.key_heads))
        values = self._heads(self._linear(x, f"{name}.v_proj"), config.key_heads)
        known = [self._remembered("keys", layer, keys), self._remembered("values", layer, values)]
        times = config.heads // config.key_heads
        shape = (1, config.heads, self._decoder.context, width)
        for place, each in enumerate(known):  # each head of keys serves several of queries
            apart = mb.expand_dims(x=each, axes=[1])
            known[place] = mb.reshape(x=mb.tile(x=apart, reps=[1, times, 1, 1]), shape=shape)
        attended = mb.scaled_dot_product_attention(
            query=mb.expand_dims(x=queries, axes=[0]), key=known[0], value=known[1], attn_mask=self._mask
        )
        joined = mb.reshape(x=mb.transpose(x=attended, perm=[0, 2, 1, 3]), shape=(tokens, config.width))
        return self._linear(joined, f"{name}.o_proj")

    def _heads(self, x: Any, count: int) -> Any:
        mb = self._mb
        apart = mb.reshape(x=x, shape=(x.shape[0], count, self._decoder.head_width))
        return mb.transpose(x=apart, perm=[1, 0, 2])

    def _turned(self, x: Any) -> Any:
        """Rotary position embedding: the halves of a head are the parts of complex numbers."""
        mb = self._mb
        first, second = mb.split(x=x, num_splits=2, axis=-1)
        across = mb.concat(values=[mb.mul(x=second, y=np.float16(-1)), first], axis=-1)
        cosines, sines = self._turns
        return mb.add(x=mb.mul(x=x, y=cosines), y=mb.mul(x=across, y=sines))

    def _remembered(self, state: str, layer: int, new: Any) -> Any:
        """Writes new entries of a layer to the state; returns all entries of the layer."""
        mb, heads = self._mb, self._decoder.config.key_heads
        first, last = np.int32([layer * heads]), np.int32([layer * heads + heads])
        after = mb.slice_update(
            x=self._known[state],
            update=new,
            begin=mb.concat(values=[first, self._begin, np.int32([0])], axis=0),
            end=mb.concat(values=[last, self._end, np.int32([self._decoder.head_width])], axis=0),
        )
        self._known[state] = mb.coreml_update_state(state=self._states[state], value=after)
        return mb.slice_by_index(
            x=self._known[state],
            begin=[layer * heads, 0, 0],
            end=[layer * heads + heads, self._decoder.context, self._decoder.head_width],
        )


def build(destination: Path, decoder: Decoder, functions: list[str]) -> None:
    """Write the package; several functions share their weights."""
    import coremltools as ct
    from coremltools.models.utils import MultiFunctionDescriptor, save_multifunction

    with tempfile.TemporaryDirectory(dir=destination.parent) as scratch:
        descriptor = MultiFunctionDescriptor()
        for name in functions:
            path = destination if len(functions) == 1 else Path(scratch, f"{name}.mlpackage")
            model = ct.convert(
                decoder.program(TOKENS[name]),
                minimum_deployment_target=ct.target.iOS18,
                compute_precision=ct.precision.FLOAT32,  # as it is written
                skip_model_load=True,
            )
            model.save(str(path))
            descriptor.add_function(str(path), src_function_name="main", target_function_name=name)
        if len(functions) > 1:
            descriptor.default_function_name = functions[0]
            save_multifunction(descriptor, str(destination))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("--functions", nargs="+", choices=TOKENS, default=["decode"])
    parser.add_argument("--context", type=int, default=1024, help="keys and values that the states hold")
    parser.add_argument("--layers", type=int, default=LLAMA_1B.layers)
    parser.add_argument("--vocabulary", type=int, default=LLAMA_1B.vocabulary)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    config = dataclasses.replace(LLAMA_1B, layers=options.layers, vocabulary=options.vocabulary)
    build(options.package.absolute(), Decoder(config, options.context), options.functions)


if __name__ == "__main__":
    main()
