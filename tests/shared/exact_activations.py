"""Every activation to many digits, and places where they are worth looking at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
from mpmath import mpf

True_ = Callable[[Any], Any]


def kinked(below: float, above: float = 1.0) -> True_:
    return lambda z: mpf(above) * z if z >= 0 else mpf(below) * z


def elu(alpha: float, gamma: float = 1.0, inner: float = 1.0) -> True_:
    return lambda z: mpf(gamma) * z if z >= 0 else mpf(gamma) * mpf(alpha) * mpmath.expm1(z / mpf(inner))


def gelu(z: Any) -> Any:
    return z * (mpmath.ncdf(z) if abs(z) < 10**6 else mpf(z > 0))


def gelu_tanh(z: Any) -> Any:
    return z * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (z + mpf("0.044715") * z**3))) / 2


def expit(z: Any) -> Any:
    return 1 / (1 + mpmath.exp(-z)) if z > -(10**6) else mpf(0)


def softplus(z: Any) -> Any:
    return max(z, mpf(0)) + mpmath.log1p(mpmath.exp(-abs(z)))


def hard_swish(z: Any) -> Any:
    return z * max(mpf(0), min(mpf(1), z / 6 + mpf(1) / 2))


ALPHAS = (0.01, 0.0, -0.5, 1.7, 1.0)

# name -> [(keyword arguments, the function to 40 digits)]
EXAMPLES: dict[str, list[tuple[dict[str, float], True_]]] = {
    "identity": [({}, kinked(1))],
    "relu": [({}, kinked(0))],
    "leaky_relu": [({"alpha": alpha}, kinked(alpha)) for alpha in ALPHAS],
    "abs": [({}, kinked(-1))],
    "celu": [({"alpha": alpha}, elu(alpha, 1.0, alpha)) for alpha in (1.0, 0.3, 4.0)],
    "elu": [({"alpha": alpha}, elu(alpha)) for alpha in (1.0, 0.3, 2.5, 0.0)],
    "selu": [
        ({"alpha": a, "gamma": g}, elu(a, g))
        for a, g in ((1.6732632423543772, 1.0507009873554805), (0.3, 0.5), (1.0, 1.0))
    ],
    "erf": [({}, mpmath.erf)],
    "gelu": [({}, gelu)],
    "gelu_tanh": [({}, gelu_tanh)],
    "hard_swish": [({}, hard_swish)],
    "mish": [({}, lambda z: z * mpmath.tanh(softplus(z)))],
    "sigmoid": [({}, expit)],
    "silu": [({}, lambda z: z * expit(z))],
    "softplus": [({}, softplus)],
    "softsign": [({}, lambda z: z / (1 + abs(z)))],
    "tanh": [({}, mpmath.tanh)],
}

SPECIAL = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    3.0,
    -3.0,
    0.5,
    -0.75,
    1e-300,
    -1e-300,
    1e-12,
    -1e-12,
    20.0,
    -20.0,
    45.0,
    -45.0,
    800.0,
    -800.0,
    -1.2784645427610738,
    -0.7517,
    1.4142135623730951,
    -1.4142135623730951,
    2.25,
    1e5,
    -1e5,
]


def points(lo: float, hi: float, rng: np.random.Generator) -> list[float]:
    """Return points of [lo, hi]: the ends, 0, the special ones, some at random."""
    inside = [z for z in SPECIAL if lo <= z <= hi]
    drawn = lo + (hi - lo) * rng.random(5)
    return sorted({lo, hi, *inside, *(float(z) for z in np.clip(drawn, lo, hi))})
