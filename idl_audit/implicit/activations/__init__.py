"""ACTIVATIONS: every nonlinearity on one screen; analyses ask for traits, never for names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from idl_audit.implicit.activations import (
    analytic,
    contraction,
    curve,
    jumping,
    kinked,
    normalised,
    product,
    softmax,
)
from idl_audit.implicit.activations.base import Activation, Line
from idl_audit.implicit.activations.coupled import Coupled
from idl_audit.implicit.activations.mixed import Mixed

ACTIVATIONS: Final[Mapping[str, Callable[..., Activation]]] = MappingProxyType(
    {
        "identity": kinked.identity,
        "relu": kinked.relu,
        "leaky_relu": kinked.leaky_relu,
        "abs": kinked.absolute,
        "celu": curve.celu,
        "contraction": contraction.contraction,
        "elu": curve.elu,
        "erf": curve.erf,
        "gelu": curve.gelu,
        "gelu_tanh": curve.gelu_tanh,
        "hard_swish": curve.hard_swish,
        "mish": curve.mish,
        "normalised": normalised.normalised,
        "product": product.product,
        "selu": curve.selu,
        "sigmoid": curve.sigmoid,
        "silu": curve.silu,
        "softmax": softmax.softmax,
        "softplus": curve.softplus,
        "softsign": curve.softsign,
        "tanh": curve.tanh,
        "acos": analytic.acos,
        "acosh": analytic.acosh,
        "asin": analytic.asin,
        "asinh": analytic.asinh,
        "atan": analytic.atan,
        "atanh": analytic.atanh,
        "cos": analytic.cos,
        "cosh": analytic.cosh,
        "exp": analytic.exp,
        "log": analytic.log,
        "power": analytic.power,
        "reciprocal": analytic.reciprocal,
        "rsqrt": analytic.rsqrt,
        "sin": analytic.sin,
        "sinh": analytic.sinh,
        "sqrt": analytic.sqrt,
        "square": analytic.square,
        "tan": analytic.tan,
    }
)
"""Name -> constructor; the keyword arguments are what a converted model stores beside the name."""

COUPLED: Final = frozenset({"contraction", "normalised", "product", "softmax"})
"""Those whose states depend on each other, in groups of `width`."""

SIZES: Final = frozenset({"columns", "inner", "rows", "width"})
"""Parameters of theirs that are whole numbers."""

JUMPS: Final[Mapping[str, Callable[..., Activation]]] = MappingProxyType(
    {"ceil": jumping.ceil, "floor": jumping.floor, "round": jumping.rounding, "step": jumping.step}
)
"""The same for what jumps, which no loop may hold: feed-forward models read from other files have them."""

__all__ = ["ACTIVATIONS", "COUPLED", "JUMPS", "SIZES", "Activation", "Coupled", "Line", "Mixed"]
