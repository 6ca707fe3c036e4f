"""Every activation to many digits, and places where they are worth looking at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mpmath
import numpy as np
from mpmath import mpf

from idl_audit.implicit.activations import Activation

Array = np.ndarray[Any, Any]

True_ = Callable[[Any], Any]
INF = float("inf")


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


@dataclass(frozen=True)
class Exact:
    """A curve with a domain, or with slopes without bound, and its derivative."""

    true: True_
    slope: True_
    parameters: dict[str, float] = field(default_factory=dict)
    components: tuple[tuple[float, float], ...] = ((-INF, INF),)
    """Intervals that the domain is made of."""
    open_at: tuple[float, ...] = ()
    """Their ends that do not belong to it."""


def power(exponent: float) -> Exact:
    is_whole, p = exponent.is_integer(), mpf(exponent)
    components = (
        ((-INF, INF),) if is_whole and exponent > 0 else ((-INF, 0.0), (0.0, INF)) if is_whole else ((0.0, INF),)
    )

    def slope(z: Any) -> Any:
        return mpf(INF) if z == 0 and exponent < 1 else p * z ** (p - 1)

    return Exact(lambda z: z**p, slope, {"exponent": exponent}, components, (0.0,) if exponent < 0 else ())


def steep(slope: True_, *places: float) -> True_:
    """Return a slope that is infinite at some places."""
    return lambda z: mpf(INF) if z in places else slope(z)


UNIT = ((-1.0, 1.0),)
ABOVE = ((0.0, INF),)
POWERS = (2.0, 3.0, 4.0, 7.0, -1.0, -2.0, -3.0, 0.5, 1.5, 2.5, -0.5, 1 / 3, -1.7, 0.01)

ANALYTIC: dict[str, list[Exact]] = {
    "acos": [Exact(mpmath.acos, lambda z: -steep(lambda y: 1 / mpmath.sqrt(1 - y * y), 1, -1)(z), components=UNIT)],
    "acosh": [Exact(mpmath.acosh, steep(lambda z: 1 / mpmath.sqrt(z * z - 1), 1), components=((1.0, INF),))],
    "asin": [Exact(mpmath.asin, steep(lambda z: 1 / mpmath.sqrt(1 - z * z), 1, -1), components=UNIT)],
    "asinh": [Exact(mpmath.asinh, lambda z: 1 / mpmath.sqrt(1 + z * z))],
    "atan": [Exact(mpmath.atan, lambda z: 1 / (1 + z * z))],
    "atanh": [Exact(mpmath.atanh, lambda z: 1 / (1 - z * z), components=UNIT, open_at=(-1.0, 1.0))],
    "cos": [Exact(mpmath.cos, lambda z: -mpmath.sin(z))],
    "cosh": [Exact(mpmath.cosh, mpmath.sinh)],
    "exp": [Exact(mpmath.exp, mpmath.exp)],
    "log": [Exact(mpmath.log, lambda z: 1 / z, components=ABOVE, open_at=(0.0,))],
    "power": [power(exponent) for exponent in POWERS],
    "reciprocal": [Exact(lambda z: 1 / z, lambda z: -1 / z**2, components=((-INF, 0.0), (0.0, INF)), open_at=(0.0,))],
    "rsqrt": [
        Exact(lambda z: 1 / mpmath.sqrt(z), lambda z: -1 / (2 * z * mpmath.sqrt(z)), components=ABOVE, open_at=(0.0,))
    ],
    "sin": [Exact(mpmath.sin, mpmath.cos)],
    "sinh": [Exact(mpmath.sinh, mpmath.cosh)],
    "sqrt": [Exact(mpmath.sqrt, steep(lambda z: 1 / (2 * mpmath.sqrt(z)), 0), components=ABOVE)],
    "square": [Exact(lambda z: z * z, lambda z: 2 * z)],
    "tan": [
        Exact(mpmath.tan, lambda z: 1 + mpmath.tan(z) ** 2, components=((1.58, 4.71), (-4.71, -1.58), (-1.57, 1.57)))
    ],
}

STEEP = frozenset(ANALYTIC) - {"asinh", "atan", "cos", "sin"}
"""Those that have a domain, or slopes without bound."""

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


def check_best_lines(phi: Activation, lo: Array, hi: Array, *, relative: float, absolute: float) -> None:
    """Compare the usual lines' heights in the middle with those of 101 other slopes."""
    middle, zero, one = (lo + hi) / 2, np.zeros(lo.size), np.ones(lo.size)

    def heights(side: float, k: Array) -> Array:
        return k * middle + side * phi.lower_support(side * one, zero, side * k, lo, hi)

    below, above = phi.relaxation_slopes(lo, hi)
    least, most = phi.slopes(lo, hi)
    others = least + (most - least) * np.linspace(0, 1, 101)[:, None]
    small = relative * (most - least) * (hi - lo) + absolute
    assert (heights(1.0, below) >= np.stack([heights(1.0, k) for k in others]).max(axis=0) - small).all()
    assert (heights(-1.0, above) <= np.stack([heights(-1.0, k) for k in others]).min(axis=0) + small).all()
