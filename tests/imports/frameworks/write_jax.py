"""Write the files of this folder that JAX's exporter made: run it where jax2onnx is installed, not here.

    python3 -m venv venv && venv/bin/pip install jax==0.10.2 jax2onnx==0.17.1 onnx==1.23.2
    venv/bin/python write_jax.py

Every network is written with five inputs and what JAX itself gives for them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax2onnx import to_onnx

FOLDER = Path(__file__).parent
RNG = np.random.default_rng(0)


def weights(*shape: int) -> jax.Array:
    """Return weights of a layer."""
    return jnp.asarray(RNG.normal(size=shape) / np.sqrt(shape[0]), jnp.float32)


def networks() -> dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]]:
    """Return small networks with the shape of one input."""
    first, second, bias = weights(6, 8), weights(8, 3), weights(8)
    kernel, last = weights(3, 3, 1, 4) / 2, weights(64, 3)

    def conv(x: jax.Array) -> jax.Array:
        dims = ("NHWC", "HWIO", "NHWC")
        h = jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=dims))
        return h.reshape(h.shape[0], -1) @ last

    def normed(x: jax.Array) -> jax.Array:
        h = x @ first
        h = h - h.mean(axis=-1, keepdims=True)  # jnp.var is exported with a NaN for axes without entries
        h = h / jnp.sqrt((h * h).mean(axis=-1, keepdims=True) + 1e-3)
        return jax.nn.gelu(h) @ second

    return {
        "dense": (lambda x: jax.nn.relu(x @ first + bias) @ second, (6,)),
        "smooth": (lambda x: jax.nn.softmax(jnp.tanh(x @ first + bias) @ second), (6,)),
        "silu": (lambda x: jax.nn.silu(x @ first + bias) @ second, (6,)),
        "leaky": (lambda x: jax.nn.leaky_relu(x @ first + bias, 0.1) @ second, (6,)),
        "normed": (normed, (6,)),
        "conv": (conv, (6, 6, 1)),
    }


def main() -> None:
    """Write each network."""
    for name, (function, shape) in networks().items():
        inputs = RNG.random((5, *shape)).astype(np.float32)
        np.savez(FOLDER / f"jax_{name}.npz", inputs=inputs, outputs=np.asarray(function(inputs)))
        try:
            onnx.save(to_onnx(function, inputs=[("B", *shape)]), FOLDER / f"jax_{name}.onnx")
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
