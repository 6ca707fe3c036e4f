"""Small networks whose states multiply: recurrent layers, attention, gated units, drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from tests.shared.implicit_models import built, floats, node

Rng = np.random.Generator


def _recurrent(op: str, gates: int, **given: Any) -> Callable[[Rng], ImplicitModel]:
    def made(rng: Rng) -> ImplicitModel:
        n = 2 if given.get("direction") == "bidirectional" else 1
        rows, steps = 2 * gates, int(rng.integers(1, 4))
        constants = {
            "w": floats(rng, n, rows, 2),
            "r": floats(rng, n, rows, 2),
            "b": floats(rng, n, 2 * rows, scale=0.3),
            "p": floats(rng, n, 6),
        }
        inputs = "x w r b - - - p" if op == "LSTM" else "x w r b"
        return built([node(op, inputs, "- y", hidden_size=2, **given)], (steps, 1, 2), constants)

    return made


def _attention(**given: Any) -> Callable[[Rng], ImplicitModel]:
    def made(rng: Rng) -> ImplicitModel:
        constants = {name: floats(rng, 2, 2) for name in "qkv"}
        nodes = [node("MatMul", f"x {name}", f"{name}x") for name in "qkv"]
        last = node("Attention", "qx kx vx", q_num_heads=1, kv_num_heads=1, **given)
        return built([*nodes, last], (1, 3, 2), constants, opset=23)

    return made


def _gated_unit(rng: Rng) -> ImplicitModel:
    nodes = [node("MatMul", "x a", "h"), node("Sigmoid", "h", "s"), node("MatMul", "x b", "k"), node("Mul", "s k")]
    return built(nodes, (1, 3), {"a": floats(rng, 3, 4), "b": floats(rng, 3, 4)})


def _bilinear(rng: Rng) -> ImplicitModel:
    nodes = [node("Tanh", "x", "t"), node("Einsum", "t w x", equation="bi,oij,bj->bo")]
    return built(nodes, (1, 2), {"w": floats(rng, 3, 2, 2)})


def _products(rng: Rng) -> ImplicitModel:
    nodes = [node("MatMul", "x w", "h"), node("Tanh", "h", "t"), node("ReduceProd", "t", axes=[1])]
    return built(nodes, (1, 2), {"w": floats(rng, 2, 5)})


GATED: Final[Mapping[str, Callable[[Rng], ImplicitModel]]] = MappingProxyType(
    {
        "LSTM": _recurrent("LSTM", 4),
        "LSTM, coupled gates": _recurrent("LSTM", 4, input_forget=1),
        "LSTM, both ways, clipped": _recurrent("LSTM", 4, direction="bidirectional", clip=0.8),
        "GRU": _recurrent("GRU", 3),
        "GRU, linear before the reset": _recurrent("GRU", 3, linear_before_reset=1),
        "attention": _attention(),
        "attention, causal": _attention(is_causal=1),
        "a gated unit": _gated_unit,
        "a bilinear layer": _bilinear,
        "products": _products,
    }
)
"""Name -> network of at most 6 inputs."""

BOUNDED_EVERYWHERE: Final = frozenset(name for name in GATED if "TM" in name or "GRU" in name or name == "products")
"""Those whose factors are bounded whatever the input is."""
